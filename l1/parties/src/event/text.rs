//! Alarms and refusals in words. `docs/operations.md` has a table of them, which a test holds to this file.

use std::fmt;

use super::{Alarm, Fault, FeeTrouble, Reject};
use crate::types::{ClaimId, ContractTx, EpochIndex};

impl Alarm {
    /// What happened and what people should do. `name` says how an epoch is called: see [`Contract::name`](crate::Contract::name).
    #[must_use]
    pub fn text(&self, name: impl Fn(EpochIndex) -> String) -> String {
        format!("{}. {}", self.what(name), self.advice())
    }

    fn what(&self, name: impl Fn(EpochIndex) -> String) -> String {
        let claim = |id: &ClaimId| id.text(&name(id.epoch));
        let tx = |id: &ContractTx| id.text(&name(id.epoch));
        match self {
            Self::Faulty(id, fault) => format!("{} {fault}", claim(id)),
            Self::Accepted(id) => format!("{} was accepted although it is wrong", claim(id)),
            Self::Undecided(id) => {
                format!("the time to challenge {} is nearly over, and it is not known to be right", claim(id))
            }
            Self::Slashed(epoch) => format!("the collateral of {} was slashed", name(*epoch)),
            Self::Halted(epoch) => format!("{} was ended by a timeout", name(*epoch)),
            Self::Batch(root) => {
                format!(
                    "batch {}… is not taken, because another one from the same state is",
                    hex::encode(root)
                )
            }
            Self::KeyUsed(id) => format!("a one-time key of {} has signed another value already", claim(id)),
            Self::Fee(id, trouble) => format!("{} cannot be paid for: {trouble}", tx(id)),
            Self::Refused(id) => format!("the node refuses {}, and more fees do not help", tx(id)),
            Self::Broken(id) => format!("{} is due and cannot be made", tx(id)),
            Self::Programs(root) => {
                format!("batch {}… was proved with other programs than the epoch's", hex::encode(root))
            }
        }
    }

    fn advice(&self) -> &'static str {
        match self {
            Self::Faulty(_, fault) if fault.on_chain() => {
                "Rely on no state from it on; see in `assay l1 watch` that its collateral is slashed"
            }
            Self::Faulty(..) => {
                "Rely on no state from it on; see in `assay l1 watch` that it is challenged. The chain cannot judge this yet: tell \
                 the other parties"
            }
            Self::Accepted(_) => {
                "The chain does not undo it: rely on no state from it on, and tell the other parties"
            }
            Self::Undecided(_) => {
                "It is not challenged without a verdict: see in the log above what is missing, and mend it now"
            }
            Self::Slashed(_) => {
                "Its operator makes no more claims: find out why, and have a backup ready for the timeout that follows"
            }
            Self::Halted(_) => "No more claims come in it: unless a backup takes over, the trunk ends here",
            Self::Batch(_) => "Find out who made a second history, and remove its file",
            Self::KeyUsed(_) => {
                "The epoch cannot go on: look for a second operator with the same secret or an old copy of wots.json, and let a \
                 backup take over after the timeout"
            }
            Self::Fee(_, FeeTrouble::Budget) => "Start the service with a higher --budget-sat",
            Self::Fee(_, FeeTrouble::Coin) => "Send coins to its fee address: `assay l1 keys` prints it",
            Self::Fee(_, FeeTrouble::Reward) => "It waits for lower fees: nothing to do but to watch it",
            Self::Fee(_, FeeTrouble::Overflow) => "The node's fee rates make no sense: look at the node",
            Self::Refused(_) => "The node's words are in the log above: look at the node, and report a bug if it is well",
            Self::Broken(_) => "The epoch's files or this program are wrong: report it, with both",
            Self::Programs(_) => {
                "It is not claimed there: prove it with the epoch's programs, or have an epoch signed under a policy that names its own"
            }
        }
    }
}

/// Without the epochs' numbers, which only a contract knows.
impl fmt::Display for Alarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text(|epoch| epoch.to_string()))
    }
}

/// What the claim does.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Digest => "signs a digest that is not of its values",
            Self::Link => "does not start where the claim before it ended",
            Self::CodeRoot => "signs another code root than the epoch's",
            Self::DataMissing => "has no data on the chain",
            Self::BatchHash => "signs another hash than that of its data on the chain",
            Self::NewRoot => "signs another state than executing its batch gives",
            Self::Proof => "has no proof on the chain that verifies",
            Self::ForcedDropped => "leaves out a forced transaction",
            Self::UnknownStart => "starts at a state that nobody can know",
        })
    }
}

impl fmt::Display for FeeTrouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Budget => "the budget is used up",
            Self::Coin => "no confirmed coin of the wallet is large enough",
            Self::Reward => "the reward is smaller than the fee",
            Self::Overflow => "the fee is beyond all money",
        })
    }
}

impl fmt::Display for Reject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fee { at_least } => write!(f, "it has to pay at least {at_least}"),
            Self::Conflict { at_least } => {
                write!(f, "another transaction spends the same, and to replace it takes {at_least}")
            }
            Self::Inputs => f.write_str("an input is not there, or spent"),
            Self::Other(words) => f.write_str(words),
        }
    }
}

#[cfg(test)]
mod tests {
    use assay_l1::graph::contract::build::TxRole;
    use bitcoin::Amount;

    use super::*;
    use crate::types::epoch_name;

    const CLAIM: ClaimId = ClaimId { epoch: EpochIndex(2), claim: 3 };

    fn faults() -> [Fault; 9] {
        use Fault::{
            BatchHash, CodeRoot, DataMissing, Digest, ForcedDropped, Link, NewRoot, Proof, UnknownStart,
        };
        [Digest, Link, CodeRoot, DataMissing, BatchHash, NewRoot, Proof, ForcedDropped, UnknownStart]
    }

    fn troubles() -> [FeeTrouble; 4] {
        [FeeTrouble::Budget, FeeTrouble::Coin, FeeTrouble::Reward, FeeTrouble::Overflow]
    }

    /// Every alarm that there is. A new one does not compile until it is in here.
    fn all() -> Vec<Alarm> {
        let id = CLAIM.tx(TxRole::Claim);
        let mut all = vec![
            Alarm::Accepted(CLAIM),
            Alarm::Undecided(CLAIM),
            Alarm::Slashed(CLAIM.epoch),
            Alarm::Halted(CLAIM.epoch),
            Alarm::Batch([7; 8]),
            Alarm::KeyUsed(CLAIM),
            Alarm::Refused(id),
            Alarm::Broken(id),
            Alarm::Programs([7; 8]),
        ];
        all.extend(faults().map(|fault| Alarm::Faulty(CLAIM, fault)));
        all.extend(troubles().map(|trouble| Alarm::Fee(id, trouble)));
        for alarm in &all {
            match alarm {
                Alarm::Faulty(..) | Alarm::Accepted(_) | Alarm::Undecided(_) | Alarm::Slashed(_) => {}
                Alarm::Halted(_) | Alarm::Batch(_) | Alarm::KeyUsed(_) | Alarm::Fee(..) => {}
                Alarm::Refused(_) | Alarm::Broken(_) | Alarm::Programs(_) => {}
            }
        }
        all
    }

    /// As a service says it: epoch 1, whose files are the third ones.
    fn said(alarm: Alarm) -> String {
        alarm.text(|place| epoch_name(1, place))
    }

    #[test]
    fn alarms_say_in_words_what_happened_and_what_to_do() {
        let claim = "claim 3 of epoch 1 (file 0002)";
        let id = CLAIM.tx(TxRole::Claim);
        let texts = [
            (
                Alarm::Faulty(CLAIM, Fault::Link),
                format!("{claim} does not start where the claim before it ended. Rely"),
            ),
            (
                Alarm::Faulty(CLAIM, Fault::Proof),
                format!("{claim} has no proof on the chain that verifies. Rely"),
            ),
            (Alarm::Accepted(CLAIM), format!("{claim} was accepted although it is wrong. The chain")),
            (Alarm::Undecided(CLAIM), format!("the time to challenge {claim} is nearly over, and it is")),
            (
                Alarm::Slashed(CLAIM.epoch),
                "the collateral of epoch 1 (file 0002) was slashed. Its".to_owned(),
            ),
            (Alarm::Halted(CLAIM.epoch), "epoch 1 (file 0002) was ended by a timeout. No".to_owned()),
            (Alarm::Batch([7; 8]), "batch 0707070707070707… is not taken, because".to_owned()),
            (
                Alarm::KeyUsed(CLAIM),
                format!("a one-time key of {claim} has signed another value already. The"),
            ),
            (
                Alarm::Fee(id, FeeTrouble::Budget),
                "Claim(3) of epoch 1 (file 0002) cannot be paid for: the budget is used up. Start".to_owned(),
            ),
            (Alarm::Refused(id), "the node refuses Claim(3) of epoch 1 (file 0002), and".to_owned()),
            (Alarm::Broken(id), "Claim(3) of epoch 1 (file 0002) is due and cannot be made. The".to_owned()),
            (Alarm::Programs([7; 8]), "batch 0707070707070707… was proved with other programs".to_owned()),
        ];
        for (alarm, expected) in texts {
            assert!(said(alarm).starts_with(&expected), "{}", said(alarm));
        }
    }

    #[test]
    fn every_alarm_is_one_line_without_words_of_the_program_and_no_two_are_the_same() {
        let texts: std::collections::BTreeSet<String> = all().into_iter().map(said).collect();
        assert_eq!(texts.len(), all().len());
        for text in texts {
            for internal in ["EpochIndex", "ClaimId", "ContractTx", "{", "\n", "  "] {
                assert!(!text.contains(internal), "{text}");
            }
        }
        // Where no contract is at hand, the files' place is called what it is.
        let bare = Alarm::Halted(EpochIndex(2)).to_string();
        assert!(bare.starts_with("epoch file 0002 was ended"), "{bare}");
    }

    #[test]
    fn refusals_say_what_it_takes() {
        let at_least = Amount::from_sat(1_200);
        assert_eq!(Reject::Fee { at_least }.to_string(), "it has to pay at least 0.00001200 BTC");
        assert!(Reject::Conflict { at_least }.to_string().ends_with("takes 0.00001200 BTC"));
        assert_eq!(Reject::Other("non-final".to_owned()).to_string(), "non-final");
    }

    #[test]
    fn the_table_in_the_operators_handbook_names_every_alarm() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/operations.md");
        let handbook = std::fs::read_to_string(path).unwrap();
        let has = |words: &str| {
            let mut rows = handbook.lines().filter(|line| line.starts_with('|'));
            assert!(rows.any(|row| row.contains(words)), "docs/operations.md has no row with: {words}");
        };
        for alarm in all() {
            match alarm {
                Alarm::Faulty(_, fault) => has(&format!("claim N of epoch E {fault}")),
                Alarm::Fee(_, trouble) => has(&trouble.to_string()),
                _ => {}
            }
            let general = alarm.what(|_| "epoch E".to_owned());
            let general = general.replace("claim 3", "claim N").replace("Claim(3)", "T");
            let general = general.replace("0707070707070707…", "B…");
            if !matches!(alarm, Alarm::Fee(..)) {
                has(&general);
            }
        }
        has("T of epoch E cannot be paid for: …");
    }
}
