//! The service as its users see it: coordinators over the embedded queue, with workers that "prove" instantly.
#![allow(clippy::unwrap_used, reason = "a test may")]

#[path = "service/agent.rs"]
mod agent;
#[path = "service/api.rs"]
mod api;
#[path = "service/cluster.rs"]
mod cluster;
#[path = "service/fuzz.rs"]
mod fuzz;
#[path = "service/hostile.rs"]
mod hostile;
#[path = "service/leader.rs"]
mod leader;
#[path = "service/limits.rs"]
mod limits;
#[path = "service/other.rs"]
mod other;
#[path = "service/page.rs"]
mod page;
#[path = "service/simple.rs"]
mod simple;
#[path = "service/starting.rs"]
mod starting;
#[path = "service/stream.rs"]
mod stream;
#[path = "service/webhook.rs"]
mod webhook;
