//! What an epoch of the contract is about: everything two parties must agree on to get the same graph.

use std::ops::Range;

use bitcoin::consensus::encode::serialize;
use bitcoin::secp256k1::XOnlyPublicKey;
use bitcoin::{Amount, OutPoint};

use crate::graph::connector::CONNECTOR_VALUE;
use crate::graph::terms::{EpochTerms, TermsError};

/// One-time signatures of 32-byte values in one assert slot, at most: 6 fit in a version 3 transaction (10,000 vB).
pub const SLOT_WORDS_MAX: u16 = 6;
/// One-time signatures of 16-byte values in one assert slot, at most.
pub const SLOT_HASHES_MAX: u16 = 11;
/// Assert slots, at most: Acceptance spends all of them and must stay below 10,000 vB.
pub const SLOTS_MAX: usize = 90;
/// First bytes of the OP_RETURN of a contract's Reconfiguration.
pub const CONTRACT_MARK: [u8; 5] = *b"ASSY\x02";
const VERSION: u8 = 2;

/// Relative time locks of the game, in blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GameLocks {
    /// After a claim: time to challenge it.
    pub challenge_blocks: u16,
    /// After a challenge: time to open the assertion; after that, time to fill its slots.
    pub assert_blocks: u16,
    /// After the last slot: time to disprove.
    pub disprove_blocks: u16,
    /// After a claim: time to make the next one.
    pub claim_timeout_blocks: u16,
    /// After which an output that nobody spent belongs to the sink. Longer than everything else.
    pub sink_blocks: u16,
    /// After a ClaimTimeout: time for users to leave, before another operator may go on under terms that nobody announced.
    pub handover_blocks: u16,
}

impl GameLocks {
    /// Short locks for regtest.
    pub const REGTEST: Self = Self {
        challenge_blocks: 10,
        assert_blocks: 6,
        disprove_blocks: 8,
        claim_timeout_blocks: 4,
        sink_blocks: 200,
        handover_blocks: 5,
    };
    /// Locks for the main chain.
    pub const MAINNET: Self = Self {
        challenge_blocks: 1_008,
        assert_blocks: 432,
        disprove_blocks: 720,
        claim_timeout_blocks: 288,
        sink_blocks: 65_000,
        handover_blocks: 1_008,
    };

    /// Blocks from the confirmation of a claim to the end of the longest game about it, without delays of the operator's
    /// transactions: challenge, opening the assertion, filling it, disproving.
    #[must_use]
    pub fn game_blocks(&self) -> u32 {
        u32::from(self.challenge_blocks) + 2 * u32::from(self.assert_blocks) + u32::from(self.disprove_blocks)
    }
}

/// How many values an assertion has: the results of the steps of the chunked verifier, as measured 15 values of 32 bytes and 363
/// hashes, in 36 slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AssertLayout {
    /// Values of 32 bytes.
    pub words: u16,
    /// Values of 16 bytes.
    pub hashes: u16,
}

/// The values of one slot, as ranges of indices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// Values of 32 bytes.
    pub words: Range<u16>,
    /// Values of 16 bytes.
    pub hashes: Range<u16>,
}

impl AssertLayout {
    /// The slots: first those with words, then those with hashes.
    #[must_use]
    pub fn slots(&self) -> Vec<Slot> {
        let cut = |count: u16, most: u16| {
            (0..count.div_ceil(most)).map(move |index| index * most..((index + 1) * most).min(count))
        };
        let words = cut(self.words, SLOT_WORDS_MAX).map(|words| Slot { words, hashes: 0..0 });
        let hashes = cut(self.hashes, SLOT_HASHES_MAX).map(|hashes| Slot { words: 0..0, hashes });
        words.chain(hashes).collect()
    }
}

/// An epoch of the contract.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContractSpec {
    /// Operator, roots, cadence, number of claims, collateral and its lock, commitment to the claims' one-time keys.
    pub terms: EpochTerms,
    /// The attesters' aggregated key (n of n), deleted once the epoch's graph is signed.
    pub attesters: XOnlyPublicKey,
    /// The attesters' aggregated key for a hand-over (n of n). It outlives the signing, and all it can spend is the
    /// connector that a ClaimTimeout left, because nobody knows in advance after which claim an operator stops.
    pub recovery: XOnlyPublicKey,
    /// Owner of what nobody claimed in time, and of the sink's part of a slash.
    pub sink: XOnlyPublicKey,
    /// Time locks of the game.
    pub locks: GameLocks,
    /// What a challenge pays the operator; the rest of the operator's cost is its own.
    pub challenge_deposit: Amount,
    /// The sink's part of a slashed collateral; the rest is for whoever sends the slash, fee included.
    pub slashed_to_sink: Amount,
    /// Values of an assertion.
    pub layout: AssertLayout,
    /// Commitment to the one-time keys of the assertions.
    pub assert_key_commitment: [u8; 32],
    /// Which set of verifier leaves: [`VerifierLeaves::id`](super::scripts::VerifierLeaves::id).
    pub verifier_leaves: [u8; 32],
    /// The operator's coin that pays collateral and connectors; key path of the operator's key.
    pub funding: OutPoint,
}

impl ContractSpec {
    /// Checks the ranges that the contract's safety relies on.
    ///
    /// # Errors
    /// `Field` names the first one out of range.
    pub fn validate(&self) -> Result<(), TermsError> {
        self.terms.validate()?;
        let locks = &self.locks;
        let slots = self.layout.slots().len();
        let epoch_blocks = self.terms.claims_max.saturating_mul(u32::from(locks.claim_timeout_blocks));
        let games_end = epoch_blocks.saturating_add(locks.game_blocks());
        let blocks_max = u64::from(u16::MAX);
        for (field, blocks) in [
            ("challenge lock", locks.challenge_blocks),
            ("assert lock", locks.assert_blocks),
            ("disprove lock", locks.disprove_blocks),
        ] {
            TermsError::in_range(field, blocks, 1..=blocks_max, "blocks")?;
        }
        TermsError::above("claim timeout", locks.claim_timeout_blocks, self.terms.locks.cadence_blocks)?;
        // The collateral stays until the last claim that the epoch can have is beyond dispute.
        TermsError::above("collateral lock", self.terms.locks.collateral_blocks, games_end)?;
        TermsError::above("sink lock", locks.sink_blocks, self.terms.locks.collateral_blocks)?;
        let handover = 1..=u64::from(locks.sink_blocks).saturating_sub(1);
        TermsError::in_range("handover lock", locks.handover_blocks, handover, "blocks")?;
        // Later epochs start where the one before ended, which is not known when they are announced.
        let start = self.terms.params.start_commitment;
        TermsError::ensure(self.terms.epoch == 0 || start == [0; 32], "start commitment", || {
            (hex::encode(start), "zeros in every epoch but the first".to_owned())
        })?;
        let timeout = u32::from(locks.challenge_blocks) + u32::from(locks.assert_blocks);
        TermsError::in_range("challenge and assert lock together", timeout, 2..=blocks_max, "blocks")?;
        let (dust, collateral) = (CONNECTOR_VALUE.to_sat(), self.terms.collateral.to_sat());
        let deposit = self.challenge_deposit.to_sat();
        TermsError::in_range("challenge deposit", deposit, dust..=Amount::MAX_MONEY.to_sat(), "satoshi")?;
        let slashed = self.slashed_to_sink.to_sat();
        TermsError::in_range("slashed part", slashed, dust..=collateral.saturating_sub(1), "satoshi")?;
        TermsError::in_range("assert layout", slots as u64, 1..=SLOTS_MAX as u64, "slots")?;
        self.validate_keys()
    }

    /// The coin is one, and nobody has two of the roles.
    fn validate_keys(&self) -> Result<(), TermsError> {
        TermsError::ensure(!self.funding.is_null(), "funding coin", || {
            (self.funding.to_string(), "an output of a transaction".to_owned())
        })?;
        let operator = self.terms.operator_key;
        TermsError::ensure(self.attesters != operator, "attesters' key", || {
            (self.attesters.to_string(), "another key than the operator's".to_owned())
        })?;
        TermsError::ensure(![self.attesters, operator].contains(&self.recovery), "recovery key", || {
            (self.recovery.to_string(), "another key than the attesters' and the operator's".to_owned())
        })
    }

    /// Fixed-width encoding: version (1), the terms (213), attesters (32), recovery (32), sink (32), the six locks in the
    /// order of [`GameLocks`] (2 each), deposit (8), slashed part (8), words (2), hashes (2), commitment to the assert keys (32), verifier
    /// leaves (32), funding outpoint (36). Integers little endian.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let locks = &self.locks;
        let mut bytes = vec![VERSION];
        bytes.extend(self.terms.encode());
        bytes.extend(self.attesters.serialize());
        bytes.extend(self.recovery.serialize());
        bytes.extend(self.sink.serialize());
        for blocks in [
            locks.challenge_blocks,
            locks.assert_blocks,
            locks.disprove_blocks,
            locks.claim_timeout_blocks,
            locks.sink_blocks,
            locks.handover_blocks,
        ] {
            bytes.extend(blocks.to_le_bytes());
        }
        bytes.extend(self.challenge_deposit.to_sat().to_le_bytes());
        bytes.extend(self.slashed_to_sink.to_sat().to_le_bytes());
        bytes.extend(self.layout.words.to_le_bytes());
        bytes.extend(self.layout.hashes.to_le_bytes());
        bytes.extend(self.assert_key_commitment);
        bytes.extend(self.verifier_leaves);
        bytes.extend(serialize(&self.funding));
        bytes
    }

    /// BLAKE3 in key-derivation mode over the encoding: what Reconfigurations announce.
    #[must_use]
    pub fn id(&self) -> [u8; 32] {
        blake3::derive_key("assay l1 contract spec v2", &self.encode())
    }

    /// Value of each claim's game connector: it becomes the slots and the dispute connector.
    #[must_use]
    pub fn game_value(&self) -> Amount {
        CONNECTOR_VALUE * (self.layout.slots().len() as u64 + 1)
    }

    /// Value of the connector that claim `claim` spends; `claims_max` for the one after the last.
    #[must_use]
    pub fn connector_value(&self, claim: u32) -> Amount {
        let left = u64::from(self.terms.claims_max.saturating_sub(claim));
        CONNECTOR_VALUE + (CONNECTOR_VALUE + self.game_value()) * left
    }
}
