//! `assay-worker-cheap`: a worker with the cheap runner, for tests, chaos runs and load tests of a cluster.

fn main() -> std::process::ExitCode {
    assay_agent::fake::main()
}
