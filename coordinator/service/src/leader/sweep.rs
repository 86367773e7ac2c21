//! Finds what nobody knows of, and lets go of it: payloads of submissions which never reached the leader, and what a
//! leader that died had still to let go of.

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

/// Releases holders of payloads and results in `suspects` that are still not in `known`; returns those that are suspect
/// now.
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
            let is_ours =
                [names::INTAKE, names::RESULT].iter().any(|kind| hold.holder.as_str().starts_with(kind));
            if !is_ours || known.contains(&hold.holder) || found.len() >= SUSPECTS_MAX {
                continue;
            }
            if suspects.contains(&hold.holder) {
                tracing::info!(holder = %hold.holder, "releasing what no batch needs");
                store.release(&hold.holder).await?;
            } else {
                found.insert(hold.holder);
            }
        }
        after = Some(last);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use assay_queue::{Durability, FolderStore, StoreLimits};

    use super::*;

    fn holders(names: &[&str]) -> BTreeSet<Holder> {
        names.iter().map(|name| Holder::new(*name).unwrap()).collect()
    }

    async fn held(store: &FolderStore) -> BTreeSet<Holder> {
        store.holds(None, PAGE).await.unwrap().into_iter().map(|hold| hold.holder).collect()
    }

    #[tokio::test]
    async fn what_is_unknown_twice_is_released_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let store = FolderStore::open(folder.path(), StoreLimits::default(), Durability::Process).unwrap();
        let all = ["attempt/1/0", "intake/known", "intake/late", "intake/lost", "result/1", "result/2"];
        for holder in holders(&all) {
            store.put(&holder, holder.as_str().into()).await.unwrap();
        }
        let known = holders(&["intake/known", "result/2"]);
        let suspects = sweep(&store, &known, &BTreeSet::new()).await.unwrap();
        assert_eq!(suspects, holders(&["intake/late", "intake/lost", "result/1"]));
        assert_eq!(held(&store).await, holders(&all), "a first look releases nothing");
        let known = holders(&["intake/known", "intake/late", "result/2"]);
        assert_eq!(sweep(&store, &known, &suspects).await.unwrap(), BTreeSet::new());
        assert_eq!(held(&store).await, holders(&["attempt/1/0", "intake/known", "intake/late", "result/2"]));
    }
}
