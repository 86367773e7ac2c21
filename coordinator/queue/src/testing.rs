//! For tests: Redis servers and cuts in the connection to them, and the suites that every implementation has to pass.
//!
//! A suite is a macro that takes a function making fixtures and expands to one `#[tokio::test]` per rule.

#![allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "test code outside of #[test]: a panic is a failed test"
)]

mod proxy;
pub mod queue_contract;
mod server;
pub mod store_contract;

pub use proxy::Proxy;
pub use queue_contract::QueueFixture;
pub use server::{RedisServer, ServerOptions};
pub use store_contract::StoreFixture;
