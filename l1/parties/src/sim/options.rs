//! What a run is about.

/// What somebody does wrong. One per run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Attack {
    /// Nothing.
    None,
    /// Somebody challenges every claim, though they are right, early or late, and slashes whatever consensus lets be slashed.
    Griefer,
    /// A claim starts one batch later than the one before it ended.
    SkippedBatch,
    /// A claim's new root is not what its batch leads to; its assertion has a wrong step.
    ForgedRoot,
    /// A claim has another code root.
    WrongCodeRoot,
    /// A claim's digest, the proof's public input, is not that of its values.
    WrongInput,
    /// A claim's proof does not verify; its assertion has a wrong step.
    BadProof,
    /// A claim's proof does not verify, and no leaf of the verifier can tell: what the chunked verifier has to prevent.
    PerfectLie,
    /// The data of a claim is not published, and its assertion has a wrong step; the claims after it go on.
    NoData,
    /// The same with an assertion in which no leaf can find a wrong step.
    Withheld,
    /// A wrong claim's challenge is not answered.
    NoAnswer,
    /// A slot of the assertion is left empty.
    HalfAnswer,
    /// A wrong claim's challenge is answered after its time.
    LateAnswer,
    /// Claims are sent before their cadence: by their operator, and by a miner in league with it.
    ClaimEarly,
    /// Two sets of values are signed for one claim; a reorganisation brings the second, which is wrong.
    DoubleClaim,
    /// A forced transaction is left out of a batch.
    DroppedForced,
    /// The operator stops before a claim.
    Stopped,
    /// Reorganisations all the time, as deep as they get; one goes across the claim just when it is in a block.
    Reorgs,
    /// Fees rise twentyfold for a while, again and again; once just when the claim is sent.
    FeeSpike,
    /// Somebody challenges every claim, and the operator is killed while it answers; everything else is killed often, too.
    KilledMidAssert,
}

impl Attack {
    /// All of them.
    pub const ALL: [Self; 20] = [
        Self::None,
        Self::Griefer,
        Self::SkippedBatch,
        Self::ForgedRoot,
        Self::WrongCodeRoot,
        Self::WrongInput,
        Self::BadProof,
        Self::PerfectLie,
        Self::NoData,
        Self::Withheld,
        Self::NoAnswer,
        Self::HalfAnswer,
        Self::LateAnswer,
        Self::ClaimEarly,
        Self::DoubleClaim,
        Self::DroppedForced,
        Self::Stopped,
        Self::Reorgs,
        Self::FeeSpike,
        Self::KilledMidAssert,
    ];

    /// True if the operator is honest: it must end with all its money.
    #[must_use]
    pub fn honest(self) -> bool {
        matches!(
            self,
            Self::None
                | Self::Griefer
                | Self::ClaimEarly
                | Self::Reorgs
                | Self::FeeSpike
                | Self::KilledMidAssert
        )
    }

    /// True if the operator must be slashed.
    #[must_use]
    pub fn slashed(self) -> bool {
        !self.honest() && !self.unpunished() && !matches!(self, Self::WrongCodeRoot | Self::Stopped)
    }

    /// True if the claim is wrong but nothing on the chain can tell: challenges and alarms are all there is.
    #[must_use]
    pub fn unpunished(self) -> bool {
        matches!(self, Self::PerfectLie | Self::Withheld)
    }

    /// True if a claim's data is kept back.
    #[must_use]
    pub fn withholds(self) -> bool {
        matches!(self, Self::NoData | Self::Withheld)
    }

    /// True if the outcome alone does not show that the attack took place: then the run has to have seen it.
    #[must_use]
    pub fn has_to_be_seen(self) -> bool {
        let quiet = self == Self::None;
        !quiet && (self.honest() || matches!(self, Self::WrongCodeRoot | Self::LateAnswer | Self::Stopped))
    }

    /// True if somebody challenges every claim.
    #[must_use]
    pub fn griefed(self) -> bool {
        matches!(self, Self::Griefer | Self::KilledMidAssert)
    }
}

/// A remedy that is taken away from the machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weakness {
    /// The operator does not answer challenges.
    Silent,
    /// The operator forgets to send a claim again that a reorganisation took away.
    ForgetReorgs,
    /// The operator does not repeat questions after a restart.
    ForgetRestarts,
    /// The operator claims before its data is on the chain.
    ClaimFirst,
    /// The operator does not have its acceptances mined as soon as it could.
    Lazy,
    /// Vigilantes do not compute digests.
    NoDigest,
    /// Vigilantes do not follow links.
    NoLink,
    /// Vigilantes do not have claims looked into.
    NoCheck,
    /// Vigilantes do not slash those who do not answer.
    NoTimeout,
    /// Nobody ends a trunk that stopped.
    NoHalt,
    /// Vigilantes keep a verdict for values that it was not about.
    StaleVerdict,
    /// Vigilantes leave claims undecided that start at a state that nobody knows.
    NoStart,
    /// The backup operator does not take over.
    NoHandover,
    /// Nobody raises a fee.
    NoBump,
    /// Nobody sends anything twice.
    NoRebroadcast,
    /// Nobody looks at the budget.
    NoBudget,
}

/// One run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Decides everything that is left to chance.
    pub seed: u64,
    /// What goes wrong.
    pub attack: Attack,
    /// The claim that the attack is about, counted across epochs: 0..6.
    pub at: u32,
    /// Bad weather beside the attack: small reorganisations, fees that move, censorship, kills, mempools that forget,
    /// batches and data that are late.
    pub weather: bool,
    /// Kills everybody after this many steps of the machines, once.
    pub kill_at: Option<u64>,
    /// All mempools lose what they hold, block after block: from this block after the start on, for so many blocks.
    pub outage: Option<(u32, u32)>,
    /// Blocks after a claim before which the griefer does not challenge it: late, the operator has less time to answer.
    pub grief_after: u32,
    /// Blocks after a claim after which its data, held back until then, is published all the same; never if absent.
    pub data_after: Option<u32>,
    /// Runs Core's script interpreter on everything.
    pub scripts: bool,
    /// Remedy that is missing.
    pub weakness: Option<Weakness>,
    /// Budget of every party, in satoshi; the policy's if absent.
    pub budget_sat: Option<u64>,
}

impl Options {
    /// The run of a seed: attack, claim and weather follow from it.
    #[must_use]
    pub fn of_seed(seed: u64) -> Self {
        let attack = Attack::ALL[(seed % Attack::ALL.len() as u64) as usize];
        let at = (seed / Attack::ALL.len() as u64 % 6) as u32;
        let round = seed / (6 * Attack::ALL.len() as u64);
        // Up to the end of the period. Operators that are killed all the time have enough to do with early ones.
        let grief_after =
            if attack == Attack::Griefer { [0, 3, 6, 8, 10, 11][(round % 6) as usize] } else { 0 };
        // Deeper than reorganisations go, so that it counts as missing.
        let data_after = (round % 2 == 1).then_some(8 + (round / 2 % 3) as u32);
        Self { at, grief_after, data_after, ..Self::new(attack, seed) }
    }

    /// An attack on claim 1, in bad weather.
    #[must_use]
    pub fn new(attack: Attack, seed: u64) -> Self {
        Self {
            seed,
            attack,
            at: 1,
            weather: true,
            kill_at: None,
            outage: None,
            grief_after: 0,
            data_after: None,
            scripts: false,
            weakness: None,
            budget_sat: None,
        }
    }
}
