//! The tests. Their names hold the word by which `make test-node` finds them.

mod answers;
mod epochs;
mod lies;
mod takeover;
mod weather;
