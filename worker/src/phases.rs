//! Cycles by phase of an execution, from the markers that the block program prints when asked to.
//!
//! The zkVM counts phases only in builds with its profiling feature, and a proved execution prints none: a second, marked
//! execution is run beside it, which takes about a second per million cycles.

use std::sync::Arc;

use sp1_core_executor::{with_output_consumers, MinimalExecutorEnum, OutputConsumers, Program};
use tokio::sync::watch;

use crate::error::WorkerError;

/// Second input item of the block program: print markers.
const MARKED: &[u8] = &[1];
/// The executor stops after this many memory accesses; only then can its clock be read beside the markers.
const ACCESSES_PER_CHUNK: u64 = 1 << 13;

/// Runs the block program on `input` and returns its phases in order, each with its cycles, right to within a few thousand.
///
/// # Errors
/// [`WorkerError::Program`] if the ELF does not load, [`WorkerError::GuestExit`] if the guest rejects its input.
pub fn cycles_by_phase(elf: &[u8], input: &[u8]) -> Result<Vec<(String, u64)>, WorkerError> {
    let program = Program::from(elf).map_err(|e| WorkerError::Program { reason: e.to_string() })?;
    let mut executor = MinimalExecutorEnum::new(Arc::new(program), false, Some(ACCESSES_PER_CHUNK));
    executor.with_input(input);
    executor.with_input(MARKED);
    let (sender, receiver) = watch::channel(String::new());
    let (errors, _error_receiver) = watch::channel(String::new());
    let consumers = OutputConsumers { stdout: Some(sender.clone()), stderr: Some(errors) };
    let mut clock = Clock::default();
    with_output_consumers(&consumers, || {
        while executor.execute_chunk().is_some() {
            clock.read(&receiver.borrow(), executor.global_clk());
            sender.send_replace(String::new());
        }
    });
    clock.read(&receiver.borrow(), executor.global_clk());
    match executor.exit_code() {
        0 => Ok(clock.phases),
        code => Err(WorkerError::GuestExit { code }),
    }
}

/// Sums the cycles between markers; several phases may begin and end between two readings, sharing one clock value.
#[derive(Default)]
struct Clock {
    phases: Vec<(String, u64)>,
    open: Option<u64>,
}

impl Clock {
    fn read(&mut self, output: &str, now: u64) {
        for line in output.lines() {
            if let Some(name) = line.strip_prefix("phase-begin ") {
                if !self.phases.iter().any(|(known, _)| known == name) {
                    self.phases.push((name.to_owned(), 0));
                }
                self.open = Some(now);
            } else if let Some(name) = line.strip_prefix("phase-end ") {
                let begun = self.open.take().unwrap_or(now);
                if let Some((_, cycles)) = self.phases.iter_mut().find(|(known, _)| known == name) {
                    *cycles += now - begun;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cycles_go_to_the_phase_between_its_markers() {
        let mut clock = Clock::default();
        clock.read("phase-begin decode\n", 10);
        clock.read("phase-end decode\nphase-begin execute\n", 25);
        clock.read("hello\n", 30);
        clock.read("phase-end execute\nphase-begin decode\nphase-end decode\n", 100);
        assert_eq!(clock.phases, [("decode".to_owned(), 15), ("execute".to_owned(), 75)]);
    }
}
