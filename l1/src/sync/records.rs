//! Where the trunk's envelopes are, until a claim needs them.

use std::collections::{BTreeMap, VecDeque};

use bitcoin::secp256k1::XOnlyPublicKey;
use bitcoin::{BlockHash, Txid};
use serde::{Deserialize, Serialize};

use crate::envelope::message::Message;
use crate::envelope::pack::{unpack, Aggregate};
use crate::envelope::{Envelope, EnvelopeError, Kind};
use crate::graph::terms::EpochTerms;

/// Most envelopes whose places are kept, about 200 bytes each.
pub const RECORDS_MAX: usize = 65_536;
/// Most lists of chunks among them, up to 20 kB each.
const AGGREGATES_MAX: usize = 1_024;
/// Most terms kept.
const TERMS_MAX: usize = 256;

/// Where an envelope is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Place {
    pub(super) height: u32,
    pub(super) block: BlockHash,
    pub(super) txid: Txid,
    pub(super) vin: u32,
}

/// What an envelope holds, as far as it can be told without its body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum Content {
    Batch {
        epoch: u32,
        claim: u32,
    },
    ClaimData {
        epoch: u32,
        claim: u32,
    },
    /// A list of chunks (hashes in hexadecimal), of a message whose claim only its body tells.
    Aggregate {
        is_batch: bool,
        chunks: Vec<String>,
    },
    Chunk {
        hash: String,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    pub(super) place: Place,
    pub(super) author: XOnlyPublicKey,
    pub(super) content: Content,
}

/// Published terms of an epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TermsRecord {
    pub(super) author: XOnlyPublicKey,
    /// The transaction that the reveal spends.
    pub(super) funded_by: Txid,
    /// Encoded, hexadecimal.
    pub(super) terms: String,
}

/// A message's envelopes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum Source {
    Single(Place),
    /// The list, and the chunks that were found, in its order.
    Joined {
        list: Place,
        chunks: Vec<(String, Option<Place>)>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Records {
    envelopes: VecDeque<Record>,
    terms: VecDeque<TermsRecord>,
    /// True once the oldest envelopes had to be forgotten.
    pub(super) is_forgetful: bool,
}

impl Records {
    /// Remembers an envelope of `author`.
    ///
    /// # Errors
    /// Those of the message's decoders.
    pub(super) fn add(
        &mut self,
        (place, funded_by): (Place, Txid),
        author: XOnlyPublicKey,
        envelope: &Envelope,
    ) -> Result<(), EnvelopeError> {
        let content = match envelope.kind {
            Kind::Chunk => Content::Chunk { hash: hex::encode(blake3::hash(&envelope.stored).as_bytes()) },
            Kind::Aggregate => {
                let aggregate = Aggregate::decode(&envelope.stored)?;
                let is_batch = match aggregate.kind {
                    Kind::Batch => true,
                    Kind::ClaimData => false,
                    // Terms fit in one envelope.
                    _ => return Ok(()),
                };
                Content::Aggregate { is_batch, chunks: aggregate.chunks.iter().map(hex::encode).collect() }
            }
            // Messages to the rollup are another reader's.
            kind if kind.is_to_rollup() => return Ok(()),
            kind => match unpack(kind, envelope.codec, envelope.plain_len, &envelope.stored)? {
                Message::Batch { epoch, claim, .. } => Content::Batch { epoch, claim },
                Message::ClaimData { epoch, claim, .. } => Content::ClaimData { epoch, claim },
                Message::Epoch(terms) => {
                    self.add_terms(author, funded_by, &terms);
                    return Ok(());
                }
                Message::ToRollup(_) => return Ok(()),
            },
        };
        let is_list = |record: &Record| matches!(record.content, Content::Aggregate { .. });
        self.envelopes.push_back(Record { place, author, content });
        if self.envelopes.iter().filter(|record| is_list(record)).count() > AGGREGATES_MAX {
            let oldest = self.envelopes.iter().position(is_list);
            oldest.and_then(|oldest| self.envelopes.remove(oldest));
            self.is_forgetful = true;
        }
        if self.envelopes.len() > RECORDS_MAX {
            self.envelopes.pop_front();
            self.is_forgetful = true;
        }
        Ok(())
    }

    fn add_terms(&mut self, author: XOnlyPublicKey, funded_by: Txid, terms: &EpochTerms) {
        self.terms.push_back(TermsRecord { author, funded_by, terms: hex::encode(terms.encode()) });
        if self.terms.len() > TERMS_MAX {
            self.terms.pop_front();
            self.is_forgetful = true;
        }
    }

    /// Published terms with this id.
    pub(super) fn terms(&self, id: &[u8; 32]) -> Option<EpochTerms> {
        let decode = |record: &TermsRecord| EpochTerms::decode(&hex::decode(&record.terms).ok()?).ok();
        self.terms.iter().filter_map(decode).find(|terms| terms.id() == *id)
    }

    /// Author of these terms in an envelope that `funding` paid for.
    pub(super) fn author_of(&self, terms: &EpochTerms, funding: &Txid) -> Option<XOnlyPublicKey> {
        let encoded = hex::encode(terms.encode());
        let mut fitting = self.terms.iter().filter(|record| record.terms == encoded);
        fitting.find(|record| record.funded_by == *funding).map(|record| record.author)
    }

    /// Forgets all other authors' envelopes; returns how many each had.
    pub(super) fn keep_author(&mut self, author: &XOnlyPublicKey) -> BTreeMap<XOnlyPublicKey, u32> {
        let mut foreign = BTreeMap::new();
        for other in self.envelopes.iter().map(|record| record.author).filter(|other| other != author) {
            *foreign.entry(other).or_insert(0) += 1;
        }
        self.envelopes.retain(|record| record.author == *author);
        self.terms.retain(|record| record.author == *author);
        foreign
    }

    /// What may hold the data of a claim: batches, and claim data; among them every message in chunks, whose claim only its body
    /// tells.
    pub(super) fn sources(&self, epoch: u32, claim: u32) -> (Vec<Source>, Vec<Source>) {
        let of_claim = (epoch, claim);
        let mut found: BTreeMap<(XOnlyPublicKey, &str), Place> = BTreeMap::new();
        for record in &self.envelopes {
            if let Content::Chunk { hash } = &record.content {
                found.entry((record.author, hash.as_str())).or_insert(record.place);
            }
        }
        let (mut batches, mut data) = (Vec::new(), Vec::new());
        for record in &self.envelopes {
            match &record.content {
                Content::Batch { epoch, claim } if (*epoch, *claim) == of_claim => {
                    batches.push(Source::Single(record.place));
                }
                Content::ClaimData { epoch, claim } if (*epoch, *claim) == of_claim => {
                    data.push(Source::Single(record.place));
                }
                Content::Aggregate { is_batch, chunks } => {
                    let place = |hash: &String| found.get(&(record.author, hash.as_str())).copied();
                    let chunks = chunks.iter().map(|hash| (hash.clone(), place(hash))).collect();
                    let joined = Source::Joined { list: record.place, chunks };
                    let list = if *is_batch { &mut batches } else { &mut data };
                    list.push(joined);
                }
                _ => {}
            }
        }
        (batches, data)
    }

    /// Forgets what `claim` has used: the envelopes at `places`, and those of claims up to it.
    pub(super) fn consumed(&mut self, places: &[Place], claim: (u32, u32)) {
        self.envelopes.retain(|record| match &record.content {
            Content::Batch { epoch, claim: number } | Content::ClaimData { epoch, claim: number } => {
                (*epoch, *number) > claim
            }
            _ => !places.contains(&record.place),
        });
    }
}
