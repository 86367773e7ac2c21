//! SIGTERM ends a service.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::process::Command;
use std::time::{Duration, Instant};

use assay_l1_parties::service::Stop;

#[test]
fn a_signal_to_end_is_heard_and_does_not_kill() {
    let stop = Stop::on_signals().unwrap();
    assert!(!stop.is_stopped());
    let sent = Command::new("kill").args(["-TERM", &std::process::id().to_string()]).status().unwrap();
    assert!(sent.success());
    let deadline = Instant::now() + Duration::from_secs(30);
    while !stop.is_stopped() {
        assert!(Instant::now() < deadline, "the signal is heard");
        std::thread::sleep(Duration::from_millis(5));
    }
}
