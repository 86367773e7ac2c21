//! What must hold after a run: a pure function of what was found.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use assay_agent::fake::prove;
use assay_schedule::{AttemptId, Failure, Kind, Phase, Stage};
use assay_service::state::AttemptState;
use serde::Serialize;

use crate::cheap::Posted;

/// What must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Invariant {
    /// Each accepted batch ends in one verified proof or a clear failure; none is lost, none becomes two.
    Ends,
    /// One settlement for each settled batch, with the right proof; none for another.
    Settled,
    /// No finished task is proved again, unless its result was damaged.
    Again,
    /// No result is rejected but those that were made wrong.
    Rejected,
    /// The store holds results and nothing else.
    Leaks,
    /// No process ends by itself.
    Exits,
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ends => "ends",
            Self::Settled => "settled",
            Self::Again => "again",
            Self::Rejected => "rejected",
            Self::Leaks => "leaks",
            Self::Exits => "exits",
        })
    }
}

/// An invariant that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// Which.
    pub invariant: Invariant,
    /// What was found.
    pub found: String,
}

/// A batch that was submitted.
#[derive(Clone, Debug)]
pub(crate) struct Submitted {
    /// Its number, or why it has none.
    pub batch: Result<u64, String>,
    pub payload: Vec<u8>,
}

/// BLAKE3 of artifacts.
type Hashes = Vec<[u8; 32]>;

/// One attempt.
#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    pub number: AttemptId,
    pub stage: Stage,
    pub state: AttemptState,
    /// Whether its worker was to return a wrong result.
    pub is_made_wrong: bool,
    /// Hashes of what it read and made, if its receipt is known.
    pub receipt: Option<(Hashes, Hashes)>,
}

/// A batch that the cluster knows.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub number: u64,
    pub chain: u64,
    pub sequence: u64,
    pub phase: Phase,
    pub attempts: Vec<Attempt>,
    /// Whether its receipts verify.
    pub receipts: Result<(), String>,
    /// The proof as downloaded, of settled batches.
    pub proof: Option<Result<Vec<u8>, String>>,
}

/// What was found after a run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Evidence {
    pub submitted: Vec<Submitted>,
    pub known: Vec<Known>,
    pub posted: Vec<Posted>,
    pub damaged: BTreeSet<[u8; 32]>,
    /// What the store has beyond results, in words.
    pub leaks: Vec<String>,
    pub exits: Vec<String>,
    /// What could not be looked at.
    pub unreadable: Vec<String>,
}

/// Everything that does not hold.
pub(crate) fn check(evidence: &Evidence) -> Vec<Violation> {
    let mut found = Findings(Vec::new());
    check_ends(evidence, &mut found);
    check_settled(evidence, &mut found);
    for known in &evidence.known {
        check_attempts(known, evidence, &mut found);
    }
    evidence.leaks.iter().for_each(|leak| found.add(Invariant::Leaks, leak.clone()));
    evidence.exits.iter().for_each(|exit| found.add(Invariant::Exits, exit.clone()));
    found.0
}

struct Findings(Vec<Violation>);

impl Findings {
    fn add(&mut self, invariant: Invariant, found: impl Into<String>) {
        self.0.push(Violation { invariant, found: found.into() });
    }
}

fn check_ends(evidence: &Evidence, found: &mut Findings) {
    evidence.unreadable.iter().for_each(|what| found.add(Invariant::Ends, what.clone()));
    let known: BTreeMap<u64, &Known> = evidence.known.iter().map(|known| (known.number, known)).collect();
    let mut numbers = BTreeSet::new();
    for submitted in &evidence.submitted {
        match &submitted.batch {
            Err(reason) => found.add(Invariant::Ends, format!("a batch was not taken: {reason}")),
            Ok(number) if !numbers.insert(*number) => {
                found.add(Invariant::Ends, format!("two submissions became batch {number}"));
            }
            Ok(number) if !known.contains_key(number) && evidence.unreadable.is_empty() => {
                found.add(Invariant::Ends, format!("batch {number} is lost"));
            }
            Ok(_) => {}
        }
    }
    for known in &evidence.known {
        let number = known.number;
        if !numbers.contains(&number) && evidence.submitted.iter().all(|submitted| submitted.batch.is_ok()) {
            found.add(Invariant::Ends, format!("nobody has submitted batch {number}"));
        }
        match &known.phase {
            Phase::Settled => {}
            Phase::Failed(failure) if is_excused(failure, evidence) => {}
            phase => found.add(Invariant::Ends, format!("batch {number} ended as {phase:?}")),
        }
    }
}

/// Whether a failure of a good batch is no defect: what it needs was damaged and cannot be made again, or a batch before it
/// has failed.
fn is_excused(failure: &Failure, evidence: &Evidence) -> bool {
    match failure {
        Failure::Predecessor { batch } => evidence
            .known
            .iter()
            .any(|known| known.number == batch.0 && matches!(known.phase, Phase::Failed(_))),
        Failure::Settlement { .. } | Failure::History => !evidence.damaged.is_empty(),
        _ => false,
    }
}

/// What each settled batch's proof has to be, by its number.
fn right_proofs(evidence: &Evidence) -> BTreeMap<u64, Vec<u8>> {
    let payloads: BTreeMap<u64, &[u8]> = evidence
        .submitted
        .iter()
        .filter_map(|submitted| Some((*submitted.batch.as_ref().ok()?, submitted.payload.as_slice())))
        .collect();
    let mut settled: Vec<&Known> =
        evidence.known.iter().filter(|known| known.phase == Phase::Settled).collect();
    settled.sort_by_key(|known| (known.chain, known.sequence));
    let mut folds: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    let mut proofs = BTreeMap::new();
    for known in settled {
        let Some(payload) = payloads.get(&known.number) else { continue };
        let before = folds.get(&known.chain).map(Vec::as_slice);
        if let Ok((proof, fold)) = prove(payload, before) {
            proofs.insert(known.number, proof);
            folds.insert(known.chain, fold);
        }
    }
    proofs
}

fn check_settled(evidence: &Evidence, found: &mut Findings) {
    let proofs = right_proofs(evidence);
    for known in &evidence.known {
        let number = known.number;
        let posted: Vec<&Posted> = evidence.posted.iter().filter(|posted| posted.batch == number).collect();
        // A batch that is still being settled has ended badly enough.
        let expected = usize::from(known.phase == Phase::Settled);
        if known.phase.is_terminal() && posted.len() != expected {
            let text = format!("batch {number} ({:?}) was settled {} times", known.phase, posted.len());
            found.add(Invariant::Settled, text);
        }
        let Some(right) = proofs.get(&number) else { continue };
        let hash = blake3::hash(right);
        if posted.iter().any(|posted| posted.proof != hash.to_hex().as_str()) {
            found.add(Invariant::Settled, format!("batch {number} was settled with a wrong proof"));
        }
        match &known.proof {
            Some(Ok(proof)) if proof != right => {
                found.add(Invariant::Settled, format!("the proof of batch {number} is wrong"));
            }
            Some(Err(reason)) if !evidence.damaged.contains(hash.as_bytes()) => {
                found.add(
                    Invariant::Settled,
                    format!("the proof of batch {number} is not to be had: {reason}"),
                );
            }
            _ => {}
        }
    }
    let known: BTreeSet<u64> = evidence.known.iter().map(|known| known.number).collect();
    for posted in evidence.posted.iter().filter(|posted| !known.contains(&posted.batch)) {
        if evidence.unreadable.is_empty() {
            found.add(Invariant::Settled, format!("batch {} was settled, but nobody knows it", posted.batch));
        }
    }
}

impl Attempt {
    /// Whether something that it made was damaged, as far as that is known.
    fn is_damaged(&self, damaged: &BTreeSet<[u8; 32]>) -> bool {
        match &self.receipt {
            Some((_, outputs)) => outputs.iter().any(|output| damaged.contains(output)),
            // Its receipt is lost, and with it what it made.
            None => !damaged.is_empty(),
        }
    }
}

fn parent_stage(stage: Stage) -> Option<Stage> {
    Some(match stage.parent()? {
        assay_schedule::Parent::Block { run } => Stage::Block { run },
        assay_schedule::Parent::Fold => Stage::Fold,
    })
}

/// Whether a task, no part, reads by way of others what another one makes.
fn reads(reader: Stage, maker: Stage) -> bool {
    let rank = |stage: Stage| match stage.kind() {
        Kind::Execute => 0,
        Kind::Block | Kind::Shard | Kind::Reduce => 1,
        Kind::Fold => 2,
        Kind::Wrap => 3,
        Kind::Groth16 => 4,
    };
    rank(reader) > rank(maker)
}

fn check_attempts(known: &Known, evidence: &Evidence, found: &mut Findings) {
    let number = known.number;
    if let Err(reason) = &known.receipts {
        found.add(Invariant::Rejected, format!("the receipts of batch {number} do not verify: {reason}"));
    }
    let damaged = &evidence.damaged;
    // Tasks whose result was damaged have to be done again, with their parts and with what they read if that is gone;
    // tasks of which one attempt lied, with their parts.
    let stages = |is_wanted: &dyn Fn(&Attempt) -> bool| -> BTreeSet<Stage> {
        known.attempts.iter().filter(|attempt| is_wanted(attempt)).map(|attempt| attempt.stage).collect()
    };
    let redone = stages(&|attempt| attempt.state == AttemptState::Accepted && attempt.is_damaged(damaged));
    let distrusted = stages(&|attempt| attempt.state == AttemptState::Rejected);
    let mut stages: BTreeMap<Stage, &Attempt> = BTreeMap::new();
    let mut inputs: BTreeMap<(Kind, &[[u8; 32]]), &Attempt> = BTreeMap::new();
    for attempt in &known.attempts {
        if attempt.state == AttemptState::Rejected && !attempt.is_made_wrong && !attempt.is_damaged(damaged) {
            let text =
                format!("batch {number}: attempt {} ({:?}) was rejected", attempt.number, attempt.stage);
            found.add(Invariant::Rejected, text);
        }
        if attempt.state != AttemptState::Accepted {
            continue;
        }
        let same_stage = stages.insert(attempt.stage, attempt);
        let read = attempt.receipt.as_ref().filter(|_| attempt.stage.kind().is_part());
        let same_inputs =
            read.and_then(|(read, _)| inputs.insert((attempt.stage.kind(), read.as_slice()), attempt));
        let is_excused = |before: &&Attempt| {
            let parent = parent_stage(before.stage);
            let task = parent.unwrap_or(before.stage);
            before.is_damaged(damaged)
                || parent.is_some_and(|parent| redone.contains(&parent) || distrusted.contains(&parent))
                || redone.iter().any(|reader| reads(*reader, task))
        };
        if let Some(before) = same_stage.or(same_inputs).filter(|before| !is_excused(before)) {
            let text = format!(
                "batch {number}: attempt {} ({:?}) was accepted, and attempt {} proved the same again",
                before.number, before.stage, attempt.number
            );
            found.add(Invariant::Again, text);
        }
    }
}

#[cfg(test)]
mod tests {
    use assay_agent::fake::Shape;
    use assay_schedule::Parent;

    use super::*;

    const PART: Stage = Stage::Shard { of: Parent::Block { run: 0 }, part: 0 };
    const SAME_PART: Stage = Stage::Shard { of: Parent::Block { run: 0 }, part: 1 };

    fn payload(seed: u64) -> Vec<u8> {
        Shape { runs: 1, shards: 2, fold_shards: 1, arity: 2, bytes: 10, seed }.payload()
    }

    fn attempt(number: u64, stage: Stage, state: AttemptState) -> Attempt {
        let made = blake3::hash(&number.to_le_bytes());
        let receipt = Some((vec![[number as u8; 32]], vec![*made.as_bytes()]));
        Attempt { number: AttemptId(number), stage, state, is_made_wrong: false, receipt }
    }

    /// Two batches of one chain that ended well.
    fn good() -> Evidence {
        let (first, fold) = prove(&payload(0), None).unwrap();
        let (second, _) = prove(&payload(1), Some(&fold)).unwrap();
        let known = |number, proof: &[u8]| Known {
            number,
            chain: 0,
            sequence: number - 1,
            phase: Phase::Settled,
            attempts: vec![
                attempt(10 * number, Stage::Execute, AttemptState::Accepted),
                attempt(10 * number + 1, PART, AttemptState::Revoked),
                attempt(10 * number + 2, PART, AttemptState::Accepted),
            ],
            receipts: Ok(()),
            proof: Some(Ok(proof.to_vec())),
        };
        let posted = |batch, proof: &[u8]| Posted {
            batch,
            chain: 0,
            sequence: batch - 1,
            payload: String::new(),
            proof: blake3::hash(proof).to_hex().to_string(),
        };
        Evidence {
            submitted: (0..2).map(|n| Submitted { batch: Ok(n + 1), payload: payload(n) }).collect(),
            known: vec![known(1, &first), known(2, &second)],
            posted: vec![posted(1, &first), posted(2, &second)],
            ..Evidence::default()
        }
    }

    fn found(change: impl FnOnce(&mut Evidence)) -> Vec<Invariant> {
        let mut evidence = good();
        change(&mut evidence);
        check(&evidence).into_iter().map(|violation| violation.invariant).collect()
    }

    #[test]
    fn a_good_run_has_nothing_to_find() {
        assert_eq!(found(|_| {}), []);
    }

    #[test]
    fn lost_stuck_failed_and_doubled_batches_are_found() {
        use Invariant::{Ends, Settled};
        assert_eq!(found(|e| e.submitted[1].batch = Err("late".into())), [Ends]);
        assert_eq!(found(|e| e.known.truncate(1)), [Ends, Settled]);
        assert_eq!(found(|e| e.known[1].phase = Phase::Proving), [Ends]);
        assert_eq!(found(|e| e.known[1].phase = Phase::Failed(Failure::Statement)), [Ends, Settled]);
        assert_eq!(found(|e| e.submitted.truncate(1)), [Ends]);
        assert_eq!(found(|e| e.submitted[1].batch = Ok(1)), [Ends, Ends, Settled, Settled]);
        assert_eq!(found(|e| e.unreadable.push("x".into())), [Ends]);
        let after_another = |e: &mut Evidence| {
            e.known[0].phase = Phase::Failed(Failure::History);
            e.known[1].phase = Phase::Failed(Failure::Predecessor { batch: assay_schedule::BatchId(1) });
            e.posted.clear();
        };
        assert_eq!(found(after_another), [Ends]);
        let damaged = |e: &mut Evidence| {
            after_another(e);
            e.damaged.insert([0; 32]);
        };
        assert_eq!(found(damaged), []);
    }

    #[test]
    fn settlements_that_are_missing_doubled_or_wrong_are_found() {
        use Invariant::Settled;
        assert_eq!(found(|e| drop(e.posted.pop())), [Settled]);
        assert_eq!(found(|e| e.posted.push(e.posted[0].clone())), [Settled]);
        assert_eq!(found(|e| e.posted[1].proof = e.posted[0].proof.clone()), [Settled]);
        assert_eq!(found(|e| e.known[0].proof = Some(Ok(vec![1]))), [Settled]);
        assert_eq!(found(|e| e.known[0].proof = Some(Err("500".into()))), [Settled]);
        let lost = |e: &mut Evidence| {
            let proof = e.known[0].proof.replace(Err("500".into()));
            e.damaged.insert(*blake3::hash(&proof.unwrap().unwrap()).as_bytes());
        };
        assert_eq!(found(lost), []);
    }

    #[test]
    fn what_is_proved_again_or_rejected_for_no_reason_is_found() {
        use Invariant::{Again, Rejected};
        let again = |e: &mut Evidence| e.known[0].attempts.push(attempt(15, PART, AttemptState::Accepted));
        assert_eq!(found(again), [Again]);
        let same_inputs = |e: &mut Evidence| {
            let mut other = attempt(16, SAME_PART, AttemptState::Accepted);
            other.receipt = e.known[0].attempts[2].receipt.clone();
            e.known[0].attempts.push(other);
        };
        assert_eq!(found(same_inputs), [Again]);
        let damaged = |e: &mut Evidence| {
            again(e);
            e.damaged.insert(e.known[0].attempts[2].receipt.as_ref().unwrap().1[0]);
        };
        assert_eq!(found(damaged), []);
        let rejected =
            |e: &mut Evidence| e.known[0].attempts.push(attempt(17, Stage::Wrap, AttemptState::Rejected));
        assert_eq!(found(rejected), [Rejected]);
        let made_wrong = |e: &mut Evidence| {
            rejected(e);
            e.known[0].attempts.last_mut().unwrap().is_made_wrong = true;
        };
        assert_eq!(found(made_wrong), []);
        let distrusted = |e: &mut Evidence| {
            again(e);
            let mut block = attempt(18, Stage::Block { run: 0 }, AttemptState::Rejected);
            block.is_made_wrong = true;
            e.known[0].attempts.push(block);
        };
        assert_eq!(found(distrusted), []);
        let execute_again = |e: &mut Evidence, block: AttemptState| {
            let mut block = attempt(19, Stage::Block { run: 0 }, block);
            block.is_made_wrong = true;
            e.damaged.insert(block.receipt.as_ref().unwrap().1[0]);
            e.known[0].attempts.extend([block, attempt(20, Stage::Execute, AttemptState::Accepted)]);
        };
        assert_eq!(found(|e| execute_again(e, AttemptState::Accepted)), []);
        assert_eq!(found(|e| execute_again(e, AttemptState::Rejected)), [Again]);
        assert_eq!(found(|e| e.known[0].receipts = Err("bad".into())), [Rejected]);
    }

    #[test]
    fn leaks_and_ended_processes_are_found() {
        assert_eq!(found(|e| e.leaks.push("attempt/1/0".into())), [Invariant::Leaks]);
        assert_eq!(found(|e| e.exits.push("worker 1".into())), [Invariant::Exits]);
    }
}
