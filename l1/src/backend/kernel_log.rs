//! The consensus library's log: forwarded to `tracing`, and captured around a call for the reason of a verdict.
//!
//! The library's callbacks say only *that* a block is invalid; the reason string ("bad-txns-inputs-missingorspent") is
//! written to its log, on the thread that validates (no worker threads are used).

use std::cell::RefCell;
use std::sync::Once;

use bitcoinkernel::{Log, Logger};

/// Lines kept of one call: a verdict takes a handful.
const CAPTURED_LINES_MAX: usize = 64;

thread_local! {
    static CAPTURE: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

struct Forward;

impl Log for Forward {
    fn log(&self, message: &str) {
        let line = message.trim_end();
        tracing::trace!(target: "bitcoin_core", "{line}");
        CAPTURE.with(|capture| {
            if let Some(lines) = capture.borrow_mut().as_mut() {
                if lines.len() < CAPTURED_LINES_MAX {
                    lines.push(line.to_owned());
                }
            }
        });
    }
}

/// Connects the library's one global log, once per process. Without it the library buffers its lines in memory.
pub(super) fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        match Logger::new(Forward) {
            // The connection lasts as long as the process.
            Ok(logger) => std::mem::forget(logger),
            Err(error) => tracing::warn!("bitcoin kernel log not connected: {error}"),
        }
    });
}

/// Runs `call` and returns its result with the lines the library logged on this thread meanwhile.
pub(super) fn captured<T>(call: impl FnOnce() -> T) -> (T, Vec<String>) {
    CAPTURE.with(|capture| *capture.borrow_mut() = Some(Vec::new()));
    let result = call();
    let lines = CAPTURE.with(|capture| capture.borrow_mut().take()).unwrap_or_default();
    (result, lines)
}

/// The reason in the lines of a failed block, as Core words it.
///
/// Looks for `ConnectTip: ConnectBlock <hash> failed, <reason>`, `AcceptBlock FAILED (<reason>)` and
/// `Consensus::CheckBlock: <reason>`, in this order.
pub(super) fn reason(lines: &[String]) -> Option<String> {
    let find = |from: &str| lines.iter().find_map(|line| Some(line.split_once(from)?.1.trim().to_owned()));
    let connect = lines
        .iter()
        .filter(|line| line.contains("ConnectBlock"))
        .find_map(|line| Some(line.split_once(" failed, ")?.1.trim().to_owned()));
    connect
        .or_else(|| {
            find("AcceptBlock FAILED (").map(|text| text.strip_suffix(')').unwrap_or(&text).to_owned())
        })
        .or_else(|| find("Consensus::CheckBlock: "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_taken_from_the_line_of_the_failing_check() {
        let lines = |text: &[&str]| text.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
        assert_eq!(
            reason(&lines(&["x", "[error] ConnectTip: ConnectBlock 00ab failed, bad-cb-amount"])).as_deref(),
            Some("bad-cb-amount")
        );
        assert_eq!(
            reason(&lines(&["ProcessNewBlock: AcceptBlock FAILED (bad-txnmrklroot, hash mismatch)"]))
                .as_deref(),
            Some("bad-txnmrklroot, hash mismatch")
        );
        assert_eq!(reason(&lines(&["UpdateTip: new best"])), None);
    }
}
