//! Signers and collector on a bad network, killed at any step, with liars among them: a seeded simulator.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "common/tiny.rs"]
mod tiny;

use std::collections::BTreeMap;
use std::sync::Arc;

use assay_l1_signer::collector::{CollectError, Collector, Effect, Event, Plan};
use assay_l1_signer::identity::PartyId;
use assay_l1_signer::machine::session::{nonces_hash, session_id};
use assay_l1_signer::musig::Attesters;
use assay_l1_signer::review::Reviewer;
use assay_l1_signer::statement::{Kind, Statement};
use assay_l1_signer::wire::message::{Reply, Request};
use assay_l1_signer::wire::proposal::graph_id;
use bitcoin::secp256k1::schnorr::Signature;
use bitcoin::secp256k1::{Message, Secp256k1};
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};
use tiny::{identity, proposal, Members, NonceWatch, Signer, Tiny, MESSAGES, TRUNK};

const STEPS_MAX: usize = 20_000;

/// How a signer lies. Each lie is signed with its own identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lie {
    WrongPartial,
    OtherNonces,
    GarbageNonces,
    BadStatement,
    OtherGraph,
    FalseFinish,
    OtherAnswer,
}

const LIES: [Lie; 7] = [
    Lie::WrongPartial,
    Lie::OtherNonces,
    Lie::GarbageNonces,
    Lie::BadStatement,
    Lie::OtherGraph,
    Lie::FalseFinish,
    Lie::OtherAnswer,
];

#[derive(Debug, Clone)]
enum Packet {
    Request { to: PartyId, id: u64, request: Arc<Request> },
    Reply { from: PartyId, id: u64, reply: Reply },
    Lost { from: PartyId, id: u64 },
}

struct World {
    rng: StdRng,
    signers: BTreeMap<PartyId, Signer>,
    liar: Option<(PartyId, Lie)>,
    plan: Plan,
    /// The keys of the epoch before the plan's.
    before: Option<Members>,
    collector: Collector,
    chunks: BTreeMap<u32, Vec<[u8; 64]>>,
    all: Option<Vec<[u8; 64]>>,
    network: Vec<Packet>,
    watch: NonceWatch,
    /// Faults that may still happen.
    faults: u32,
    sessions: u32,
    over: Option<Result<(), CollectError>>,
}

impl World {
    fn new(seed: u64, faults: u32, lie: Option<Lie>) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let identities: Vec<_> = (11..14).map(identity).collect();
        let everyone: Vec<_> = identities.iter().map(|identity| identity.id()).collect();
        let mut signers: BTreeMap<_, _> =
            identities.into_iter().map(|own| (own.id(), Signer::new(own, &everyone))).collect();
        let plan = plan(0, &mut signers, None, &mut rng);
        let liar = lie.map(|lie| (everyone[rng.gen_range(0..3)], lie));
        let collector = Collector::new(plan.clone(), &[], rng.next_u64());
        Self {
            rng,
            signers,
            liar,
            plan,
            before: None,
            collector,
            chunks: BTreeMap::new(),
            all: None,
            network: Vec::new(),
            watch: NonceWatch::default(),
            faults,
            sessions: 0,
            over: None,
        }
    }

    /// The next epoch, whose first message is for this one's keys; with so many faults.
    fn next_epoch(&mut self, faults: u32) {
        let before = self.plan.reviewed.group.members.clone();
        let epoch = self.plan.reviewed.epoch + 1;
        self.plan = plan(epoch, &mut self.signers, Some(&before), &mut self.rng);
        self.before = Some(before);
        self.collector = Collector::new(self.plan.clone(), &[], self.rng.next_u64());
        self.chunks.clear();
        self.all = None;
        self.over = None;
        self.faults = faults;
    }

    /// True now and then, as long as faults are left.
    fn fault(&mut self, one_in: u32) -> bool {
        let happens = self.faults > 0 && self.rng.gen_ratio(1, one_in);
        self.faults -= u32::from(happens);
        happens
    }

    fn restart_collector(&mut self) {
        let stored: Vec<_> = match &self.all {
            Some(all) => self.plan.reviewed.cut(all),
            None => {
                let in_order = (0..).map_while(|chunk| self.chunks.get(&chunk).cloned());
                in_order.collect()
            }
        };
        self.collector = Collector::new(self.plan.clone(), &stored, self.rng.next_u64());
        self.drive(Event::Start);
    }

    /// An event for the collector, which may be killed between any two effects.
    fn drive(&mut self, event: Event) {
        let effects = match self.collector.step(event) {
            Ok(effects) => effects,
            Err(error) => return self.over = Some(Err(error)),
        };
        for effect in effects {
            if self.fault(60) {
                return self.restart_collector();
            }
            match effect {
                Effect::Send { to, id, request } => self.send(Packet::Request { to, id, request }),
                Effect::SaveChunk { chunk, signatures } => drop(self.chunks.insert(chunk, signatures)),
                Effect::SaveAll { signatures } => {
                    if let Some(before) = &self.all {
                        assert_eq!(before, &signatures, "a whole set is never replaced by another");
                    }
                    self.all = Some(signatures);
                }
                Effect::Progress { .. } => {}
                Effect::Again { .. } => self.sessions += 1,
                Effect::Done => self.over = Some(Ok(())),
            }
        }
    }

    fn send(&mut self, packet: Packet) {
        if self.fault(12) {
            self.network.push(packet.clone());
        }
        if self.fault(10) {
            let (from, id) = match packet {
                Packet::Request { to, id, .. } => (to, id),
                Packet::Reply { from, id, .. } | Packet::Lost { from, id } => (from, id),
            };
            return self.network.push(Packet::Lost { from, id });
        }
        self.network.push(packet);
    }

    /// A packet arrives; any of them while there are faults, else the oldest.
    fn deliver(&mut self) {
        let at = if self.fault(3) { self.rng.gen_range(0..self.network.len()) } else { 0 };
        match self.network.remove(at) {
            Packet::Lost { from, id } => self.drive(Event::Lost { from, id }),
            Packet::Reply { from, id, reply } => self.drive(Event::Reply { from, id, reply }),
            Packet::Request { to, id, request } => self.ask(to, id, &request),
        }
    }

    fn ask(&mut self, to: PartyId, id: u64, request: &Request) {
        let killed_after = self.fault(15).then(|| self.rng.gen_range(0..4));
        let signer = self.signers.get_mut(&to).unwrap();
        let reply = signer.ask(request, self.rng.gen(), killed_after);
        if let (Request::Sign { chunk, nonces, .. }, Some(Reply::Partials(_))) = (request, &reply) {
            self.watch.saw(to, &self.plan.reviewed, *chunk, nonces);
        }
        match reply {
            Some(reply) => {
                let reply = self.lie(to, request, reply);
                self.send(Packet::Reply { from: to, id, reply });
            }
            None => self.network.push(Packet::Lost { from: to, id }),
        }
    }

    /// The answer as the liar gives it.
    fn lie(&mut self, from: PartyId, request: &Request, reply: Reply) -> Reply {
        let Some((_, lie)) = self.liar.filter(|(liar, _)| *liar == from) else { return reply };
        let identity = &self.signers[&from].identity;
        let changed = |statement: &Statement, change: &dyn Fn(&mut Vec<u8>)| {
            let mut body = statement.body.clone();
            change(&mut body);
            Statement::new(identity, statement.kind, statement.scope, statement.chunk, body)
        };
        match (lie, reply) {
            (Lie::WrongPartial, Reply::Partials(said)) => {
                Reply::Partials(changed(&said, &|body| body[31] ^= 1))
            }
            (Lie::OtherNonces, Reply::Nonces(said)) => {
                Reply::Nonces(changed(&said, &|body| *body = other_nonces(body)))
            }
            (Lie::GarbageNonces, Reply::Opened(said)) => {
                let first = said.chunk;
                Reply::Opened(changed(&said, &|body| {
                    for (chunk, hash) in (first..).zip(body[32..].chunks_exact_mut(32)) {
                        let count = self.plan.reviewed.chunk(chunk).unwrap().len();
                        hash.copy_from_slice(&nonces_hash(&vec![9; 66 * count]));
                    }
                }))
            }
            // It goes on with the session of a commit that its own machine does not know.
            (Lie::GarbageNonces, reply) => match request {
                Request::Commits { commits } => {
                    let ordered = self.plan.reviewed.group.in_order(commits, |_| true).unwrap();
                    Reply::Committed { session: session_id(&ordered) }
                }
                Request::Reveal { session, chunk } => {
                    let count = self.plan.reviewed.chunk(*chunk).unwrap().len();
                    let body = vec![9; 66 * count];
                    Reply::Nonces(Statement::new(identity, Kind::Nonces, *session, *chunk, body))
                }
                _ => reply,
            },
            (Lie::BadStatement, Reply::Opened(mut said)) => {
                said.signature[5] ^= 1;
                Reply::Opened(said)
            }
            (Lie::OtherGraph, Reply::Accepted { requests, .. }) => {
                Reply::Accepted { graph: [1; 32], requests }
            }
            (Lie::FalseFinish, Reply::Status { .. }) => {
                Reply::Status { graph: Some(self.plan.graph), finished: true }
            }
            (Lie::FalseFinish, Reply::Refused { .. }) if matches!(request, Request::Fetch { .. }) => {
                Reply::Signatures { graph: self.plan.graph, signatures: vec![[1; 64]; MESSAGES] }
            }
            (Lie::OtherAnswer, Reply::Committed { .. }) => Reply::Finished { graph: self.plan.graph },
            (_, reply) => reply,
        }
    }

    fn run(&mut self) -> Result<(), CollectError> {
        self.drive(Event::Start);
        for _ in 0..STEPS_MAX {
            match &self.over {
                Some(result) if self.network.is_empty() => return result.clone(),
                _ if self.network.is_empty() => panic!("nothing happens any more"),
                _ => self.deliver(),
            }
        }
        panic!("no end after {STEPS_MAX} steps");
    }

    /// Who has which signatures.
    fn finished(&self) -> Vec<(PartyId, &Vec<[u8; 64]>)> {
        let epoch = self.plan.reviewed.epoch;
        let has = self.signers.iter();
        has.filter_map(|(id, signer)| Some((*id, signer.disk.signatures.get(&epoch)?))).collect()
    }

    /// Each signature holds under the key that it is for: checked one by one, not as the product does.
    fn valid(&self, signatures: &[[u8; 64]]) -> bool {
        let aggregate = |members: &Members| Attesters::new(members.values().copied()).unwrap().key();
        let reviewed = &self.plan.reviewed;
        let own = aggregate(&reviewed.group.members);
        let first = self.before.as_ref().map_or(own, aggregate);
        let holds = |(index, (message, signature)): (usize, (&[u8; 32], &[u8; 64]))| {
            let key = if index == 0 { first } else { own };
            let signature = Signature::from_slice(signature).unwrap();
            let message = Message::from_digest(*message);
            Secp256k1::new().verify_schnorr(&signature, &message, &key).is_ok()
        };
        signatures.len() == reviewed.messages.len()
            && reviewed.messages.iter().zip(signatures).enumerate().all(holds)
    }

    /// Everyone has the same right signatures, and the keys that are still needed.
    fn check_end(&self) {
        let all = self.all.clone().unwrap();
        assert!(self.valid(&all));
        let finished = self.finished();
        assert_eq!(finished.len(), 3);
        let epoch = self.plan.reviewed.epoch;
        for (signer, signatures) in finished {
            assert_eq!(signatures, &all);
            let disk = &self.signers[&signer].disk;
            assert!(disk.stored.records[&epoch].finished);
            let keys: Vec<_> = disk.stored.keys.keys().copied().collect();
            assert_eq!(keys, [epoch], "the key of the epoch before is deleted, this one's opens the next");
            let recovery: Vec<_> = disk.stored.recovery.keys().copied().collect();
            assert_eq!(recovery, (0..=epoch).collect::<Vec<_>>());
        }
    }

    /// Nobody gives anything for the epoch any more.
    fn check_silence(&mut self) {
        let (graph, epoch) = (self.plan.graph, self.plan.reviewed.epoch);
        for signer in self.signers.values_mut() {
            let open = Request::Open { graph, first_chunk: 0 };
            let key = Request::Key { trunk_id: TRUNK, epoch };
            for request in [open, key, Request::Propose { proposal: self.plan.proposal.clone() }] {
                let refused = matches!(signer.ask(&request, [3; 32], None), Some(Reply::Refused { .. }));
                assert!(refused, "{request:?}");
            }
        }
    }
}

/// A plan for an epoch of these signers.
fn plan(
    epoch: u32,
    signers: &mut BTreeMap<PartyId, Signer>,
    before: Option<&Members>,
    rng: &mut StdRng,
) -> Plan {
    let members = signers.iter_mut().map(|(id, signer)| (*id, signer.key(epoch, rng.gen()))).collect();
    let bytes = proposal(epoch, 1, &members, before);
    let reviewed = Tiny.review(&bytes, &BTreeMap::new()).unwrap();
    Plan { trunk_id: TRUNK, graph: graph_id(&bytes), proposal: bytes, reviewed }
}

/// Two valid nonces, in the other order or repeated: valid points, not those committed to.
fn other_nonces(nonces: &[u8]) -> Vec<u8> {
    let mut other = nonces.to_vec();
    let length = other.len();
    // A nonce is two points: swapped, they are another nonce.
    for nonce in other[..length].chunks_exact_mut(66) {
        nonce.rotate_left(33);
    }
    other
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn on_a_bad_network_and_with_kills_at_any_step_all_end_with_the_same_signatures(seed: u64, faults in 0u32..45) {
        let mut world = World::new(seed, faults, None);
        for epoch in 1..=3 {
            world.run().unwrap();
            world.check_end();
            prop_assert!(world.watch.uses() >= epoch * 3 * MESSAGES);
            world.check_silence();
            world.next_epoch(faults);
        }
    }

    #[test]
    fn a_liar_is_named_and_no_honest_party_gets_signatures(seed: u64, faults in 0u32..30, lie in 0..LIES.len()) {
        let mut world = World::new(seed, faults, Some(LIES[lie]));
        let liar = world.liar.unwrap().0;
        match world.run().unwrap_err() {
            CollectError::Blame { signer, .. } => prop_assert_eq!(signer, liar),
            other => prop_assert!(false, "{:?}", other),
        }
        prop_assert!(world.all.is_none());
        prop_assert!(world.finished().is_empty(), "nobody has signatures");
        for (signer, honest) in &world.signers {
            if *signer != liar {
                prop_assert!(honest.disk.stored.keys.contains_key(&0), "and nobody has deleted its key");
            }
        }
    }

    #[test]
    fn a_liar_in_a_later_epoch_is_named_and_the_key_before_is_kept(seed: u64, faults in 0u32..30, lie in 0..LIES.len()) {
        let mut world = World::new(seed, 0, None);
        world.run().unwrap();
        world.next_epoch(faults);
        let liar = *world.signers.keys().nth(seed as usize % 3).unwrap();
        world.liar = Some((liar, LIES[lie]));
        match world.run().unwrap_err() {
            CollectError::Blame { signer, .. } => prop_assert_eq!(signer, liar),
            other => prop_assert!(false, "{:?}", other),
        }
        prop_assert!(world.all.is_none() && world.finished().is_empty());
        for (_, honest) in world.signers.iter().filter(|(signer, _)| **signer != liar) {
            prop_assert!(honest.disk.stored.keys.contains_key(&0), "the opening is not signed yet");
        }
    }

    #[test]
    fn an_operator_in_league_with_two_signers_gets_no_second_use_of_a_nonce(seed: u64) {
        let _ = byzantine(seed);
    }
}

/// One honest signer; everything else is the adversary's, who has two runs of each other signer to mix. How often it signed.
fn byzantine(seed: u64) -> u32 {
    let mut rng = StdRng::seed_from_u64(seed);
    let honest = identity(11);
    let everyone: Vec<_> = (11..14).map(|byte| identity(byte).id()).collect();
    let mut target = Signer::new(honest.clone(), &everyone);
    let mut members = BTreeMap::from([(honest.id(), target.key(0, rng.gen()))]);
    let mut league: Vec<Signer> = Vec::new();
    for byte in [12, 13] {
        let secret: [u8; 32] = rng.gen();
        for _ in 0..2 {
            let mut signer = Signer::new(identity(byte), &everyone);
            members.insert(signer.identity.id(), signer.key(0, secret));
            league.push(signer);
        }
    }
    let proposals: Vec<_> = (0..3).map(|salt| proposal(0, salt, &members, None)).collect();
    let mut watch = NonceWatch::default();
    let [first, _, third, _] = &mut league[..] else { panic!("two runs of two signers") };
    let (session, mut said) = until_nonces(&mut [&mut target, first, third], &proposals[0], &mut rng);
    let mut sessions = vec![session];
    let mut partials = 0;
    for _ in 0..150 {
        let request = adversarial(&mut rng, &proposals, &said, &sessions);
        let killed_after = rng.gen_ratio(1, 40).then(|| rng.gen_range(0..3));
        let at = rng.gen_range(0..6);
        let signer = if at < 2 { &mut target } else { &mut league[at - 2] };
        let id = signer.identity.id();
        let Some(reply) = signer.ask(&request, rng.gen(), killed_after) else { continue };
        match reply {
            Reply::Opened(statement) | Reply::Nonces(statement) => said.push(statement),
            Reply::Committed { session } => sessions.push(session),
            Reply::Partials(_) if id == honest.id() => {
                let Request::Sign { chunk, nonces, .. } = &request else { panic!("{request:?}") };
                // Signed is only what belongs to the one graph that the epoch is locked to.
                let locked = target.disk.stored.records[&0].graph;
                let of_it = proposals.iter().find(|bytes| graph_id(bytes) == locked).unwrap();
                let reviewed = Tiny.review(of_it, &BTreeMap::new()).unwrap();
                watch.saw(id, &reviewed, *chunk, nonces);
                assert!(nonces.iter().all(|nonce| nonce.kind == Kind::Nonces));
                partials += 1;
            }
            _ => {}
        }
    }
    assert!(target.disk.stored.records.len() <= 1, "one graph for the epoch");
    partials
}

/// A request made of whatever was said before, more often than not of what fits.
fn adversarial(
    rng: &mut StdRng,
    proposals: &[Vec<u8>],
    said: &[Statement],
    sessions: &[[u8; 32]],
) -> Request {
    let proposal = if rng.gen_ratio(4, 5) { &proposals[0] } else { &proposals[rng.gen_range(0..3)] };
    // Late statements are likelier: early ones are of sessions long gone.
    let recent = |rng: &mut StdRng, count: usize| count.saturating_sub(1 + rng.gen_range(0..6));
    let mix = |rng: &mut StdRng, kind: Kind, scope: Option<&[u8; 32]>| {
        let mut chosen = Vec::new();
        for byte in 11..14 {
            let sender = identity(byte).id();
            let fits = |one: &&Statement| {
                one.kind == kind && one.sender == sender && scope.is_none_or(|scope| one.scope == *scope)
            };
            let of_sender: Vec<_> = said.iter().filter(fits).collect();
            if !of_sender.is_empty() {
                let back = rng.gen_range(0..of_sender.len().min(2));
                chosen.push(of_sender[of_sender.len() - 1 - back].clone());
            }
        }
        chosen
    };
    let session = |rng: &mut StdRng| {
        if sessions.is_empty() {
            [0; 32]
        } else {
            sessions[recent(rng, sessions.len())]
        }
    };
    match rng.gen_range(0..12) {
        0 | 1 => Request::Propose { proposal: proposal.clone() },
        2 => Request::Open { graph: graph_id(proposal), first_chunk: 0 },
        3 | 4 => Request::Commits { commits: mix(rng, Kind::Commit, None) },
        5..=7 => Request::Reveal { session: session(rng), chunk: rng.gen_range(0..2) },
        8 => Request::Final { epoch: 0, graph: graph_id(proposal), signatures: vec![[1; 64]; MESSAGES] },
        _ => {
            let session = session(rng);
            let mut nonces = mix(rng, Kind::Nonces, Some(&session));
            let chunk = nonces.first().map_or(0, |nonce| nonce.chunk);
            if rng.gen_ratio(1, 4) {
                // Those in league sign whatever they are asked to.
                for (nonce, byte) in nonces.iter_mut().skip(1).zip(12..) {
                    let body = other_nonces(&nonce.body);
                    *nonce = Statement::new(&identity(byte), Kind::Nonces, session, chunk, body);
                }
            }
            Request::Sign { session, chunk, nonces }
        }
    }
}

#[test]
fn the_adversary_of_the_property_does_get_signatures_now_and_then() {
    // Else the property above would hold for want of any.
    let signed: u32 = (0..40).map(byzantine).sum();
    assert!(signed >= 10, "{signed} chunks were signed");
}

/// A session of these signers, up to the nonces of the first chunk.
fn until_nonces(signers: &mut [&mut Signer], bytes: &[u8], rng: &mut StdRng) -> ([u8; 32], Vec<Statement>) {
    let mut ask = |signer: &mut Signer, request: &Request| signer.ask(request, rng.gen(), None).unwrap();
    let mut said = Vec::new();
    for signer in signers.iter_mut() {
        ask(signer, &Request::Propose { proposal: bytes.to_vec() });
        match ask(signer, &Request::Open { graph: graph_id(bytes), first_chunk: 0 }) {
            Reply::Opened(commit) => said.push(commit),
            other => panic!("{other:?}"),
        }
    }
    let commits = said.clone();
    let mut agreed = [0; 32];
    for signer in signers.iter_mut() {
        match ask(signer, &Request::Commits { commits: commits.clone() }) {
            Reply::Committed { session } => agreed = session,
            other => panic!("{other:?}"),
        }
    }
    for signer in signers.iter_mut() {
        match ask(signer, &Request::Reveal { session: agreed, chunk: 0 }) {
            Reply::Nonces(statement) => said.push(statement),
            other => panic!("{other:?}"),
        }
    }
    (agreed, said)
}

#[test]
fn a_request_asked_again_gets_the_same_answer_and_a_changed_one_gets_none() {
    let mut rng = StdRng::seed_from_u64(1);
    let everyone: Vec<_> = (11..14).map(|byte| identity(byte).id()).collect();
    let mut signers: Vec<_> = (11..14).map(|byte| Signer::new(identity(byte), &everyone)).collect();
    let members = signers.iter_mut().map(|signer| (signer.identity.id(), signer.key(0, rng.gen()))).collect();
    let bytes = proposal(0, 1, &members, None);
    let reviewed = Tiny.review(&bytes, &BTreeMap::new()).unwrap();
    let mut watch = NonceWatch::default();
    let mut each: Vec<&mut Signer> = signers.iter_mut().collect();
    let (session, said) = until_nonces(&mut each, &bytes, &mut rng);
    let nonces: Vec<_> = said.into_iter().filter(|one| one.kind == Kind::Nonces).collect();
    let mut ask = |signer: &mut Signer, request: &Request, kill| signer.ask(request, rng.gen(), kill);
    let sign = Request::Sign { session, chunk: 0, nonces: nonces.clone() };
    let first = ask(&mut signers[0], &sign, None).unwrap();
    assert!(matches!(first, Reply::Partials(_)));
    watch.saw(signers[0].identity.id(), &reviewed, 0, &nonces);
    assert_eq!(ask(&mut signers[0], &sign, None).unwrap(), first, "asked again, it says the same");

    // Another signer's nonces changed under its own name: not what it committed to.
    let mut changed = nonces.clone();
    let body = other_nonces(&changed[1].body);
    changed[1] = Statement::new(&signers[1].identity, Kind::Nonces, session, 0, body);
    let refused = ask(&mut signers[0], &Request::Sign { session, chunk: 0, nonces: changed.clone() }, None);
    assert!(matches!(refused, Some(Reply::Refused { again: false, .. })), "{refused:?}");
    let refused = ask(&mut signers[2], &Request::Sign { session, chunk: 0, nonces: changed }, None);
    assert!(matches!(refused, Some(Reply::Refused { again: false, .. })), "{refused:?}");

    // Killed, it knows the session no more, and the same request gets nothing.
    let gone = ask(&mut signers[0], &sign, Some(9));
    assert_eq!(gone.unwrap(), first);
    let refused = ask(&mut signers[0], &sign, None);
    assert!(matches!(refused, Some(Reply::Refused { again: true, .. })), "{refused:?}");
}

#[test]
fn an_epoch_is_locked_to_its_first_graph_also_after_a_kill() {
    let everyone = [identity(11).id()];
    let mut signer = Signer::new(identity(11), &everyone);
    let members = BTreeMap::from([(identity(11).id(), signer.key(0, [5; 32]))]);
    let propose = |salt| Request::Propose { proposal: proposal(0, salt, &members, None) };
    // Killed before the record was on disk, it may still choose.
    assert_eq!(signer.ask(&propose(9), [1; 32], Some(0)), None);
    assert!(matches!(signer.ask(&propose(1), [1; 32], None), Some(Reply::Accepted { requests: 5, .. })));
    for kill in [false, true] {
        if kill {
            signer.kill();
        }
        match signer.ask(&propose(2), [1; 32], None) {
            Some(Reply::Refused { again: false, reason }) => {
                assert!(reason.contains("another graph"), "{reason}")
            }
            other => panic!("{other:?}"),
        }
        assert!(matches!(signer.ask(&propose(1), [1; 32], None), Some(Reply::Accepted { .. })));
    }
}

#[test]
fn the_next_epoch_waits_until_this_one_has_all_its_signatures_and_uses_this_ones_key() {
    let everyone = [identity(11).id()];
    let mut signer = Signer::new(identity(11), &everyone);
    let members = |epoch, signer: &mut Signer| {
        BTreeMap::from([(everyone[0], signer.key(epoch, [epoch as u8 + 5; 32]))])
    };
    let (zero, one) = (members(0, &mut signer), members(1, &mut signer));
    assert_ne!(zero, one);
    let first = proposal(0, 1, &zero, None);
    let refuse = |signer: &mut Signer, proposal: &[u8], part: &str| match signer.ask(
        &Request::Propose { proposal: proposal.to_vec() },
        [1; 32],
        None,
    ) {
        Some(Reply::Refused { again: false, reason }) => assert!(reason.contains(part), "{reason}"),
        other => panic!("{other:?}"),
    };
    let second = proposal(1, 1, &one, Some(&zero));
    refuse(&mut signer, &second, "epoch 0 has to be finished first");
    let accepted = signer.ask(&Request::Propose { proposal: first }, [1; 32], None);
    assert!(matches!(accepted, Some(Reply::Accepted { .. })));
    refuse(&mut signer, &second, "epoch 0 has to be finished first");
    // As if all had been signed.
    signer.disk.stored.records.get_mut(&0).unwrap().finished = true;
    signer.kill();
    refuse(&mut signer, &proposal(1, 1, &one, Some(&one)), "another key for this signer");
    let accepted = signer.ask(&Request::Propose { proposal: second }, [1; 32], None);
    assert!(matches!(accepted, Some(Reply::Accepted { requests: 5, .. })));
}
