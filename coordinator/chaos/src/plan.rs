//! The schedule of faults: a pure function of seed and options.

use std::fmt;

use rand::seq::SliceRandom;
use rand::Rng;
use rand_chacha::rand_core::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use crate::options::{FaultKind, Options};

/// No fault before this: the cluster starts.
const QUIET_MS: u64 = 600;
/// Time between two faults.
const GAP_MS: std::ops::Range<u64> = 150..900;
/// Share of faults of coordinators that hit whoever leads, in percent.
const LEADER_PERCENT: u32 = 70;

/// Whom a fault hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    /// The coordinator that leads when it happens.
    Leader,
    /// A coordinator, from 0.
    Coordinator(u32),
    /// A worker, from 0.
    Worker(u32),
    /// The Redis server.
    Redis,
}

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// kill -9, and a new start after a while.
    Kill {
        /// Whom.
        target: Target,
        /// Until it is started again.
        down_ms: u64,
    },
    /// SIGSTOP, and SIGCONT after a while.
    Pause {
        /// Whom.
        target: Target,
        /// For how long.
        ms: u64,
    },
    /// Nothing passes between a process and Redis, but arrives in the end.
    Stall {
        /// Whom.
        target: Target,
        /// For how long.
        ms: u64,
    },
    /// Connections between a process and Redis end, and new ones do not come about.
    Cut {
        /// Whom.
        target: Target,
        /// For how long.
        ms: u64,
    },
    /// Redis does what a process asks for, but the answer is lost.
    LoseAnswer {
        /// Whom.
        target: Target,
    },
    /// A byte of some artifacts is changed.
    Corrupt {
        /// How many.
        artifacts: u32,
        /// Where the drawing of them begins.
        seed: u64,
    },
    /// Redis has no memory left.
    FillMemory {
        /// For how long.
        ms: u64,
    },
    /// Every event is delivered again.
    Duplicate {
        /// For how long.
        ms: u64,
        /// How much later.
        late_ms: u64,
    },
    /// A coordinator starts again with another clock.
    Skew {
        /// Whom.
        target: Target,
        /// How far its clock is ahead.
        offset_ms: i64,
    },
}

/// A fault and its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Planned {
    /// Since the first batch was submitted.
    pub at_ms: u64,
    /// What.
    pub fault: Fault,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Leader => f.write_str("the leader"),
            Self::Coordinator(number) => write!(f, "coordinator {number}"),
            Self::Worker(number) => write!(f, "worker {number}"),
            Self::Redis => f.write_str("redis"),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill { target, down_ms } => write!(f, "kill -9 {target}, started again after {down_ms} ms"),
            Self::Pause { target, ms } => write!(f, "pause {target} for {ms} ms"),
            Self::Stall { target, ms } => write!(f, "hold back all between {target} and redis for {ms} ms"),
            Self::Cut { target, ms } => write!(f, "cut {target} off from redis for {ms} ms"),
            Self::LoseAnswer { target } => write!(f, "lose redis's next answer to {target}"),
            Self::Corrupt { artifacts, .. } => write!(f, "corrupt {artifacts} artifacts"),
            Self::FillMemory { ms } => write!(f, "redis without memory for {ms} ms"),
            Self::Duplicate { ms, late_ms } => {
                write!(f, "deliver all events of {ms} ms again, {late_ms} ms late")
            }
            Self::Skew { target, offset_ms } => {
                write!(f, "{target} starts again, its clock {offset_ms:+} ms off")
            }
        }
    }
}

impl fmt::Display for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:7.3} s  {}", self.at_ms as f64 / 1000.0, self.fault)
    }
}

/// The faults of a run, in the order of their times.
pub fn plan(seed: u64, options: &Options) -> Vec<Planned> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    // Wrong results are drawn by the workers themselves, for each attempt.
    let kinds: Vec<FaultKind> =
        options.kinds().into_iter().filter(|kind| *kind != FaultKind::Wrong).collect();
    let (mut faults, mut at_ms, mut round) = (Vec::new(), QUIET_MS, Vec::new());
    while at_ms < options.seconds * 1000 && !kinds.is_empty() {
        // Each kind once, then each once again, in another order.
        if round.is_empty() {
            round.clone_from(&kinds);
            round.shuffle(&mut rng);
        }
        if let Some(kind) = round.pop() {
            faults.push(Planned { at_ms, fault: draw(kind, options, &mut rng) });
        }
        at_ms += rng.gen_range(GAP_MS);
    }
    faults
}

fn draw(kind: FaultKind, options: &Options, rng: &mut ChaCha8Rng) -> Fault {
    match kind {
        FaultKind::KillCoordinator => {
            Fault::Kill { target: coordinator(options, rng), down_ms: rng.gen_range(0..1500) }
        }
        FaultKind::KillWorker => {
            Fault::Kill { target: worker(options, rng), down_ms: rng.gen_range(0..1500) }
        }
        FaultKind::KillRedis => Fault::Kill { target: Target::Redis, down_ms: rng.gen_range(0..1000) },
        FaultKind::Pause => {
            // Longer than the leader's lease, and now and then longer than a worker's.
            let target = if rng.gen_ratio(1, 5) { Target::Redis } else { process(options, rng) };
            Fault::Pause { target, ms: rng.gen_range(300..3500) }
        }
        FaultKind::Partition => {
            let (target, ms) = (process(options, rng), rng.gen_range(300..3500));
            match rng.gen_bool(0.6) {
                true => Fault::Stall { target, ms },
                false => Fault::Cut { target, ms },
            }
        }
        FaultKind::Corrupt => Fault::Corrupt { artifacts: rng.gen_range(1..4), seed: rng.gen() },
        FaultKind::FillMemory => Fault::FillMemory { ms: rng.gen_range(200..1500) },
        FaultKind::Duplicate => match rng.gen_bool(0.5) {
            true => Fault::LoseAnswer { target: process(options, rng) },
            false => Fault::Duplicate { ms: rng.gen_range(300..2000), late_ms: rng.gen_range(0..800) },
        },
        FaultKind::Skew => {
            let far = rng.gen_range(1500..6000);
            let offset_ms = if rng.gen() { far } else { -far };
            Fault::Skew { target: coordinator(options, rng), offset_ms }
        }
        FaultKind::Wrong => unreachable!("filtered out by the only caller"),
    }
}

fn coordinator(options: &Options, rng: &mut ChaCha8Rng) -> Target {
    // Drawn in any case, so that the rest of the schedule does not depend on it.
    let number = rng.gen_range(0..options.coordinators);
    match rng.gen_ratio(LEADER_PERCENT, 100) {
        true => Target::Leader,
        false => Target::Coordinator(number),
    }
}

fn worker(options: &Options, rng: &mut ChaCha8Rng) -> Target {
    Target::Worker(rng.gen_range(0..options.workers))
}

fn process(options: &Options, rng: &mut ChaCha8Rng) -> Target {
    if rng.gen() {
        coordinator(options, rng)
    } else {
        worker(options, rng)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_schedule_and_another_seed_another() {
        let options = Options { seconds: 30, ..Options::default() };
        assert_eq!(plan(7, &options), plan(7, &options));
        assert_ne!(plan(7, &options), plan(8, &options));
        // Pinned: a schedule that changes makes printed seeds worthless.
        let first: Vec<String> = plan(7, &options).iter().take(3).map(ToString::to_string).collect();
        assert_eq!(first.len(), 3);
    }

    #[test]
    fn every_kind_happens_before_any_happens_twice_and_none_that_was_not_asked_for() {
        let options = Options { seconds: 60, ..Options::default() };
        let is_kill = |planned: &Planned, wanted: fn(Target) -> bool| matches!(planned.fault, Fault::Kill { target, .. } if wanted(target));
        for seed in 0..20 {
            let first: Vec<Planned> = plan(seed, &options).into_iter().take(9).collect();
            assert!(first.iter().any(|p| is_kill(p, |t| t == Target::Redis)), "{first:?}");
            assert!(first.iter().any(|p| is_kill(p, |t| matches!(t, Target::Worker(_)))), "{first:?}");
            assert!(first.iter().any(|p| matches!(p.fault, Fault::Corrupt { .. })), "{first:?}");
            assert!(first.iter().any(|p| matches!(p.fault, Fault::Skew { .. })), "{first:?}");
        }
        let only = Options { faults: vec![FaultKind::Pause], ..options.clone() };
        assert!(plan(1, &only).len() > 50);
        assert!(plan(1, &only).iter().all(|planned| matches!(planned.fault, Fault::Pause { .. })));
        let wrong = Options { faults: vec![FaultKind::Wrong], ..options };
        assert!(plan(1, &wrong).is_empty());
    }
}
