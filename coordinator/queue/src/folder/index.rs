//! Who holds what in the folder store. The Lua scripts of the shared store decide the same.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::limits::StoreLimits;
use crate::store::{Artifact, Freed, Hold, Stat, Usage};
use crate::types::Holder;
use crate::StoreError;

type Key = [u8; 32];

/// All holds, what is held, and who is fenced.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Index {
    artifacts: BTreeMap<Key, Entry>,
    /// By holder.
    holds: BTreeSet<(String, Key)>,
    fences: HashSet<String>,
    /// The fences by age, with seconds since the Unix epoch.
    fence_times: VecDeque<(u64, String)>,
    bytes: u64,
    #[serde(skip)]
    reserved: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Entry {
    bytes: u64,
    holders: u64,
    #[serde(skip)]
    is_damaged: bool,
}

/// A change that was found to be valid.
#[derive(Serialize, Deserialize)]
pub(super) enum Change {
    Snapshot(Index),
    Hold { holder: Holder, hash: Key, bytes: u64 },
    Release { holder: Holder },
    Revoke { holder: Holder, now: u64, fences_max: u64, fence_seconds: u64 },
}

impl Change {
    pub(super) fn revoke(holder: &Holder, now: Duration, limits: &StoreLimits) -> Self {
        Self::Revoke {
            holder: holder.clone(),
            now: now.as_secs(),
            fences_max: limits.fences_max,
            fence_seconds: limits.fence_time.as_secs(),
        }
    }
}

impl Index {
    pub(super) fn check_fence(&self, holder: &Holder) -> Result<(), StoreError> {
        if holder.lineage().any(|name| self.fences.contains(name)) {
            return Err(StoreError::Revoked { holder: holder.clone() });
        }
        Ok(())
    }

    /// The artifact, if its bytes need not be stored again.
    pub(super) fn find(&self, hash: &blake3::Hash) -> Option<Artifact> {
        let entry = self.artifacts.get(hash.as_bytes()).filter(|entry| !entry.is_damaged)?;
        Some(Artifact { hash: *hash, bytes: entry.bytes })
    }

    pub(super) fn contains(&self, hash: &blake3::Hash) -> bool {
        self.artifacts.contains_key(hash.as_bytes())
    }

    /// Sets room aside for bytes that are being published.
    pub(super) fn reserve(
        &mut self,
        limits: &StoreLimits,
        hash: &blake3::Hash,
        bytes: u64,
    ) -> Result<(), StoreError> {
        let new = if self.contains(hash) { 0 } else { bytes };
        if self.bytes + self.reserved + new > limits.bytes_max {
            let reason =
                format!("{} of {} bytes are used, {bytes} more do not fit", self.bytes, limits.bytes_max);
            return Err(StoreError::Full { reason });
        }
        self.reserved += bytes;
        Ok(())
    }

    pub(super) fn unreserve(&mut self, bytes: u64) {
        self.reserved = self.reserved.saturating_sub(bytes);
    }

    pub(super) fn set_damaged(&mut self, hash: &blake3::Hash, is_damaged: bool) {
        if let Some(entry) = self.artifacts.get_mut(hash.as_bytes()) {
            entry.is_damaged = is_damaged;
        }
    }

    pub(super) fn is_held_by(&self, holder: &Holder, hash: &blake3::Hash) -> bool {
        self.holds.contains(&(holder.to_string(), *hash.as_bytes()))
    }

    pub(super) fn stat(&self, hash: &blake3::Hash) -> Option<Stat> {
        let entry = self.artifacts.get(hash.as_bytes())?;
        Some(Stat { bytes: entry.bytes, holders: entry.holders, is_damaged: entry.is_damaged })
    }

    pub(super) fn artifacts(&self) -> Vec<Artifact> {
        let artifact =
            |(key, entry): (&Key, &Entry)| Artifact { hash: blake3::Hash::from(*key), bytes: entry.bytes };
        self.artifacts.iter().map(artifact).collect()
    }

    pub(super) fn holds(&self, after: Option<&Hold>, max: usize) -> Vec<Hold> {
        let hold = |(holder, key): &(String, Key)| {
            let holder = Holder::new(holder.as_str()).ok()?;
            Some(Hold { holder, hash: blake3::Hash::from(*key).to_hex().to_string() })
        };
        let start = after.map_or(String::new(), |after| after.holder.to_string());
        let holds = self.holds.range((start, [0; 32])..).filter_map(hold);
        holds.filter(|hold| after.is_none_or(|after| hold > after)).take(max).collect()
    }

    pub(super) fn usage(&self, limits: &StoreLimits) -> Usage {
        Usage {
            artifacts: self.artifacts.len() as u64,
            bytes: self.bytes,
            reserved_bytes: self.reserved,
            bytes_max: limits.bytes_max,
            holds: self.holds.len() as u64,
            fences: self.fences.len() as u64,
        }
    }

    /// Whether releasing `holder` changes anything.
    pub(super) fn holds_anything(&self, holder: &Holder) -> bool {
        !self.covered(holder).is_empty()
    }

    /// Carries a valid change out; returns what nobody holds any more.
    pub(super) fn apply(&mut self, change: Change) -> (Freed, Vec<blake3::Hash>) {
        match change {
            Change::Snapshot(index) => *self = index,
            Change::Hold { holder, hash, bytes } => {
                let entry = self.artifacts.entry(hash).or_insert_with(|| {
                    self.bytes += bytes;
                    Entry { bytes, holders: 0, is_damaged: false }
                });
                if self.holds.insert((holder.into(), hash)) {
                    entry.holders += 1;
                }
            }
            Change::Release { holder } => return self.release(&holder),
            Change::Revoke { holder, now, fences_max, fence_seconds } => {
                self.fence(&holder, now, fences_max, fence_seconds);
                return self.release(&holder);
            }
        }
        Default::default()
    }

    fn fence(&mut self, holder: &Holder, now: u64, fences_max: u64, fence_seconds: u64) {
        if self.fences.insert(holder.to_string()) {
            self.fence_times.push_back((now, holder.to_string()));
        }
        let is_over = |at: u64| at.saturating_add(fence_seconds) < now;
        while self
            .fence_times
            .front()
            .is_some_and(|(at, _)| is_over(*at) || self.fences.len() as u64 > fences_max)
        {
            let Some((_, oldest)) = self.fence_times.pop_front() else { break };
            self.fences.remove(&oldest);
        }
    }

    /// The holds that releasing `holder` ends.
    fn covered(&self, holder: &Holder) -> Vec<(String, Key)> {
        let own = (holder.to_string(), [0; 32])..=(holder.to_string(), [0xff; 32]);
        // '0' follows '/'.
        let below = (format!("{holder}/"), [0; 32])..(format!("{holder}0"), [0; 32]);
        self.holds.range(own).chain(self.holds.range(below)).cloned().collect()
    }

    fn release(&mut self, holder: &Holder) -> (Freed, Vec<blake3::Hash>) {
        let (mut freed, mut gone) = (Freed::default(), Vec::new());
        for hold in self.covered(holder) {
            self.holds.remove(&hold);
            freed.holds += 1;
            let Some(entry) = self.artifacts.get_mut(&hold.1) else { continue };
            entry.holders = entry.holders.saturating_sub(1);
            if entry.holders == 0 {
                freed.artifacts += 1;
                freed.bytes += entry.bytes;
                self.bytes -= entry.bytes;
                self.artifacts.remove(&hold.1);
                gone.push(blake3::Hash::from(hold.1));
            }
        }
        (freed, gone)
    }
}
