//! A seeded simulator: the machine in a world of faults, with invariants checked at every step.
//!
//! The world has two coordinators, a queue (lease, fenced log, inbox, mailboxes), a store, workers, clients and a settlement
//! layer. [`Fault`] lists what breaks there. Faults end after a while, and then everything must come to rest. [`Weakness`]
//! lists remedies that can be taken away, to show that their absence is noticed. "Content" is a 64-bit number computed from
//! the contents of the inputs, so that the simulator knows the only right result of everything.
//!
//! At each takeover the log is replayed, which must give the machine that the last leader had.
//!
//! Reading order: [`Options`], [`run`], then `world` (time, messages), `coordinators`, `workers`, `checks`.

mod checks;
mod clients;
mod coordinators;
mod faults;
mod options;
mod oracle;
mod queue;
mod resources;
pub mod rng;
mod workers;
mod world;

use crate::{Effect, Event, Machine, Time};

pub use options::{Fault, Faults, Options, Weakness};

/// What came of a simulation in which all invariants held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Batches taken.
    pub batches: u32,
    /// Of these, settled.
    pub settled: u32,
    /// Failed for a reason that the simulator knows, or cancelled.
    pub failed: u32,
    /// Steps of the machine.
    pub steps: u64,
    /// Takeovers, restarts included.
    pub takeovers: u64,
    /// Log records replayed at takeovers.
    pub replayed: u64,
    /// Faults injected.
    pub faults: u64,
    /// Results of parts that were accepted.
    pub parts: u64,
    /// Results of other tasks that were accepted.
    pub tasks: u64,
    /// Finished tasks that were done again because their output was corrupted at rest, or proved from a lie.
    pub redone_lost: u64,
    /// Parts that a later attempt of their controller found done.
    pub found_done: u64,
    /// Digest of everything that happened: equal for equal seeds.
    pub trace: u64,
}

impl Summary {
    /// Adds up.
    pub fn add(&mut self, other: &Summary) {
        self.batches += other.batches;
        self.settled += other.settled;
        self.failed += other.failed;
        self.steps += other.steps;
        self.takeovers += other.takeovers;
        self.replayed += other.replayed;
        self.faults += other.faults;
        self.parts += other.parts;
        self.tasks += other.tasks;
        self.redone_lost += other.redone_lost;
        self.found_done += other.found_done;
        self.trace = rng::mix(self.trace ^ other.trace);
    }
}

/// An invariant that did not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("seed {seed}, step {step}, {at_ms} ms: {what}")]
pub struct Violation {
    /// Replays it.
    pub seed: u64,
    /// Steps of the machine so far.
    pub step: u64,
    /// Simulated time.
    pub at_ms: u64,
    /// Which one.
    pub what: String,
}

/// A step that was committed.
#[derive(Clone, Debug)]
pub struct Step {
    /// What happened.
    pub event: Event,
    /// When, as the machine was told.
    pub at: Time,
    /// What came of it.
    pub effects: Vec<Effect>,
}

/// All that was committed in a simulation.
#[derive(Clone, Debug)]
pub struct Tape {
    /// The machine before.
    pub start: Machine,
    /// The log.
    pub steps: Vec<Step>,
    /// The last leader's machine.
    pub end: Machine,
}

/// Runs one simulation to its end and tells what was committed.
///
/// # Errors
/// The first [`Violation`].
pub fn record(options: Options) -> Result<Tape, Violation> {
    let mut world = world::World::new(options);
    let start = world.start_machine();
    world.tape = Some(Vec::new());
    let violation = |world: &world::World, what| Violation {
        seed: options.seed,
        step: world.summary.steps,
        at_ms: world.now,
        what,
    };
    world.run().map_err(|what| violation(&world, what))?;
    let end = world.newest().cloned().ok_or_else(|| violation(&world, "nobody leads at the end".into()))?;
    Ok(Tape { start, steps: world.tape.take().unwrap_or_default(), end })
}

/// Runs one simulation to its end.
///
/// # Errors
/// The first [`Violation`].
pub fn run(options: Options) -> Result<Summary, Violation> {
    let mut world = world::World::new(options);
    let result = world.run();
    result.map_err(|what| Violation {
        seed: options.seed,
        step: world.summary.steps,
        at_ms: world.now,
        what,
    })?;
    Ok(world.summary)
}
