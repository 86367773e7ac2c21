//! Signers as processes, the operator's commands, and epochs that they sign while they are killed.

use std::net::SocketAddr;

use assay_l1::BitcoinBackend;
use assay_l1_parties::service::fund::fund;
use assay_l1_signer::identity::Identity;
use assay_l1_signer::peers::{Peer, Peers};
use assay_l1_signer::policy::Policy;

use crate::files::{parse, Files};
use crate::process::Party;

/// Three signers that run, and what the operator needs to have them sign.
pub(crate) struct Signers<'a> {
    files: &'a Files,
    node: Vec<String>,
    pub(crate) signers: Vec<Party>,
}

fn words(pairs: &[(&str, &str)]) -> Vec<String> {
    pairs.iter().flat_map(|(name, value)| [(*name).to_owned(), (*value).to_owned()]).collect()
}

impl<'a> Signers<'a> {
    /// Writes policy and peers, and starts them. `node`: how commands are told of it.
    pub(crate) fn start(files: &'a Files, node: Vec<String>, policy: &Policy) -> Self {
        std::fs::write(files.path("policy.toml"), toml::to_string(policy).unwrap()).unwrap();
        let names = ["s1", "s2", "s3"];
        let id = |name: &str| Identity::load_or_create(&files.path(&format!("{name}.id"))).unwrap().id();
        let peers = |addresses: &[SocketAddr]| {
            let signers = names.iter().zip(addresses);
            let signers = signers.map(|(name, address)| Peer {
                name: (*name).to_owned(),
                key: id(name),
                address: address.to_string(),
            });
            let peers = Peers { operator: id("collector"), signers: signers.collect() };
            std::fs::write(files.path("peers.toml"), toml::to_string(&peers).unwrap()).unwrap();
        };
        // Who they are is needed first; where they listen is known afterwards.
        peers(&["127.0.0.1:0".parse().unwrap(); 3]);
        let mut signers: Vec<Party> = names
            .iter()
            .map(|name| {
                let own = words(&[
                    ("--dir", &files.word(name)),
                    ("--identity", &files.word(&format!("{name}.id"))),
                    ("--peers", &files.word("peers.toml")),
                    ("--policy", &files.word("policy.toml")),
                    ("--listen", "127.0.0.1:0"),
                ]);
                Party::start(name, [vec!["signer".to_owned(), "serve".to_owned()], own].concat())
            })
            .collect();
        let addresses: Vec<SocketAddr> = signers.iter_mut().map(listening).collect();
        peers(&addresses);
        for (signer, address) in signers.iter_mut().zip(addresses) {
            signer.set_last_word(address.to_string());
        }
        Self { files, node, signers }
    }

    /// Kills a signer and starts it again where it listened.
    pub(crate) fn kill(&mut self, signer: usize) {
        self.signers[signer].kill();
        self.signers[signer].restart();
        listening(&mut self.signers[signer]);
    }

    /// Has coins sent to a party; the one that opens an epoch, if there is one.
    pub(crate) fn fund(
        &self,
        backend: &dyn BitcoinBackend,
        name: &str,
        more: &[(&str, &str)],
    ) -> Option<String> {
        let secret = self.files.word(&format!("{name}.secret"));
        let all = words(&[
            ("--policy", &self.files.word("policy.toml")),
            ("--secret", &secret),
            ("--purse", &self.files.word("purse")),
        ]);
        let args = parse([self.node.clone(), all, words(more)].concat());
        fund(&args, backend).unwrap().epoch_coin
    }

    /// A command of the operator's side of signing, as a process.
    fn command(&self, name: &str, more: &[(&str, &str)]) -> Party {
        let all = words(&[
            ("--identity", &self.files.word("collector.id")),
            ("--peers", &self.files.word("peers.toml")),
            ("--policy", &self.files.word("policy.toml")),
        ]);
        let command = vec!["signer".to_owned(), name.to_owned()];
        Party::start(name, [command, all, words(more)].concat())
    }

    /// Runs one to its end; the 64 hexadecimal digits that it prints.
    fn id(&self, name: &str, more: &[(&str, &str)]) -> String {
        let mut command = self.command(name, more);
        let status = command.finish();
        let lines = command.lines();
        assert!(status.success(), "{lines:?}");
        let last_word = |line: &String| line.split_whitespace().last().map(str::to_owned);
        let is_id = |word: &String| hex::decode_to_slice(word, &mut [0; 32]).is_ok();
        lines.iter().filter_map(last_word).find(is_id).unwrap_or_else(|| panic!("{lines:?}"))
    }

    /// Id of the spec of an epoch that this coin opens.
    pub(crate) fn spec(&self, epoch: u32, coin: &str) -> String {
        let secret = self.files.word("operator.secret");
        self.id("spec", &[("--secret", &secret), ("--epoch", &epoch.to_string()), ("--funding", coin)])
    }

    /// Proposes an epoch, and has it signed while `kill` says who dies next: 0 to 2 a signer, 3 the collector, anything else nobody any
    /// more.
    pub(crate) fn sign(&mut self, epoch: u32, coin: &str, next: &str, mut kill: impl FnMut() -> usize) {
        let path = |epoch: u32, kind: &str| self.files.word(&format!("epochs/{epoch:04}.{kind}"));
        let (secret, proposal, number) =
            (self.files.word("operator.secret"), path(epoch, "proposal"), epoch.to_string());
        let before = epoch.checked_sub(1).map(|before| path(before, "proposal"));
        let mut args = vec![
            ("--secret", secret.as_str()),
            ("--epoch", &number),
            ("--funding", coin),
            ("--announce", next),
            ("--out", &proposal),
        ];
        args.extend(before.iter().map(|before| ("--previous", before.as_str())));
        self.id("propose", &args);
        let signatures = path(epoch, "signatures");
        let mut collector = self.command("collect", &[("--proposal", &proposal), ("--out", &signatures)]);
        loop {
            match kill() {
                signer @ 0..3 => self.kill(signer),
                3 if !collector.has_ended() => {
                    collector.kill();
                    collector.restart();
                }
                _ => break,
            }
        }
        assert!(collector.finish().success(), "{:?}", collector.lines());
    }
}

/// Where a signer listens, once it does.
fn listening(signer: &mut Party) -> SocketAddr {
    signer.wait("it listens", |run| run.iter().find_map(|line| line.split_whitespace().last()?.parse().ok()))
}
