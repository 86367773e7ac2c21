//! Identifiers, kinds of work and artifacts.

use std::fmt;
use std::str::FromStr;

use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id!(
    /// A batch, numbered in the order of intake; never used twice.
    BatchId
);
id!(
    /// One try of one task by one worker. Grows with time and is never used twice, which makes it the fencing token of
    /// everything that the try publishes.
    AttemptId
);
id!(
    /// An effect; the answer carries it. Never used twice.
    EffectId
);
id!(
    /// A worker process.
    WorkerId
);
id!(
    /// A customer with quotas of its own.
    TenantId
);
id!(
    /// A rollup: its batches are folded one on the other.
    ChainId
);
id!(
    /// A term of leadership; each coordinator that takes over has a higher one.
    Epoch
);

/// Milliseconds since the Unix epoch on the leading coordinator's clock. No worker's clock is ever read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Time(pub u64);

impl Time {
    /// This time and `ms` milliseconds, at most the end of time.
    pub fn plus(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Milliseconds from `earlier` to this time, 0 if it is later.
    pub fn since(self, earlier: Time) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// BLAKE3 of an artifact's bytes, or of a task's identity. 64 hexadecimal digits where people read it (JSON).
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash(pub [u8; 32]);

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().take(8).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.digits(&mut [0; 64]))
    }
}

impl Hash {
    /// Its digits, written to a place of the caller's: hashes are most of what messages consist of.
    fn digits<'a>(&self, place: &'a mut [u8; 64]) -> &'a str {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        for (pair, byte) in place.chunks_exact_mut(2).zip(self.0) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 15)];
        }
        std::str::from_utf8(place).expect("hexadecimal digits are ASCII")
    }
}

/// Text that is not 64 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a hash is 64 hexadecimal digits")]
pub struct HashError;

impl FromStr for Hash {
    type Err = HashError;

    fn from_str(text: &str) -> Result<Self, HashError> {
        let digits: &[u8; 64] = text.as_bytes().try_into().map_err(|_| HashError)?;
        let value = |digit: u8| match digit {
            b'0'..=b'9' => Ok(digit - b'0'),
            b'a'..=b'f' => Ok(digit - b'a' + 10),
            b'A'..=b'F' => Ok(digit - b'A' + 10),
            _ => Err(HashError),
        };
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = value(pair[0])? << 4 | value(pair[1])?;
        }
        Ok(Self(bytes))
    }
}

impl Serialize for Hash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.serialize_str(self.digits(&mut [0; 64]))
        } else {
            self.0.serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            deserializer.deserialize_str(Digits)
        } else {
            <[u8; 32]>::deserialize(deserializer).map(Self)
        }
    }
}

/// Reads a hash without a copy of its text.
struct Digits;

impl Visitor<'_> for Digits {
    type Value = Hash;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("64 hexadecimal digits")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Hash, E> {
        text.parse().map_err(E::custom)
    }
}

/// What a task does; speed and memory are kept for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Re-execute the batch and cut it into runs of blocks; output `k` is the witness of run `k`.
    Execute,
    /// Run the block program on one witness and have its parts proved; one output, the block proof.
    Block,
    /// Prove one shard: a part.
    Shard,
    /// Reduce or defer proofs: a part.
    Reduce,
    /// Run the fold program on all block proofs and the previous fold proof and have its parts proved; one output.
    Fold,
    /// Shrink the fold proof and hash it over BN254.
    Wrap,
    /// The Groth16 proof.
    Groth16,
}

impl Kind {
    /// All kinds, in the order of a batch.
    pub const ALL: [Kind; 7] =
        [Kind::Execute, Kind::Block, Kind::Shard, Kind::Reduce, Kind::Fold, Kind::Wrap, Kind::Groth16];

    /// Whether it turns little data into much: held back while the store is nearly full, so that what is there is
    /// consumed first.
    pub fn grows(self) -> bool {
        matches!(self, Kind::Execute | Kind::Block)
    }

    /// Whether it has parts proved by others while it runs. It takes a controller's place on its worker, no slot.
    pub fn is_controller(self) -> bool {
        matches!(self, Kind::Block | Kind::Fold)
    }

    /// Whether it is a part, asked for by a controller.
    pub fn is_part(self) -> bool {
        matches!(self, Kind::Shard | Kind::Reduce)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Execute => "execute",
            Kind::Block => "block",
            Kind::Shard => "shard",
            Kind::Reduce => "reduce",
            Kind::Fold => "fold",
            Kind::Wrap => "wrap",
            Kind::Groth16 => "groth16",
        })
    }
}

/// The controller that asked for a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Parent {
    /// [`Kind::Block`] of a run.
    Block {
        /// The run, from 0.
        run: u32,
    },
    /// [`Kind::Fold`].
    Fold,
}

/// One task of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// [`Kind::Execute`].
    Execute,
    /// [`Kind::Block`] of a run.
    Block {
        /// The run, from 0.
        run: u32,
    },
    /// [`Kind::Shard`].
    Shard {
        /// Whose part it is.
        of: Parent,
        /// Its number among all parts of that controller, in the order in which they were asked for.
        part: u32,
    },
    /// [`Kind::Reduce`].
    Reduce {
        /// Whose part it is.
        of: Parent,
        /// Its number among all parts of that controller, in the order in which they were asked for.
        part: u32,
    },
    /// [`Kind::Fold`].
    Fold,
    /// [`Kind::Wrap`].
    Wrap,
    /// [`Kind::Groth16`].
    Groth16,
}

impl Stage {
    /// What it does.
    pub fn kind(self) -> Kind {
        match self {
            Stage::Execute => Kind::Execute,
            Stage::Block { .. } => Kind::Block,
            Stage::Shard { .. } => Kind::Shard,
            Stage::Reduce { .. } => Kind::Reduce,
            Stage::Fold => Kind::Fold,
            Stage::Wrap => Kind::Wrap,
            Stage::Groth16 => Kind::Groth16,
        }
    }

    /// The controller whose part it is.
    pub fn parent(self) -> Option<Parent> {
        match self {
            Stage::Shard { of, .. } | Stage::Reduce { of, .. } => Some(of),
            _ => None,
        }
    }
}

/// Who holds an artifact in the store; deletion is by holder, so that deleting one try's output never touches another
/// try's equal bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Holder {
    /// The payload of a submitted batch, by the name of its submission.
    Intake(Hash),
    /// Published by an attempt: its output of that number, or for a controller, from [`Holder::INPUTS`] on, an input of
    /// its parts, numbered by the controller, each number used once.
    Attempt(AttemptId, u32),
}

impl Holder {
    /// The first number that a controller may give to an input of its parts.
    pub const INPUTS: u32 = 1;
}

/// The holder's name in the store, a path: `attempt/17` covers `attempt/17/0`.
impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Holder::Intake(key) => write!(f, "intake/{key}"),
            Holder::Attempt(attempt, number) => write!(f, "attempt/{attempt}/{number}"),
        }
    }
}

/// An immutable piece of data in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Artifact {
    /// Who holds it.
    pub holder: Holder,
    /// What its bytes must hash to; its address.
    pub hash: Hash,
    /// Its size.
    pub bytes: u64,
}

/// One value for each [`Kind`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PerKind<T>(pub [T; Kind::ALL.len()]);

impl<T> std::ops::Index<Kind> for PerKind<T> {
    type Output = T;

    fn index(&self, kind: Kind) -> &T {
        &self.0[kind as usize]
    }
}

impl<T> std::ops::IndexMut<Kind> for PerKind<T> {
    fn index_mut(&mut self, kind: Kind) -> &mut T {
        &mut self.0[kind as usize]
    }
}
