//! A trunk's state for people: a page for terminals, changes line by line elsewhere.

use std::collections::BTreeMap;
use std::fmt::Write;

use bitcoin::Amount;

use super::snapshot::{ClaimState, EpochState, Snapshot, Stage, Wait, WalletState};

/// Accepted claims of an epoch that a page shows.
const ACCEPTED_SHOWN: usize = 3;

/// Everything that matters now.
pub(super) fn page(now: &Snapshot) -> String {
    let mut page = format!("block {}\n", now.tip);
    for epoch in &now.epochs {
        // Writing to a string does not fail.
        let _ = writeln!(page, "\n{}: {}{}", epoch.name(), headline(epoch), waits(&epoch.next));
        for claim in shown(epoch) {
            let _ = writeln!(page, "  claim {:<4} {}{}", claim.claim, stage(claim), waits(&claim.next));
        }
    }
    if !now.wallets.is_empty() {
        page += "\nwallets\n";
    }
    for wallet in &now.wallets {
        let _ = writeln!(page, "  {:<10} {}", wallet.name, coins(wallet));
    }
    page += if now.alarms.is_empty() { "\nno alarms\n" } else { "\nALARMS\n" };
    for alarm in &now.alarms {
        let _ = writeln!(page, "  {alarm}");
    }
    page
}

/// What is different, one line each, with the height at which it was noticed.
pub(super) fn changes(before: Option<&Snapshot>, now: &Snapshot) -> String {
    let (old, new) = (before.map(facts).unwrap_or_default(), facts(now));
    let mut lines = String::new();
    let mut say = |line: &str| {
        let _ = writeln!(lines, "{} {line}", now.tip);
    };
    for (key, value) in &new {
        if old.get(key) != Some(value) {
            say(&format!("{key}: {value}"));
        }
    }
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        say(&format!("{key}: not in the chain any more"));
    }
    let known = before.map(|before| before.alarms.as_slice()).unwrap_or_default();
    for alarm in now.alarms.iter().filter(|alarm| !known.contains(alarm)) {
        say(&format!("ALARM {alarm}"));
    }
    for alarm in known.iter().filter(|alarm| !now.alarms.contains(alarm)) {
        say(&format!("over: {alarm}"));
    }
    lines
}

/// What lasts until something happens: no numbers that every block changes.
fn facts(now: &Snapshot) -> BTreeMap<String, String> {
    let mut facts = BTreeMap::new();
    for epoch in &now.epochs {
        let name = epoch.name();
        for claim in epoch.claims.iter().filter(|claim| claim.stage != Stage::Unmade) {
            facts.insert(format!("{name}, claim {:>4}", claim.claim), stage(claim));
        }
        facts.insert(name, headline(epoch));
    }
    for wallet in &now.wallets {
        facts.insert(format!("wallet {}", wallet.name), coins(wallet));
    }
    facts
}

fn headline(epoch: &EpochState) -> String {
    let made = epoch.claims.iter().filter(|claim| claim.stage != Stage::Unmade).count();
    let Some(opened) = epoch.opened else { return "not open".to_owned() };
    let mut text = format!("open since {opened}, {made} of {} claims", epoch.claims.len());
    let collateral = Amount::from_sat(epoch.collateral_sat);
    let _ = match (epoch.slashed, epoch.paid_out) {
        (Some((claim, height)), _) => write!(text, ", {collateral} SLASHED at {height} for claim {claim}"),
        (None, Some(height)) => write!(text, ", {collateral} paid back at {height}"),
        (None, None) => write!(text, ", {collateral} locked"),
    };
    if let Some((claim, height)) = epoch.halted {
        let _ = write!(text, ", ENDED at {height} before claim {claim}");
    }
    text
}

/// The last accepted claims, all that are open, and the next one.
fn shown(epoch: &EpochState) -> impl Iterator<Item = &ClaimState> {
    let accepted = epoch.claims.iter().filter(|claim| claim.stage == Stage::Accepted).count();
    let mut skip = accepted.saturating_sub(ACCEPTED_SHOWN);
    let mut unmade = 0;
    epoch.claims.iter().filter(move |claim| match claim.stage {
        Stage::Accepted if skip > 0 => {
            skip -= 1;
            false
        }
        Stage::Unmade => {
            unmade += 1;
            unmade == 1
        }
        _ => true,
    })
}

/// What has become of a claim, and when.
pub(in crate::service) fn stage(claim: &ClaimState) -> String {
    let stage = match claim.stage {
        Stage::Unmade => "to be made".to_owned(),
        Stage::Claimed => "claimed".to_owned(),
        Stage::Challenged => "CHALLENGED".to_owned(),
        Stage::Asserting { filled, of } => format!("the operator answers ({filled} of {of} parts)"),
        Stage::Asserted => "the operator has answered".to_owned(),
        Stage::Accepted => "accepted".to_owned(),
        Stage::Slashed => "SLASHED".to_owned(),
        Stage::Void => "VOID".to_owned(),
    };
    match claim.height {
        Some(height) => format!("{stage} at {height}"),
        None => stage,
    }
}

fn waits(waits: &[Wait]) -> String {
    let one = |wait: &Wait| match wait.blocks {
        0 => format!("{}: now", wait.what),
        blocks => format!("{}: in {blocks} blocks", wait.what),
    };
    let all: Vec<String> = waits.iter().map(one).collect();
    if all.is_empty() {
        String::new()
    } else {
        format!("; {}", all.join(", "))
    }
}

fn coins(wallet: &WalletState) -> String {
    format!("{} coins, {}", wallet.coins, Amount::from_sat(wallet.sat))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(claim: u32, stage: Stage, next: Vec<Wait>) -> ClaimState {
        let height = (stage != Stage::Unmade).then_some(100 + claim);
        ClaimState { claim, stage, height, next }
    }

    fn snapshot() -> Snapshot {
        let wait = |what, blocks| Wait { what, blocks };
        let mut claims: Vec<_> = (0..5).map(|number| claim(number, Stage::Accepted, Vec::new())).collect();
        claims.push(claim(5, Stage::Claimed, vec![wait("acceptance", 7)]));
        claims.push(claim(6, Stage::Unmade, vec![wait("claim", 0)]));
        claims.push(claim(7, Stage::Unmade, Vec::new()));
        let epoch = EpochState {
            place: 0,
            epoch: 0,
            opened: Some(99),
            collateral_sat: 1_000_000,
            slashed: None,
            halted: None,
            paid_out: None,
            next: vec![wait("collateral back", 60)],
            claims,
        };
        let wallets = vec![WalletState { name: "fees".to_owned(), coins: 8, sat: 3_200_000 }];
        Snapshot { tip: 106, epochs: vec![epoch], wallets, alarms: Vec::new() }
    }

    #[test]
    fn a_page_shows_what_is_open_and_what_is_next() {
        let page = page(&snapshot());
        let expected = "\
block 106

epoch 0 (file 0000): open since 99, 6 of 8 claims, 0.01000000 BTC locked; collateral back: in 60 blocks
  claim 2    accepted at 102
  claim 3    accepted at 103
  claim 4    accepted at 104
  claim 5    claimed at 105; acceptance: in 7 blocks
  claim 6    to be made; claim: now

wallets
  fees       8 coins, 0.03200000 BTC

no alarms
";
        assert_eq!(page, expected);
    }

    #[test]
    fn only_what_changed_is_said_and_counting_down_is_no_change() {
        let before = snapshot();
        let mut now = snapshot();
        now.tip += 1;
        now.epochs[0].claims[5].next[0].blocks -= 1;
        assert_eq!(changes(Some(&before), &now), "");
        now.epochs[0].claims[5] = claim(5, Stage::Challenged, Vec::new());
        now.alarms.push("look".to_owned());
        let expected = "107 epoch 0 (file 0000), claim    5: CHALLENGED at 105\n107 ALARM look\n";
        assert_eq!(changes(Some(&before), &now), expected);
        // A reorganisation takes the claim away.
        let lines = changes(Some(&now), &{
            let mut gone = now.clone();
            gone.epochs[0].claims[5] = claim(5, Stage::Unmade, Vec::new());
            gone.alarms.clear();
            gone
        });
        assert!(
            lines.contains("claim    5: not in the chain any more\n") && lines.contains("over: look\n"),
            "{lines}"
        );
        assert!(changes(None, &before).lines().count() >= 7);
    }
}
