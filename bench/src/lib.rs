//! Criterion benches of every part.
