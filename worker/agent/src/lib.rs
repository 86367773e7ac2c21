//! x

pub mod bundle;
#[cfg(feature = "fake")]
pub mod fake;
mod hexed;
pub mod key;
pub mod receipt;
pub mod runner;
pub mod state;
#[cfg(test)]
mod testing;
pub mod wire;
