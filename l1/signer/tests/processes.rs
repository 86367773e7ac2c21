//! Three signer processes and a collector, up to signatures that Core's consensus code takes; killed, lied to, and restarted.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "../../tests/common/chain.rs"]
mod chain;
#[path = "common/epoch.rs"]
mod epoch;
#[path = "common/processes.rs"]
mod processes;

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use assay_l1::graph::contract::build::{funding_value, leaf, EpochEnd, Graph, TxRole};
use assay_l1::graph::contract::sign::{operator_item, sign_funding, witness};
use assay_l1::graph::terms::ClaimValue;
use assay_l1::script::winternitz;
use assay_l1::wots::guard::UseGuard;
use assay_l1::{KeyRole, OperatorSecret};
use assay_l1_signer::channel::{Channel, ChannelError, Message};
use assay_l1_signer::handover::{Place, Report};
use assay_l1_signer::identity::Identity;
use assay_l1_signer::policy::Policy;
use assay_l1_signer::signatures::SignatureSet;
use assay_l1_signer::wire::message::{Reply, Request};
use assay_l1_signer::wire::proposal::{graph_id, GraphProposal};
use bitcoin::{Amount, OutPoint, Sequence, Transaction, TxOut};
use chain::{open_script, spend, Harness, InProcess};
use epoch::{operator, policy, secret, CODE, START, TRUNK};
use processes::{text, Fault, Proxy, World};

/// A chain with coins for two epochs, and the operator's side of it.
struct Chain {
    harness: InProcess,
    funding: OutPoint,
    next_funding: OutPoint,
}

impl Chain {
    fn new(claims: u32) -> Self {
        let harness = InProcess::new();
        let backend = harness.backend();
        backend.miner().unwrap().mine(101, &open_script()).unwrap();
        let coin = backend.utxos(&open_script()).unwrap().into_iter().find(|coin| coin.height == 1).unwrap();
        // The values do not depend on which coins they are.
        let of = |number| {
            epoch::spec_and_keys(&policy(claims), number, OutPoint { vout: 0, ..OutPoint::default() })
        };
        let ((spec, keys), (next, _)) = (of(0), of(1));
        let graph = epoch::build(&spec, &keys, None, next.id());
        let mut tx = spend(coin.outpoint, coin.txout.value, Sequence::MAX);
        let script_pubkey = assay_l1::graph::transactions::wallet_script(spec.terms.operator_key);
        let values = [funding_value(&spec, None), funding_value(&next, Some(graph.end()))];
        tx.output = values.map(|value| TxOut { value, script_pubkey: script_pubkey.clone() }).to_vec();
        backend.miner().unwrap().mine_exactly(&[tx.clone()], &open_script()).unwrap();
        let txid = tx.compute_txid();
        Self { harness, funding: OutPoint::new(txid, 0), next_funding: OutPoint::new(txid, 1) }
    }

    fn mine(&self, tx: &Transaction) -> Result<(), String> {
        let mined =
            self.harness.backend().miner().unwrap().mine_exactly(std::slice::from_ref(tx), &open_script());
        mined.map(drop).map_err(|error| error.to_string())
    }

    fn pass(&self, blocks: u16) {
        self.harness.backend().miner().unwrap().mine(u32::from(blocks), &open_script()).unwrap();
    }
}

/// A transaction of the graph with the signers' signatures; per input the leaf and the items under the signature.
fn complete(
    graph: &Graph,
    set: &SignatureSet,
    role: TxRole,
    inputs: &[(usize, Vec<Vec<u8>>)],
) -> Transaction {
    let mut tx = graph.node(role).unwrap().tx.clone();
    for (input, (leaf, items)) in inputs.iter().enumerate() {
        let item = set.item(graph, role, input, *leaf).unwrap();
        tx.input[input].witness = witness(items, item, &graph.leaf(role, input, *leaf).unwrap());
    }
    tx
}

fn claim_tx(graph: &Graph, set: &SignatureSet) -> Transaction {
    let mut values = [START, [0x21; 32], [0x31; 32], CODE, [0; 32]];
    values[4] = blake3::hash(&values[..4].concat()).into();
    values[4][0] &= 0x1f;
    let dir = tempfile::tempdir().unwrap();
    let mut guard = UseGuard::open(&dir.path().join("wots.json")).unwrap();
    let named: Vec<_> = ClaimValue::ALL
        .iter()
        .zip(&values)
        .map(|(value, bytes)| (value.key_id(TRUNK, 0, 0), &bytes[..]))
        .collect();
    let signatures = guard.sign(&secret(), &named).unwrap();
    let mut items: Vec<Vec<u8>> = signatures.iter().rev().flat_map(winternitz::witness).collect();
    let role = TxRole::Claim(0);
    let spend = graph.leaf(role, 0, leaf::CLAIM).unwrap();
    items.push(operator_item(graph.node(role).unwrap(), 0, &spend, &operator()));
    complete(graph, set, role, &[(leaf::CLAIM, items)])
}

/// The graph of a proposal, built here.
fn rebuilt(proposal: &GraphProposal) -> Graph {
    let (keys, announce) = (&proposal.graph.keys, proposal.graph.announce);
    epoch::build(&proposal.spec, keys, proposal.previous.as_ref(), announce)
}

/// Signatures, and the graph that they are of.
fn collected(world: &World, proposal: &str, signatures: &str) -> (Graph, SignatureSet) {
    let output = world.collect(proposal, "operator-peers.toml", signatures);
    assert!(output.status.success(), "{}", text(&output));
    let set = SignatureSet::load(&world.path(signatures)).unwrap().unwrap();
    (rebuilt(&read_proposal(world, proposal).1), set)
}

#[test]
fn the_chain_takes_the_next_epoch_whose_opening_the_epoch_befores_key_signed_before_it_was_deleted() {
    let chain = Chain::new(1);
    let world = World::new(&policy(1));
    let (funding, next_funding) = (chain.funding.to_string(), chain.next_funding.to_string());
    let announced = world.spec(1, &next_funding);
    let proposed = world.propose_epoch((0, None), &funding, &announced, "epoch-0.proposal");
    assert!(proposed.status.success(), "{}", text(&proposed));
    let (first, first_set) = collected(&world, "epoch-0.proposal", "epoch-0.signatures");
    let proposed = world.propose_epoch(
        (1, Some("epoch-0.proposal")),
        &next_funding,
        &"bb".repeat(32),
        "epoch-1.proposal",
    );
    assert!(proposed.status.success(), "{}", text(&proposed));
    let (next, next_set) = collected(&world, "epoch-1.proposal", "epoch-1.signatures");
    assert_eq!(hex::encode(next.spec().id()), announced);
    for signer in &world.signers {
        let files = signer.lock().unwrap().files();
        assert!(!files.contains(&"epoch-0.key".to_owned()), "{files:?}");
        for kept in ["epoch-0.recovery", "epoch-1.key", "epoch-1.recovery"] {
            assert!(files.contains(&kept.to_owned()), "{files:?}");
        }
    }

    let open = |graph: &Graph, mut tx: Transaction| {
        sign_funding(&mut tx, &graph.node(TxRole::Reconfiguration).unwrap().spent(), &operator());
        tx
    };
    chain.mine(&open(&first, first.node(TxRole::Reconfiguration).unwrap().tx.clone())).unwrap();
    chain.pass(1);
    chain.mine(&claim_tx(&first, &first_set)).unwrap();
    let role = TxRole::Reconfiguration;
    let spend = next.leaf(role, 0, leaf::CLAIM).unwrap();
    let item = operator_item(next.node(role).unwrap(), 0, &spend, &operator());
    let opening = open(&next, complete(&next, &next_set, role, &[(leaf::CLAIM, vec![item])]));
    assert!(chain.mine(&opening).unwrap_err().contains("nonfinal"));
    chain.pass(1);
    // Any other signature of the set is by the new epoch's key.
    let mut wrong = opening.clone();
    let mut items: Vec<_> = opening.input[0].witness.iter().map(<[u8]>::to_vec).collect();
    items[1] = next_set.signatures[1].to_vec();
    wrong.input[0].witness = bitcoin::Witness::from_slice(&items);
    assert!(chain.mine(&wrong).unwrap_err().contains("Schnorr"));
    chain.mine(&opening).unwrap();
}

fn read_proposal(world: &World, name: &str) -> (Vec<u8>, GraphProposal) {
    let bytes = std::fs::read(world.path(name)).unwrap();
    let proposal = GraphProposal::decode(&bytes).unwrap();
    (bytes, proposal)
}

/// Asks a signer directly.
fn ask(world: &World, signer: usize, identity: &Identity, request: &Request) -> Result<Reply, ChannelError> {
    let (address, id) = {
        let signer = world.signers[signer].lock().unwrap();
        (signer.address.to_string(), signer.id)
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut channel = Channel::connect(&address, identity, id).await?;
        let (round, session) = (request.round(), request.session());
        channel.send(&Message { round, session, body: request.encode() }).await?;
        let answer = channel.receive(Duration::from_secs(120)).await?;
        Ok(Reply::decode(&answer.body).unwrap())
    })
}

#[test]
fn three_processes_sign_an_epoch_and_the_chain_takes_it_although_one_is_killed_in_every_round() {
    let chain = Chain::new(2);
    let world = World::new(&policy(2));
    let proposed = world.propose(&chain.funding.to_string(), "epoch-0.proposal");
    assert!(proposed.status.success(), "{}", text(&proposed));

    // Every round of a session, before the request and after the answer; another signer for the second kind.
    let before = Proxy::new(&world.signers[0], (2..=8).map(Fault::KillBefore).collect());
    let after = Proxy::new(&world.signers[1], (2..=8).map(Fault::KillAfter).collect());
    let mut peers = world.peers.clone();
    peers.signers[0].address = before.address.to_string();
    peers.signers[1].address = after.address.to_string();
    world.write_peers("proxied.toml", &peers);
    let collected = world.collect("epoch-0.proposal", "proxied.toml", "epoch-0.signatures");
    assert!(collected.status.success(), "{}", text(&collected));
    assert_eq!((before.left(), after.left()), (vec![], vec![]), "every kill happened");

    // Everyone has the same signatures.
    let (bytes, proposal) = read_proposal(&world, "epoch-0.proposal");
    let set = SignatureSet::load(&world.path("epoch-0.signatures")).unwrap().unwrap();
    let graph = rebuilt(&proposal);
    assert_eq!(set.signatures.len(), graph.requests().count());
    assert_eq!(set.graph, graph_id(&bytes));
    for signer in &world.signers {
        let mut signer = signer.lock().unwrap();
        // The key waits for the next epoch's opening.
        let files = ["epoch-0.json", "epoch-0.key", "epoch-0.recovery", "epoch-0.signatures", "lock"];
        assert_eq!(signer.files(), files);
        let own = SignatureSet::load(&signer.keys().join("epoch-0.signatures")).unwrap().unwrap();
        assert_eq!(own, set);
        signer.kill();
        signer.start();
    }

    // The chain takes them.
    let mut opening = graph.node(TxRole::Reconfiguration).unwrap().tx.clone();
    let spent = graph.node(TxRole::Reconfiguration).unwrap().spent();
    sign_funding(&mut opening, &spent, &operator());
    chain.mine(&opening).unwrap();
    chain.pass(1);
    chain.mine(&claim_tx(&graph, &set)).unwrap();
    let timeout = complete(&graph, &set, TxRole::ClaimTimeout(1), &[(leaf::CLAIM_TIMEOUT, Vec::new())]);
    chain.pass(2);
    assert!(chain.mine(&timeout).unwrap_err().contains("nonfinal"));
    chain.pass(1);
    chain.mine(&timeout).unwrap();
    let leaves = [(leaf::UNCHALLENGED, Vec::new()), (leaf::OPTIMISTIC, Vec::new())];
    let optimistic = complete(&graph, &set, TxRole::OptimisticAcceptance(0), &leaves);
    chain.pass(5);
    let mut stolen = optimistic.clone();
    stolen.output[0].script_pubkey = open_script();
    assert!(
        chain.mine(&stolen).unwrap_err().contains("Schnorr"),
        "the signatures hold for this transaction only"
    );
    chain.mine(&optimistic).unwrap();

    // After a restart they give nothing more for the epoch, and the collector is done at once.
    let again = world.collect("epoch-0.proposal", "operator-peers.toml", "epoch-0.signatures");
    assert!(text(&again).contains(" 0 made"), "{}", text(&again));
    let open = Request::Open { graph: set.graph, first_chunk: 0 };
    assert!(matches!(ask(&world, 0, &world.operator, &open), Ok(Reply::Refused { .. })));
}

#[test]
fn a_collector_that_is_killed_goes_on_where_it_was_and_one_without_its_files_gets_them_from_a_signer() {
    let world = World::new(&policy(1));
    let funding = format!("{}:0", "05".repeat(32));
    assert!(world.propose(&funding, "proposal").status.success());
    // One signer never gets the end: the others are finished when the collector is killed.
    let held = Proxy::new(&world.signers[2], vec![Fault::Hold(8)]);
    let mut peers = world.peers.clone();
    peers.signers[2].address = held.address.to_string();
    world.write_peers("held.toml", &peers);
    let mut collector = world.collect_command("proposal", "held.toml", "signatures").spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(300);
    let finished = |number: usize| world.signers[number].lock().unwrap().finished(0);
    while !held.left().is_empty() || !finished(0) || !finished(1) {
        assert!(Instant::now() < deadline, "two signers finish");
        std::thread::sleep(Duration::from_millis(20));
    }
    collector.kill().unwrap();
    collector.wait().unwrap();
    assert!(!finished(2));
    let kept = SignatureSet::load(&world.path("signatures")).unwrap().unwrap();
    // All of the collector's files are lost.
    std::fs::remove_file(world.path("signatures")).unwrap();
    std::fs::remove_dir_all(world.path("signatures.chunks")).unwrap();
    let again = world.collect("proposal", "operator-peers.toml", "signatures");
    assert!(again.status.success(), "{}", text(&again));
    assert_eq!(SignatureSet::load(&world.path("signatures")).unwrap().unwrap(), kept);
    assert!(finished(2));
}

#[test]
fn a_graph_with_a_change_is_refused_and_so_is_a_second_one_for_the_epoch() {
    let world = World::new(&policy(1));
    let funding = |byte: &str| format!("{}:0", byte.repeat(32));
    assert!(world.propose(&funding("05"), "good").status.success());
    assert!(world.propose(&funding("06"), "other").status.success());
    let (_, good) = read_proposal(&world, "good");
    let propose = |proposal: &GraphProposal| {
        let proposal = proposal.encode().unwrap();
        ask(&world, 0, &world.operator, &Request::Propose { proposal }).unwrap()
    };
    let refused = |reply: Reply, part: &str| match reply {
        Reply::Refused { again: false, reason } => assert!(reason.contains(part), "{reason}"),
        other => panic!("{other:?}"),
    };
    let mut stolen = good.clone();
    let pay_out = stolen.graph.transactions.get_mut(&TxRole::PayOut).unwrap();
    pay_out.tx.output[0].script_pubkey = open_script();
    refused(propose(&stolen), "PayOut: output 0");
    let mut cheap = good.clone();
    cheap.spec.slashed_to_sink = Amount::from_sat(330);
    refused(propose(&cheap), "slashed part");
    let mut garbage = good.encode().unwrap();
    garbage.truncate(1_000);
    let garbage = ask(&world, 0, &world.operator, &Request::Propose { proposal: garbage }).unwrap();
    refused(garbage, "no proposal");
    // Nothing was locked by these.
    assert!(matches!(propose(&good), Reply::Accepted { .. }));
    let (_, other) = read_proposal(&world, "other");
    refused(propose(&other), "another graph");
    let mut signer = world.signers[0].lock().unwrap();
    signer.kill();
    signer.start();
    drop(signer);
    refused(propose(&other), "another graph");
    let failed = world.collect("other", "operator-peers.toml", "out");
    assert!(!failed.status.success());
    assert!(text(&failed).contains("locked to another graph"), "{}", text(&failed));
    assert!(!world.path("out").exists());
}

#[test]
fn strangers_are_not_answered_and_a_signer_with_another_key_is_noticed() {
    let world = World::new(&policy(1));
    let stranger = Identity::from_bytes(&[77; 32]).unwrap();
    let key = Request::Key { trunk_id: TRUNK, epoch: 0 };
    // Known keys that are not the operator's are strangers as well.
    let signer = Identity::load_or_create(&world.path("signer-1").join("identity")).unwrap();
    for identity in [&stranger, &signer] {
        assert!(matches!(ask(&world, 0, identity, &key), Err(ChannelError::Closed | ChannelError::Io(_))));
    }
    assert!(matches!(ask(&world, 0, &world.operator, &key), Ok(Reply::Key(_))));
    // Signer 1 answers where signer 0 should.
    let mut swapped = world.peers.clone();
    swapped.signers[0].address = swapped.signers[1].address.clone();
    world.write_peers("swapped.toml", &swapped);
    let output = world
        .command("spec", "swapped.toml")
        .arg("--secret")
        .arg(world.path("secret"))
        .args(["--epoch", "0", "--funding", &format!("{}:0", "05".repeat(32))])
        .output()
        .unwrap();
    assert!(!output.status.success());
    assert!(text(&output).contains("signer-0: the other side is not"), "{}", text(&output));
    // Two processes on one directory.
    let taken = Arc::clone(&world.signers[0]);
    let dir = taken.lock().unwrap().keys();
    let error = assay_l1_signer::store::Store::open(&dir).err().expect("the directory is locked");
    assert!(error.to_string().contains("another process"), "{error}");
}

/// The operator that goes on after the first one stopped.
#[test]
fn no_epoch_is_drafted_with_a_missing_secret_or_another_operators() {
    let world = World::new(&policy(1));
    let spec = || {
        let mut command = world.command("spec", "operator-peers.toml");
        let funding = format!("{}:0", "11".repeat(32));
        command.arg("--secret").arg(world.path("typo")).args(["--epoch", "0", "--funding", &funding]);
        let output = command.output().unwrap();
        assert!(!output.status.success());
        text(&output)
    };
    assert!(spec().contains("No such file"), "{}", spec());
    assert!(!world.path("typo").exists(), "none is made");
    assay_l1_signer::store::secret::write(&world.path("typo"), &zeroize::Zeroizing::new([4; 32])).unwrap();
    assert!(spec().contains("expected the policy's"), "{}", spec());
    let mut forget = Command::new(env!("CARGO_BIN_EXE_assay-l1-signer"));
    let forget = forget.args(["forget", "--epoch", "0", "--dir"]).arg(world.path("none")).output();
    assert!(!forget.unwrap().status.success() && !world.path("none").exists(), "nothing was forgotten");
}

fn backup() -> OperatorSecret {
    OperatorSecret::from_bytes([4; 32])
}

/// A coin for the epoch that goes on from `end`.
fn handover_coin(chain: &Chain, policy: &Policy, end: &EpochEnd) -> OutPoint {
    let spec = policy.outline(1);
    let backend = chain.harness.backend();
    let coins = backend.utxos(&open_script()).unwrap();
    let coin = coins.into_iter().find(|coin| coin.coinbase && coin.height == 2).unwrap();
    let mut tx = spend(coin.outpoint, coin.txout.value, Sequence::MAX);
    let script_pubkey = assay_l1::graph::transactions::wallet_script(policy.operator_key);
    tx.output = vec![TxOut { value: funding_value(&spec, Some(end)), script_pubkey }];
    chain.mine(&tx).unwrap();
    OutPoint::new(tx.compute_txid(), 0)
}

/// Epoch 0 up to its end by a timeout before claim 1.
fn stopped(chain: &Chain, graph: &Graph, set: &SignatureSet) {
    let mut opening = graph.node(TxRole::Reconfiguration).unwrap().tx.clone();
    sign_funding(&mut opening, &graph.node(TxRole::Reconfiguration).unwrap().spent(), &operator());
    chain.mine(&opening).unwrap();
    chain.pass(1);
    chain.mine(&claim_tx(graph, set)).unwrap();
    chain.pass(3);
    let leaves = [(leaf::CLAIM_TIMEOUT, Vec::new())];
    chain.mine(&complete(graph, set, TxRole::ClaimTimeout(1), &leaves)).unwrap();
}

/// Has the epoch that goes on proposed and signed; its proposal.
fn go_on(world: &World, funding: &str) -> (Vec<u8>, GraphProposal) {
    let mut propose = world.command_under("propose", "operator-peers.toml", "next-policy.toml");
    propose.arg("--secret").arg(world.path("next-secret")).args(["--epoch", "1", "--funding", funding]);
    propose.args(["--announce", &"cc".repeat(32)]).arg("--out").arg(world.path("next.proposal"));
    propose.arg("--previous").arg(world.path("epoch-0.proposal"));
    let proposed = propose.arg("--handover").arg(world.path("handover.json")).output().unwrap();
    assert!(proposed.status.success(), "{}", text(&proposed));
    let mut collect = world.command_under("collect", "operator-peers.toml", "next-policy.toml");
    collect
        .arg("--proposal")
        .arg(world.path("next.proposal"))
        .arg("--out")
        .arg(world.path("next.signatures"));
    let output = collect.output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    read_proposal(world, "next.proposal")
}

#[test]
fn after_a_timeout_the_signers_consent_to_a_hand_over_and_the_chain_takes_the_other_operators_epoch() {
    let chain = Chain::new(2);
    let world = World::new(&policy(2));
    let proposed = world.propose(&chain.funding.to_string(), "epoch-0.proposal");
    assert!(proposed.status.success(), "{}", text(&proposed));
    let (first, first_set) = collected(&world, "epoch-0.proposal", "epoch-0.signatures");
    stopped(&chain, &first, &first_set);

    let key = backup().keypair(&TRUNK, KeyRole::Operator);
    let next_policy = Policy { operator_key: key.x_only_public_key().0, ..policy(2) };
    std::fs::write(world.path("next-policy.toml"), toml::to_string(&next_policy).unwrap()).unwrap();
    let secret = zeroize::Zeroizing::new([4; 32]);
    assay_l1_signer::store::secret::write(&world.path("next-secret"), &secret).unwrap();
    let place = |claim| Place { place: 0, epoch: 0, claim };
    for (name, claim) in [("handover.json", 1), ("other.json", 0), ("never.json", 3)] {
        let report = Report { stopped_before: place(1), goes_on_at: place(claim) };
        std::fs::write(world.path(name), serde_json::to_vec(&report).unwrap()).unwrap();
    }
    for signer in &world.signers {
        let mut signer = signer.lock().unwrap();
        signer.kill();
        let refused = world.hand_over(&signer, "never.json", "next");
        assert!(!refused.status.success() && text(&refused).contains("does not exist"), "{}", text(&refused));
        // Said twice, done once.
        for _ in 0..2 {
            let agreed = world.hand_over(&signer, "handover.json", "next");
            assert!(agreed.status.success(), "{}", text(&agreed));
        }
        assert!(!signer.files().contains(&"epoch-0.recovery".to_owned()), "{:?}", signer.files());
        for (report, dir) in [("other.json", "next"), ("handover.json", "elsewhere")] {
            let refused = world.hand_over(&signer, report, dir);
            assert!(
                !refused.status.success() && text(&refused).contains("differently"),
                "{}",
                text(&refused)
            );
        }
        signer.serves = ("next", "next-policy.toml");
        signer.start();
    }

    let end = first.halted(1, 1).unwrap();
    let funding = handover_coin(&chain, &next_policy, &end).to_string();
    let (bytes, proposal) = go_on(&world, &funding);
    assert_eq!(proposal.previous, Some(end));
    let next = rebuilt(&proposal);
    let set = SignatureSet::load(&world.path("next.signatures")).unwrap().unwrap();

    let leaves = [(leaf::HANDOVER, Vec::new())];
    let mut opening = complete(&next, &set, TxRole::Reconfiguration, &leaves);
    sign_funding(&mut opening, &next.node(TxRole::Reconfiguration).unwrap().spent(), &key);
    chain.pass(2);
    assert!(chain.mine(&opening).unwrap_err().contains("nonfinal"));
    chain.pass(1);
    chain.mine(&opening).unwrap();

    for signer in &world.signers {
        let mut signer = signer.lock().unwrap();
        assert!(!signer.files().contains(&"epoch-0.key".to_owned()), "{:?}", signer.files());
        assert!(signer.finished(1));
        signer.kill();
        // The directory that did not consent knows of no such end.
        signer.serves.0 = "epochs";
        signer.start();
    }
    let refused = ask(&world, 0, &world.operator, &Request::Propose { proposal: bytes }).unwrap();
    let Reply::Refused { reason, .. } = refused else { panic!("{refused:?}") };
    assert!(reason.contains("the epoch before is not the one"), "{reason}");
}
