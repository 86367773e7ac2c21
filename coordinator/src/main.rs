//! The command line `assay`.

fn main() -> std::process::ExitCode {
    assay_coordinator::cli::main()
}
