//! The contract on a real bitcoind (regtest): its parties as processes of this test binary, killed with SIGKILL and started again, and
//! each attack on them once. `make test-node` runs it.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "node/bitcoind.rs"]
mod bitcoind;
#[path = "../../tests/common/chain.rs"]
mod chain;
#[path = "common/contract.rs"]
mod contract;
#[path = "node/crew.rs"]
mod crew;
#[path = "node/dice.rs"]
mod dice;
#[path = "common/files.rs"]
mod files;
#[path = "../../tests/common/node.rs"]
mod node;
#[path = "node/process.rs"]
mod process;
#[path = "../../tests/common/publish.rs"]
mod publish;
#[path = "common/rollup.rs"]
mod rollup;
#[path = "node/scene.rs"]
mod scene;
#[path = "node/signers.rs"]
mod signers;
