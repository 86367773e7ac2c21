//! Client of the coordinator's API, and the commands of `assay` that speak it.
//!
//! Layer: above `assay-service` only for its tests; the library knows the API as HTTP and JSON alone, so that a client of one
//! version speaks to coordinators of another: unknown fields, events, phases and problem codes are passed over or shown.
//!
//! * [`Client`]: one method per call of the API. [`ClientError`] says what went wrong and what to do about it.
//! * [`cli`]: `submit`, `status`, `watch`, `workers`, `cancel`, `fetch`: arguments, output, exit codes.
//!
//! # Invariants
//! * The key goes to the given URL and nowhere else: redirects are not followed, and no error or log shows it.
//! * What a server sends is bounded, and its text is shown without control characters.
//! * A downloaded file has the hash that the coordinator named, or it is refused; a folder is kept whole or not at all.
//!
//! # Non-goals
//! Opening and validating batches, verifying proofs: the binary does both around these calls.
//!
//! Reading order: [`wire`], [`Client`], [`cli`].

pub mod cli;
mod client;
mod download;
mod error;
mod sse;
mod story;
pub mod wire;

pub use client::{Answer, Client, Events, Listing, Remote, Wishes};
pub use download::Download;
pub use error::{ClientError, Problem, EXIT_BAD_INPUT, EXIT_FAILED, EXIT_OK, EXIT_TRY_AGAIN};
pub use sse::Frame;
pub use story::Story;
