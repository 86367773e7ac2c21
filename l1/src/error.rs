//! What a caller may do about an error.

/// How an error is answered. Retry logic reads this and nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The same call may succeed later (node unreachable, transaction not mined yet).
    Transient,
    /// The same call fails again until the input, the configuration or the money changes.
    Permanent,
    /// An invariant of this crate does not hold: report it.
    Bug,
}
