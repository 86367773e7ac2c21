//! x

pub mod agent;
pub mod bundle;
pub mod cli;
pub mod config;
pub mod devices;
#[cfg(feature = "fake")]
pub mod fake;
mod folder;
mod hexed;
pub mod key;
pub mod receipt;
pub mod runner;
pub mod state;
#[cfg(test)]
mod testing;
pub mod wire;
