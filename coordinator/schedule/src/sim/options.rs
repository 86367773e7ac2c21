//! What is simulated, what breaks, and what is broken on purpose.

use crate::{Limits, Weak};

/// Something that breaks in the simulated world. Each is shown, by a test, to break a build without the remedy for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A worker's process dies, or leaves, and starts again.
    WorkerKilled,
    /// A worker stands still, and goes on as if nothing had happened.
    WorkerPaused,
    /// A worker can reach nobody.
    WorkerCut,
    /// A coordinator dies: before a commit, after it, or in the middle of the work.
    CoordinatorKilled,
    /// A coordinator stands still while another takes over.
    CoordinatorPaused,
    /// The coordinators' clocks differ, and one is set now and then.
    Skew,
    /// The queue cannot be reached, and has been started again when it can.
    Outage,
    /// The store cannot be reached.
    StoreDown,
    /// The store takes no more data.
    StoreFull,
    /// An artifact is damaged where it lies.
    Rot,
    /// An artifact is damaged while it is published.
    Damage,
    /// A worker returns wrong results.
    Lie,
    /// A controller publishes wrong inputs for its parts.
    Deceit,
    /// A controller asks for parts that nobody can prove.
    Forgery,
    /// A worker says things that make no sense.
    Nonsense,
    /// Messages are late, and so come in another order.
    Late,
    /// Messages come twice.
    Twice,
    /// Messages, and answers to clients, get lost.
    Lost,
    /// Tasks take far longer than usual, or never end, though their worker is well.
    Slow,
    /// A task fails.
    Failure,
    /// The settlement is refused.
    Refused,
}

impl Fault {
    /// All of them.
    pub const ALL: [Fault; 21] = [
        Fault::WorkerKilled,
        Fault::WorkerPaused,
        Fault::WorkerCut,
        Fault::CoordinatorKilled,
        Fault::CoordinatorPaused,
        Fault::Skew,
        Fault::Outage,
        Fault::StoreDown,
        Fault::StoreFull,
        Fault::Rot,
        Fault::Damage,
        Fault::Lie,
        Fault::Deceit,
        Fault::Forgery,
        Fault::Nonsense,
        Fault::Late,
        Fault::Twice,
        Fault::Lost,
        Fault::Slow,
        Fault::Failure,
        Fault::Refused,
    ];
}

/// A set of faults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults(u32);

impl Faults {
    /// Every fault.
    pub const ALL: Faults = Faults((1 << Fault::ALL.len()) - 1);

    /// One fault and no other.
    pub fn only(fault: Fault) -> Self {
        Self(1 << fault as u32)
    }

    /// Whether a fault is among them.
    pub fn has(self, fault: Fault) -> bool {
        self.0 & (1 << fault as u32) != 0
    }
}

/// A remedy that is taken away, to show that the simulator notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weakness {
    /// Results are accepted without being verified.
    Verification,
    /// What the store holds is not compared with its name.
    Checksum,
    /// A coordinator that takes over does not know what is finished.
    Memo,
    /// A coordinator that takes over does not begin the outstanding work again.
    Reissue,
    /// Batches are taken without looking for their idempotency key.
    Idempotency,
    /// An attempt's result is taken as often as it comes.
    Repeats,
    /// Requests of controllers are not checked.
    Requests,
    /// What a liar's parts have proved is kept.
    Trust,
    /// A part that cannot be done ends its batch.
    Blame,
    /// Tasks are sent while the store cannot be reached.
    Availability,
    /// Tasks that need room in the store are sent while it is full.
    BackPressure,
    /// The queue takes the commits of a leader that was deposed.
    Epochs,
    /// The store takes what attempts publish that are over.
    Revocation,
    /// The queue forgets the last records when it is started again.
    Durability,
    /// A settlement that is done twice is posted twice.
    Settlement,
    /// Workers say everything once.
    Repetition,
    /// Silent workers are never given up.
    Leases,
    /// Tasks are never given up.
    Timeouts,
    /// Controllers that do nothing are never taken back.
    Idleness,
    /// What has failed once is not tried again.
    Retries,
}

impl Weakness {
    /// All of them.
    pub const ALL: [Weakness; 20] = [
        Weakness::Verification,
        Weakness::Checksum,
        Weakness::Memo,
        Weakness::Reissue,
        Weakness::Idempotency,
        Weakness::Repeats,
        Weakness::Requests,
        Weakness::Trust,
        Weakness::Blame,
        Weakness::Availability,
        Weakness::BackPressure,
        Weakness::Epochs,
        Weakness::Revocation,
        Weakness::Durability,
        Weakness::Settlement,
        Weakness::Repetition,
        Weakness::Leases,
        Weakness::Timeouts,
        Weakness::Idleness,
        Weakness::Retries,
    ];
}

/// What to simulate.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Everything random follows from it.
    pub seed: u64,
    /// Batches to bring to an end, at least 1.
    pub batches: u32,
    /// What breaks.
    pub faults: Faults,
    /// What is broken on purpose.
    pub weakness: Option<Weakness>,
}

impl Options {
    /// All faults, and all remedies.
    pub fn sound(seed: u64, batches: u32) -> Self {
        Self { seed, batches, faults: Faults::ALL, weakness: None }
    }

    pub(super) fn lacks(&self, remedy: Weakness) -> bool {
        self.weakness == Some(remedy)
    }

    /// The switches of the machine.
    pub(super) fn weak(&self) -> Weak {
        Weak {
            verification: self.lacks(Weakness::Verification),
            checksum: self.lacks(Weakness::Checksum),
            memo: self.lacks(Weakness::Memo),
            reissue: self.lacks(Weakness::Reissue),
            idempotency: self.lacks(Weakness::Idempotency),
            repeats: self.lacks(Weakness::Repeats),
            requests: self.lacks(Weakness::Requests),
            trust: self.lacks(Weakness::Trust),
            blame: self.lacks(Weakness::Blame),
            availability: self.lacks(Weakness::Availability),
            back_pressure: self.lacks(Weakness::BackPressure),
            // It also comes to the rescue of a controller whose worker is gone, or that was not heard.
            idleness: [Weakness::Idleness, Weakness::Leases, Weakness::Repetition]
                .iter()
                .any(|weakness| self.lacks(*weakness)),
        }
    }

    /// Limits that take a remedy away, where the machine can be told to do without.
    pub(super) fn weaken(&self, limits: &mut Limits) {
        const YEAR_MS: u64 = 365 * 24 * 3_600_000;
        match self.weakness {
            Some(Weakness::Leases) => (limits.worker_lease_ms, limits.dispatch_grace_ms) = (YEAR_MS, YEAR_MS),
            Some(Weakness::Timeouts) => (limits.timeout_ms_min, limits.attempts_max) = (YEAR_MS, 1),
            Some(Weakness::Retries) => (limits.failures_max, limits.settle_tries_max) = (1, 1),
            _ => {}
        }
    }
}
