//! Signers as processes, the operator's commands, and epochs that they sign while they are killed.

use std::net::SocketAddr;

use assay_l1::BitcoinBackend;
use assay_l1_parties::service::fund::fund;
use assay_l1_signer::identity::Identity;
use assay_l1_signer::peers::{Peer, Peers};
use assay_l1_signer::policy::Policy;

use crate::dice::Dice;
use crate::files::{parse, Files, BACKUP_POLICY};
use crate::process::Party;

const NAMES: [&str; 3] = ["s1", "s2", "s3"];

/// For whom epochs are signed: the name of its secret, and its policy.
type Client = (&'static str, &'static str);
const FIRST: Client = ("operator", "policy.toml");
const BACKUP: Client = ("successor", BACKUP_POLICY);

/// Three signers that run, and what the operator needs to have them sign.
pub(crate) struct Signers<'a> {
    files: &'a Files,
    node: Vec<String>,
    pub(crate) signers: Vec<Party>,
    addresses: Vec<SocketAddr>,
    client: Client,
}

/// An epoch that is to be signed.
pub(crate) struct Draft<'a> {
    /// Its place among the files.
    pub(crate) place: u32,
    pub(crate) epoch: u32,
    /// What opens it.
    pub(crate) coin: &'a str,
    /// Id of the spec that it announces.
    pub(crate) next: &'a str,
    /// Arguments about the epoch before.
    pub(crate) before: &'a [(&'a str, &'a str)],
}

fn words(pairs: &[(&str, &str)]) -> Vec<String> {
    pairs.iter().flat_map(|(name, value)| [(*name).to_owned(), (*value).to_owned()]).collect()
}

/// The words of a signer that serves the epochs in `dir`.
fn serving(files: &Files, name: &str, (dir, policy): (&str, &str), address: SocketAddr) -> Vec<String> {
    let own = words(&[
        ("--dir", &files.word(dir)),
        ("--identity", &files.word(&format!("{name}.id"))),
        ("--peers", &files.word("peers.toml")),
        ("--policy", &files.word(policy)),
        ("--listen", &address.to_string()),
    ]);
    [vec!["signer".to_owned(), "serve".to_owned()], own].concat()
}

impl<'a> Signers<'a> {
    /// Writes policy and peers, and starts them. `node`: how commands are told of it.
    pub(crate) fn start(files: &'a Files, node: Vec<String>, policy: &Policy) -> Self {
        std::fs::write(files.path("policy.toml"), toml::to_string(policy).unwrap()).unwrap();
        let id = |name: &str| Identity::load_or_create(&files.path(&format!("{name}.id"))).unwrap().id();
        let peers = |addresses: &[SocketAddr]| {
            let signers = NAMES.iter().zip(addresses);
            let signers = signers.map(|(name, address)| Peer {
                name: (*name).to_owned(),
                key: id(name),
                address: address.to_string(),
            });
            let peers = Peers { operator: id("collector"), signers: signers.collect() };
            std::fs::write(files.path("peers.toml"), toml::to_string(&peers).unwrap()).unwrap();
        };
        let served = |name: &str, address| serving(files, name, (name, FIRST.1), address);
        // Who they are is needed first; where they listen is known afterwards.
        let anywhere = "127.0.0.1:0".parse().unwrap();
        peers(&[anywhere; 3]);
        let mut signers = NAMES.map(|name| Party::start(name, served(name, anywhere)));
        let addresses: Vec<SocketAddr> = signers.iter_mut().map(listening).collect();
        peers(&addresses);
        for ((signer, name), address) in signers.iter_mut().zip(NAMES).zip(&addresses) {
            signer.set_words(served(name, *address));
        }
        Self { files, node, signers: signers.into(), addresses, client: FIRST }
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
            ("--policy", &self.files.word(self.client.1)),
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
            ("--policy", &self.files.word(self.client.1)),
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

    /// Secret file of the operator that they sign for.
    fn secret(&self) -> String {
        self.files.word(&format!("{}.secret", self.client.0))
    }

    /// Id of the spec of an epoch that this coin opens.
    pub(crate) fn spec(&self, epoch: u32, coin: &str) -> String {
        let secret = self.secret();
        self.id("spec", &[("--secret", &secret), ("--epoch", &epoch.to_string()), ("--funding", coin)])
    }

    /// Proposes an epoch, and has it signed while `kill` says who dies next: 0 to 2 a signer, 3 the collector, anything else nobody any
    /// more.
    pub(crate) fn sign(&mut self, draft: &Draft<'_>, mut kill: impl FnMut() -> usize) {
        let path = |kind: &str| self.files.word(&format!("epochs/{:04}.{kind}", draft.place));
        let (secret, proposal, epoch) = (self.secret(), path("proposal"), draft.epoch.to_string());
        let mut args = vec![
            ("--secret", secret.as_str()),
            ("--epoch", &epoch),
            ("--funding", draft.coin),
            ("--announce", draft.next),
            ("--out", &proposal),
        ];
        args.extend(draft.before);
        self.id("propose", &args);
        let signatures = path("signatures");
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

    /// Each signer consents to what a backup has reported, and signs for it from then on. Who consents is killed over it once.
    pub(crate) fn hand_over(&mut self, before: &[(&str, &str)], dice: &mut Dice) {
        for ((signer, name), address) in self.signers.iter_mut().zip(NAMES).zip(&self.addresses) {
            signer.kill();
            let next = format!("{name}-next");
            let own = words(&[
                ("--dir", &self.files.word(name)),
                ("--new-dir", &self.files.word(&next)),
                ("--policy", &self.files.word(FIRST.1)),
            ]);
            let command = vec!["signer".to_owned(), "hand-over".to_owned()];
            let mut consent = Party::start("hand-over", [command, own, words(before)].concat());
            dice.moment(100);
            consent.kill();
            consent.restart();
            assert!(consent.finish().success(), "{:?}", consent.lines());
            signer.set_words(serving(self.files, name, (&next, BACKUP.1), *address));
            signer.restart();
            listening(signer);
        }
        self.client = BACKUP;
    }
}

/// Where a signer listens, once it does.
fn listening(signer: &mut Party) -> SocketAddr {
    signer.wait("it listens", |run| run.iter().find_map(|line| line.split_whitespace().last()?.parse().ok()))
}
