//! Killed at any step of any machine, a run ends as well as without.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use assay_l1_parties::sim::{run, Attack, Options};

/// Every `every`-th step of a run in fair weather.
fn killed_everywhere(attack: Attack, every: usize) {
    let fair = Options { weather: false, ..Options::new(attack, 5) };
    let steps = run(&fair).unwrap().steps;
    assert!(steps > 300, "{steps}");
    for step in (1..=steps).step_by(every) {
        let killed = run(&Options { kill_at: Some(step), ..fair.clone() });
        assert!(killed.as_ref().is_ok_and(|summary| summary.kills == 1), "killed at step {step}: {killed:?}");
    }
}

#[test]
fn an_honest_operator_that_is_challenged_may_die_at_any_step() {
    killed_everywhere(Attack::Griefer, 7);
}

#[test]
fn whoever_catches_a_liar_may_die_at_any_step() {
    killed_everywhere(Attack::SkippedBatch, 11);
    killed_everywhere(Attack::BadProof, 11);
}

#[test]
fn whoever_takes_over_may_die_at_any_step() {
    killed_everywhere(Attack::Stopped, 11);
}

#[test]
fn under_every_other_attack_anybody_may_die_at_some_steps() {
    let above = [Attack::Griefer, Attack::SkippedBatch, Attack::BadProof, Attack::Stopped];
    // That one kills by itself.
    let others = Attack::ALL.into_iter().filter(|attack| *attack != Attack::KilledMidAssert);
    for attack in others.filter(|attack| !above.contains(attack)) {
        killed_everywhere(attack, 53);
    }
}
