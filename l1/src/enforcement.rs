//! What the chain checks at this stage, in words for people.

/// Plain text for the README and the report: which checks Bitcoin enforces, which this program makes off chain, and which
/// nobody makes yet.
#[must_use]
pub fn enforcement_summary() -> &'static str {
    "\
Enforced by Bitcoin consensus, in the claim's script:
  - each claim spends the connector of the one before it, as claim n only with claim n's one-time keys: no claim twice;
  - the operator's Schnorr signature over the whole claim transaction;
  - the cadence: a relative time lock since the claim before;
  - a Winternitz one-time signature of each of the five values (previous root, new root, batch hash, code root, digest);
  - the signed code root is the epoch's, and the first claim of an epoch starts at the epoch's start commitment;
  - the collateral cannot move before its time lock ends.
Checked by this program before it signs, NOT by the chain:
  - a claim's previous root is the new root of the claim before it;
  - the digest is BLAKE3(previous root, new root, batch hash, code root) with its top 3 bits cleared;
  - a one-time key signs one value only (a record on disk refuses a second one).
NOT enforced by anyone on the chain yet:
  - that the Groth16 proof verifies: it is published beside the claim, and readers verify it off chain;
  - that the published batch data hashes to the batch hash;
  - that a claim's first output is the next connector, or that a Reconfiguration's outputs fit its terms: the operator can end the
    chain with any transaction;
  - challenges: nobody can dispute a claim, and the collateral cannot be slashed (after its time lock the operator
    alone can take it back; no command here does it yet);
  - the hand-over to another operator, and what happens when the operator stops.
"
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_readme_says_the_same() {
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let readme = words(include_str!("../README.md"));
        for part in super::enforcement_summary().split("\n  - ") {
            let (item, next_heading) = part.split_once(".\n").unwrap_or((part, ""));
            for text in [item, next_heading] {
                let text = words(text.trim_end_matches([':', '\n']));
                assert!(readme.contains(&text), "README.md does not say: {text}");
            }
        }
    }
}
