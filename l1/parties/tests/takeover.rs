//! A backup operator goes on with a trunk whose operator stays away, on Core's consensus code: timeout, report, the attesters'
//! consent and signatures, the next batch.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "takeover/backup.rs"]
mod backup;
#[path = "../../tests/common/chain.rs"]
mod chain;
#[path = "common/contract.rs"]
mod contract;
#[path = "common/files.rs"]
mod files;
#[path = "../../tests/common/publish.rs"]
mod publish;
#[path = "common/rollup.rs"]
mod rollup;
#[path = "service/world.rs"]
mod world;

use assay_l1::graph::contract::build::TxRole;
use assay_l1_parties::service::watch::Stage;
use assay_l1_signer::handover::Place;
use backup::Backup;
use rollup::{honest, publications};
use world::World;

#[test]
fn a_backup_ends_a_trunk_that_stopped_has_its_own_epoch_signed_and_claims_the_next_batch() {
    let world = World::new();
    let backup = Backup::new(&world);
    let batches = world.setup.files.batches();
    batches.put(&honest(0)).unwrap();
    let mined = world.play(40, 9, |mined| mined.contains(&TxRole::Claim(0)));
    assert!(!mined.contains(&TxRole::OptimisticAcceptance(0)), "what is left open is the backup's to finish");
    // The operator is not seen again. Somebody proves the next batches.
    (1..3).for_each(|batch| batches.put(&honest(batch)).unwrap());

    backup.play(80, 7, || backup.report().is_some());
    let mined = world.mined();
    for role in [TxRole::ClaimTimeout(1), TxRole::OptimisticAcceptance(0)] {
        assert!(mined.contains(&role), "{role} of {mined:?}");
    }
    let place = |claim| Place { place: 0, epoch: 0, claim };
    let report = backup.report().unwrap();
    assert_eq!((report.stopped_before, report.goes_on_at), (place(1), place(1)));
    let accepted = |claim: usize| {
        let now = backup.snapshot();
        now.epochs.get(1).is_some_and(|epoch| epoch.claims[claim].stage == Stage::Accepted)
    };
    let mut blocks = 0;
    backup.play(90, 7, || {
        blocks += 1;
        if blocks == 10 {
            // Without signatures there was nothing that it could claim with. Now it learns of them as it runs.
            assert_eq!(backup.snapshot().epochs.len(), 1);
            backup.have_signed();
            // A file of a lower place that is not right does not hide it.
            backup.move_behind_spoilt_files();
        }
        blocks > 10 && accepted(0) && accepted(1)
    });
    let now = backup.snapshot();
    let [first, second] = now.epochs.as_slice() else { panic!("{now:?}") };
    assert_eq!((first.claims[0].stage, first.claims[1].stage), (Stage::Accepted, Stage::Unmade));
    assert_eq!(first.halted.map(|(claim, _)| claim), Some(1));
    assert_eq!((second.place, second.epoch, second.slashed), (2, 1, None));
    let published = publications(world.backend().as_ref(), [0, 1, 2]);
    assert_eq!(published, [1, 1, 1], "nobody pays again for the data of a claim that counts");

    // The operator comes back, first as it was started before there was another's policy, and finds that it has nothing to say.
    world.run_operator(world.words("operator"), 2).unwrap();
    backup.play_operator(6);
    let now = backup.snapshot();
    assert!(accepted(0) && accepted(1) && now.epochs.iter().all(|epoch| epoch.slashed.is_none()), "{now:?}");
}

#[test]
fn a_backup_whose_watch_and_operator_would_share_a_wallet_is_refused() {
    let world = World::new();
    let backup = Backup::new(&world);
    let error = backup.open_with("successor.secret").unwrap_err().to_string();
    assert!(error.contains("may not share a wallet"), "{error}");
    backup.open_with("backup.secret").unwrap();
}
