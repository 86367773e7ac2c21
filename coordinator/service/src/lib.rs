//! The coordinator process around the schedule: event loop, HTTP API, live page, metrics, webhooks.
//!
//! Layer: adapters. Decisions are made by `assay-schedule`, kept and carried by `assay-queue`; this crate is what runs
//! between them. It knows neither the zkVM nor Bitcoin: checking and settling stand behind traits ([`work`]).
//!
//! # Invariants
//! * Nobody sees a state that is not committed, and no effect is begun before the commit that asks for it.
//! * What the state says ([`state`]) is a function of the committed records alone, so that all coordinators say the same.
//! * A submission is answered when the record that takes it is committed; the same key gives the same batch for ever.
//! * Another tenant's batch is not there, in whatever way it is asked for.
//! * Whatever a peer sends, the answer is a [`problem::Problem`] or what was asked for; everything it can make grow or
//!   last is bounded.
//!
//! # Non-goals
//! TLS (a reverse proxy ends it; see the README), user accounts, deciding anything about tasks.
//!
//! Reading order: [`state`], [`leader`], [`api`], then [`Service`], which puts it all together.

pub mod api;
pub mod keys;
pub mod leader;
pub mod limiter;
pub mod metrics;
pub mod names;
mod page;
pub mod problem;
pub mod request;
pub mod server;
mod service;
pub mod shared;
pub mod starting;
pub mod state;
pub mod webhook;
mod wire;
pub mod work;

pub use service::{Service, ServiceError, Settings, Supplies};
