//! Finds payloads that were stored for submissions which never reached the leader, and lets go of them.

use std::collections::BTreeSet;
use std::sync::Arc;

use assay_queue::{ArtifactStore, Hold, Holder, StoreError};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::names;

const PAGE: usize = 1024;
/// Leftovers that are remembered from one sweep to the next.
const SUSPECTS_MAX: usize = 4096;

/// What is remembered between sweeps.
#[derive(Default)]
pub(super) struct Sweeper {
    pub(super) last: Option<Instant>,
    pub(super) suspects: Arc<Mutex<BTreeSet<Holder>>>,
}

/// Releases payloads in `suspects` that are still not in `known`; returns those that are suspect now.
///
/// A payload is stored before its batch is known, so one sweep only suspects and the next one, minutes later, acts.
pub(super) async fn sweep(
    store: &dyn ArtifactStore,
    known: &BTreeSet<Holder>,
    suspects: &BTreeSet<Holder>,
) -> Result<BTreeSet<Holder>, StoreError> {
    let mut found = BTreeSet::new();
    let mut after: Option<Hold> = None;
    loop {
        let page = store.holds(after.as_ref(), PAGE).await?;
        let Some(last) = page.last().cloned() else { break };
        for hold in page {
            let is_payload = hold.holder.as_str().starts_with(names::INTAKE);
            if !is_payload || known.contains(&hold.holder) || found.len() >= SUSPECTS_MAX {
                continue;
            }
            if suspects.contains(&hold.holder) {
                tracing::info!(holder = %hold.holder, "releasing the payload of a submission that never arrived");
                store.release(&hold.holder).await?;
            } else {
                found.insert(hold.holder);
            }
        }
        after = Some(last);
    }
    Ok(found)
}
