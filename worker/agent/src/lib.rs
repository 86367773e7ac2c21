//! x

pub mod bundle;
#[cfg(feature = "fake")]
pub mod fake;
mod hexed;
pub mod key;
pub mod receipt;
pub mod runner;
pub mod state;
pub mod wire;
