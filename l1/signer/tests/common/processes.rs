//! Signer processes, the operator's commands, and a proxy between them that kills.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use assay_l1_signer::identity::{Identity, PartyId};
use assay_l1_signer::peers::{Peer, Peers};
use assay_l1_signer::policy::Policy;
use tokio::net::TcpSocket;

const EXE: &str = env!("CARGO_BIN_EXE_assay-l1-signer");

/// A running `serve`; killed when dropped.
pub(crate) struct Signer {
    dir: PathBuf,
    /// Its directory of epochs, and the shared policy file.
    pub(crate) serves: (&'static str, &'static str),
    pub(crate) id: PartyId,
    pub(crate) address: SocketAddr,
    child: Option<Child>,
    /// Bound, never listening: nobody else is given the port while the process is away.
    _port: TcpSocket,
}

impl Signer {
    /// Files in `dir`; the peers and policy files are beside it.
    pub(crate) fn new(dir: &Path) -> Self {
        let id = Identity::load_or_create(&dir.join("identity")).unwrap().id();
        let port = TcpSocket::new_v4().unwrap();
        port.set_reuseaddr(true).unwrap();
        port.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let (address, serves) = (port.local_addr().unwrap(), ("epochs", "policy.toml"));
        Self { dir: dir.to_owned(), serves, id, address, child: None, _port: port }
    }

    pub(crate) fn keys(&self) -> PathBuf {
        self.dir.join(self.serves.0)
    }

    fn shared(&self, name: &str) -> PathBuf {
        self.dir.parent().unwrap().join(name)
    }

    /// Starts the process at its address and waits until it listens.
    pub(crate) fn start(&mut self) {
        let mut child = Command::new(EXE)
            .arg("serve")
            .arg("--dir")
            .arg(self.keys())
            .arg("--identity")
            .arg(self.dir.join("identity"))
            .arg("--peers")
            .arg(self.shared("peers.toml"))
            .arg("--policy")
            .arg(self.shared(self.serves.1))
            .arg("--listen")
            .arg(self.address.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        self.address = line.trim().parse().expect("the first line is the address");
        self.child = Some(child);
    }

    /// True once the record on disk says that an epoch has all its signatures.
    pub(crate) fn finished(&self, epoch: u32) -> bool {
        let record = std::fs::read(self.keys().join(format!("epoch-{epoch}.json")));
        let record = record.map(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes).unwrap());
        record.is_ok_and(|record| record["finished"] == true)
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub(crate) fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.keys()).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

impl Drop for Signer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Three signers that run, an operator, and their files.
pub(crate) struct World {
    pub(crate) root: tempfile::TempDir,
    pub(crate) signers: Vec<Arc<Mutex<Signer>>>,
    pub(crate) peers: Peers,
    pub(crate) operator: Identity,
}

impl World {
    pub(crate) fn new(policy: &Policy) -> Self {
        let root = tempfile::tempdir().unwrap();
        let mut signers: Vec<_> = (0..3)
            .map(|number| {
                let dir = root.path().join(format!("signer-{number}"));
                std::fs::create_dir(&dir).unwrap();
                Signer::new(&dir)
            })
            .collect();
        let operator = Identity::load_or_create(&root.path().join("operator")).unwrap();
        let secret = root.path().join("secret");
        assay_l1_signer::store::secret::write(&secret, &zeroize::Zeroizing::new([3; 32])).unwrap();
        std::fs::write(root.path().join("policy.toml"), toml::to_string(policy).unwrap()).unwrap();
        let peer = |(number, signer): (usize, &Signer)| Peer {
            name: format!("signer-{number}"),
            key: signer.id,
            address: signer.address.to_string(),
        };
        let peers = |signers: &[Signer]| Peers {
            operator: operator.id(),
            signers: signers.iter().enumerate().map(peer).collect(),
        };
        // Signers need the keys only; where they listen is known afterwards.
        let before = peers(&signers);
        std::fs::write(root.path().join("peers.toml"), toml::to_string(&before).unwrap()).unwrap();
        signers.iter_mut().for_each(Signer::start);
        let peers = peers(&signers);
        let signers = signers.into_iter().map(|signer| Arc::new(Mutex::new(signer))).collect();
        let world = Self { root, signers, peers, operator };
        world.write_peers("operator-peers.toml", &world.peers);
        world
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub(crate) fn write_peers(&self, name: &str, peers: &Peers) {
        std::fs::write(self.path(name), toml::to_string(peers).unwrap()).unwrap();
    }

    /// An operator's command with the common options; `peers` is the file's name.
    pub(crate) fn command(&self, name: &str, peers: &str) -> Command {
        self.command_under(name, peers, "policy.toml")
    }

    /// The same under another policy.
    pub(crate) fn command_under(&self, name: &str, peers: &str, policy: &str) -> Command {
        let mut command = Command::new(EXE);
        command
            .arg(name)
            .arg("--identity")
            .arg(self.path("operator"))
            .arg("--peers")
            .arg(self.path(peers))
            .arg("--policy")
            .arg(self.path(policy))
            .args(["--patience-seconds", "600"]);
        command
    }

    /// A signer's consent to a hand-over; its process must not run.
    pub(crate) fn hand_over(&self, signer: &Signer, report: &str, new_dir: &str) -> Output {
        let mut command = Command::new(EXE);
        command.arg("hand-over").arg("--dir").arg(signer.keys());
        command.arg("--new-dir").arg(signer.dir.join(new_dir)).arg("--policy").arg(self.path("policy.toml"));
        command.arg("--previous").arg(self.path("epoch-0.proposal"));
        command.arg("--handover").arg(self.path(report)).output().unwrap()
    }

    fn epoch_command(&self, name: &str, epoch: u32, funding: &str) -> Command {
        let mut command = self.command(name, "operator-peers.toml");
        command.arg("--secret").arg(self.path("secret")).args([
            "--epoch",
            &epoch.to_string(),
            "--funding",
            funding,
        ]);
        command
    }

    pub(crate) fn propose(&self, funding: &str, out: &str) -> Output {
        self.propose_epoch((0, None), funding, &"aa".repeat(32), out)
    }

    /// Proposes an epoch after the one in this proposal.
    pub(crate) fn propose_epoch(
        &self,
        (epoch, previous): (u32, Option<&str>),
        funding: &str,
        announce: &str,
        out: &str,
    ) -> Output {
        let mut command = self.epoch_command("propose", epoch, funding);
        command.args(["--announce", announce]).arg("--out").arg(self.path(out));
        if let Some(previous) = previous {
            command.arg("--previous").arg(self.path(previous));
        }
        command.output().unwrap()
    }

    /// Id of an epoch's spec.
    pub(crate) fn spec(&self, epoch: u32, funding: &str) -> String {
        let output = self.epoch_command("spec", epoch, funding).output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    pub(crate) fn collect_command(&self, proposal: &str, peers: &str, out: &str) -> Command {
        let mut command = self.command("collect", peers);
        command.arg("--proposal").arg(self.path(proposal)).arg("--out").arg(self.path(out));
        command
    }

    pub(crate) fn collect(&self, proposal: &str, peers: &str, out: &str) -> Output {
        self.collect_command(proposal, peers, out).output().unwrap()
    }
}

/// What the output says, for messages.
pub(crate) fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// What happens to the signer behind a proxy the first time that a request of this round comes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Killed before it sees the request.
    KillBefore(u8),
    /// Killed after it has answered; the answer is lost.
    KillAfter(u8),
    /// The request is held back for ever.
    Hold(u8),
}

/// Forwards connections to a signer, with faults, each of which happens once.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    left: Arc<Mutex<Vec<Fault>>>,
}

impl Proxy {
    pub(crate) fn new(signer: &Arc<Mutex<Signer>>, faults: Vec<Fault>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let left = Arc::new(Mutex::new(faults));
        // Not its own: whoever drops the signer ends it, whatever connection is held back here.
        let (signer, faults) = (Arc::downgrade(signer), Arc::clone(&left));
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (signer, faults) = (Weak::clone(&signer), Arc::clone(&faults));
                // A connection that breaks is what this is for.
                std::thread::spawn(move || drop(forward(client.unwrap(), &signer, &faults)));
            }
        });
        Self { address, left }
    }

    pub(crate) fn left(&self) -> Vec<Fault> {
        self.left.lock().unwrap().clone()
    }
}

fn frame(from: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut head = [0; 4];
    from.read_exact(&mut head)?;
    let mut frame = head.to_vec();
    frame.resize(4 + u32::from_be_bytes(head) as usize, 0);
    from.read_exact(&mut frame[4..])?;
    Ok(frame)
}

fn forward(
    mut client: TcpStream,
    signer: &Weak<Mutex<Signer>>,
    faults: &Mutex<Vec<Fault>>,
) -> std::io::Result<()> {
    let signer = || signer.upgrade().ok_or(std::io::ErrorKind::NotConnected);
    let address = signer()?.lock().unwrap().address;
    let mut server = TcpStream::connect(address)?;
    for number in 0.. {
        let request = frame(&mut client)?;
        // Two frames of greeting, of which the second has no answer; then the round lies behind the number.
        let round = if number < 2 { 0 } else { request[12] };
        let take = |fault: Fault| {
            let mut faults = faults.lock().unwrap();
            let found = faults.iter().position(|one| *one == fault);
            found.map(|index| faults.remove(index)).is_some()
        };
        let restart = || -> std::io::Result<()> {
            let signer = signer()?;
            let mut signer = signer.lock().unwrap();
            signer.kill();
            signer.start();
            Ok(())
        };
        if take(Fault::Hold(round)) {
            std::thread::sleep(Duration::from_secs(3_600));
        }
        if take(Fault::KillBefore(round)) {
            return restart();
        }
        server.write_all(&request)?;
        if number == 1 {
            continue;
        }
        let answer = frame(&mut server)?;
        if take(Fault::KillAfter(round)) {
            return restart();
        }
        client.write_all(&answer)?;
    }
    Ok(())
}
