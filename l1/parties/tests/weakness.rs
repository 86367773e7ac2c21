//! Each invariant of the simulator bites: a machine without its remedy is caught, and the sound one is not.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use assay_l1_parties::sim::{run, Attack, Options, Weakness};

/// Runs seeds until one is caught; its message. All of them must pass with the remedy.
fn caught(attack: Attack, weakness: Weakness, change: impl Fn(&mut Options)) -> String {
    for seed in 0..40 {
        let mut options = Options::new(attack, seed);
        change(&mut options);
        run(&options).unwrap();
        options.weakness = Some(weakness);
        if let Err(failure) = run(&options) {
            return failure.what;
        }
    }
    panic!("{attack:?} without {weakness:?} passes 40 seeds");
}

fn says(attack: Attack, weakness: Weakness, part: &str) {
    let what = caught(attack, weakness, |_| {});
    assert!(what.contains(part), "{attack:?} without {weakness:?}: {what}");
}

#[test]
fn an_operator_that_does_not_answer_is_slashed() {
    says(Attack::Griefer, Weakness::Silent, "the honest operator was slashed");
}

#[test]
fn an_operator_that_leaves_its_acceptance_for_later_has_no_time_for_a_late_challenge() {
    let what = caught(Attack::Griefer, Weakness::Lazy, |options| {
        // Three blocks before the slash is possible: enough in fair weather only.
        options.grief_after = 19;
    });
    assert!(what.contains("the honest operator was slashed"), "{what}");
}

#[test]
fn an_operator_that_forgets_reorganisations_or_questions_does_not_come_to_an_end() {
    caught(Attack::Reorgs, Weakness::ForgetReorgs, |_| {});
    caught(Attack::KilledMidAssert, Weakness::ForgetRestarts, |_| {});
}

#[test]
fn a_claim_before_its_data_is_noticed() {
    says(Attack::None, Weakness::ClaimFirst, "is sent before its data");
}

#[test]
fn lies_that_nobody_looks_for_are_accepted() {
    says(Attack::WrongInput, Weakness::NoDigest, "was accepted");
    says(Attack::SkippedBatch, Weakness::NoLink, "was accepted");
    says(Attack::BadProof, Weakness::NoCheck, "was accepted");
    says(Attack::DoubleClaim, Weakness::StaleVerdict, "was accepted");
    says(Attack::Withheld, Weakness::NoStart, "starts at a state that nobody knows and was not challenged");
}

#[test]
fn who_does_not_answer_is_not_stopped_by_itself() {
    for attack in [Attack::NoAnswer, Attack::HalfAnswer] {
        caught(attack, Weakness::NoTimeout, |_| {});
    }
}

#[test]
fn a_trunk_that_stopped_stays_so_if_nobody_ends_it_or_takes_over() {
    says(Attack::Stopped, Weakness::NoHalt, "not settled");
    says(Attack::Stopped, Weakness::NoHandover, "not settled");
}

#[test]
fn a_transaction_that_is_not_raised_or_repeated_gets_lost() {
    caught(Attack::FeeSpike, Weakness::NoBump, |_| {});
    // Raising the fee repeats, too, for a while. So mempools forget the pay-outs for longer than that; nothing else is open.
    let what = caught(Attack::None, Weakness::NoRebroadcast, |options| {
        options.weather = false;
        options.outage = Some((90, 40));
    });
    assert!(what.contains("not settled"), "{what}");
}

#[test]
fn a_budget_that_nobody_looks_at_is_exceeded() {
    let mut options = Options::new(Attack::None, 3);
    options.budget_sat = Some(60_000);
    options.weakness = Some(Weakness::NoBudget);
    let what = run(&options).unwrap_err().what;
    assert!(what.contains("the budget is"), "{what}");
    // With it, the operator stops where its money does: nothing is overspent, and the trunk does not come to its end.
    options.weakness = None;
    let what = run(&options).unwrap_err().what;
    assert!(what.contains("not settled"), "{what}");
}
