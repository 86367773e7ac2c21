//! No code: see `Cargo.toml`, which pins the features of third-party crates that the zkVM shares with other members.
