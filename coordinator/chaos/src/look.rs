//! Looks at the cluster from outside, past all proxies: the stored state, the store, the settlements.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use assay_agent::bundle::Bundle;
use assay_queue::{ArtifactStore as _, Stored, TaskQueue as _};
use assay_schedule::{BatchId, Phase, WorkerId};
use assay_service::state::{decode_record, History, Span, State, RECEIPTS_FILE};

use crate::cheap::Posted;
use crate::check::{Attempt, Known};
use crate::cluster::Cluster;
use crate::error::ChaosError;
use crate::faults::all_holds;
use crate::process::worker_key;
use crate::weak::objects;

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(200);
/// Leaks that are told one by one.
const LEAKS_MAX: usize = 10;

/// What is left to do.
struct Left {
    state: Result<State, String>,
    /// What has not ended.
    open: Vec<u64>,
    leaks: Vec<String>,
}

/// Waits until all batches have ended and nothing is left over, or patience ends; returns the state then, and what was left
/// over.
pub(crate) async fn wait_for_end(
    cluster: &Cluster,
    batches: &[u64],
    patience: Duration,
    tell: &(dyn Fn(&str) + Sync),
) -> Result<(Result<State, String>, Vec<String>), ChaosError> {
    let begun = Instant::now();
    let mut told = 0;
    loop {
        cluster.supervise()?;
        let left = look(cluster, batches).await;
        let is_clean = left.state.is_ok() && left.open.is_empty() && left.leaks.is_empty();
        if is_clean || begun.elapsed() > patience {
            return Ok((left.state, left.leaks));
        }
        if begun.elapsed().as_secs() / 5 > told {
            told = begun.elapsed().as_secs() / 5;
            tell(&format!(
                "waiting for {} batches to end, {} things to be deleted",
                left.open.len(),
                left.leaks.len()
            ));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn look(cluster: &Cluster, batches: &[u64]) -> Left {
    let state = load(cluster).await;
    let Ok(known) = &state else {
        return Left { state, open: batches.to_vec(), leaks: Vec::new() };
    };
    let has_ended = |number: &u64| known.history(BatchId(*number)).is_some_and(|h| h.ended.is_some());
    let open = batches.iter().filter(|number| !has_ended(number)).copied().collect();
    let leaks = leaks(cluster, known).await;
    Left { state, open, leaks }
}

/// The stored state: the last checkpoint and what was committed since.
pub(crate) async fn load(cluster: &Cluster) -> Result<State, String> {
    let stored = cluster.queue.load().await.map_err(|error| error.to_string())?;
    restore(&stored)
}

fn restore(stored: &Stored) -> Result<State, String> {
    let bytes = stored.checkpoint.as_ref().ok_or("there is no state")?;
    let mut state = State::decode(bytes).map_err(|error| error.to_string())?;
    for bytes in &stored.records {
        let record = decode_record(bytes).map_err(|error| error.to_string())?;
        state.apply(&record).map_err(|error| format!("a committed record is refused: {error}"))?;
    }
    state.machine().check().map_err(|error| format!("the state is inconsistent: {error}"))?;
    Ok(state)
}

/// What the store holds, or the schedule believes it holds, beyond results.
async fn leaks(cluster: &Cluster, state: &State) -> Vec<String> {
    let mut leaks = Vec::new();
    let results: BTreeSet<String> = state.histories().map(|(batch, _)| format!("result/{batch}")).collect();
    let artifacts: BTreeMap<String, _> =
        state.machine().artifacts().map(|artifact| (artifact.holder.to_string(), artifact.hash)).collect();
    let (mut settled, mut chains) = (0, BTreeSet::new());
    for (_, history) in state.histories().filter(|(_, history)| history.phase == Phase::Settled) {
        settled += 1;
        chains.insert(history.spec.chain);
    }
    // The proofs, and of each rollup the last fold proof.
    let expected = settled + chains.len();
    if artifacts.len() > expected {
        leaks.push(format!("the schedule keeps {} artifacts of {settled} settled batches", artifacts.len()));
    }
    match all_holds(cluster).await {
        Ok(holds) => {
            let others = holds.into_iter().filter(|hold| {
                let holder = hold.holder.as_str();
                let is_kept = artifacts.get(holder).is_some_and(|hash| hash.to_string() == hold.hash);
                !is_kept && !results.contains(holder)
            });
            leaks.extend(others.map(|hold| format!("{} still holds {}", hold.holder, hold.hash)));
        }
        Err(error) => leaks.push(format!("the store cannot be looked at: {error}")),
    }
    if state.machine().pending().next().is_some() {
        leaks.push("work of the coordinator is outstanding".into());
    }
    if let Some(batch) = state.unbundled().next() {
        leaks.push(format!("the receipts of batch {batch} are not bundled"));
    }
    leaks.truncate(LEAKS_MAX);
    leaks
}

/// After all processes have ended: files that nobody knows of, also after a sweep.
pub(crate) async fn leaked_files(cluster: &Cluster) -> Vec<String> {
    let looked = async {
        cluster.store.sweep(Duration::ZERO).await?;
        all_holds(cluster).await
    };
    let holds = match looked.await {
        Ok(holds) => holds,
        Err(error) => return vec![format!("the store cannot be swept: {error}")],
    };
    let known: BTreeSet<String> = holds.into_iter().map(|hold| hold.hash).collect();
    let mut seen = BTreeSet::new();
    let files = objects(&cluster.store_dir()).into_iter();
    let leaked =
        files.filter(|(hash, _)| !known.contains(hash.to_hex().as_str()) || !seen.insert(*hash.as_bytes()));
    leaked.map(|(_, path)| format!("nobody knows of {}", path.display())).take(LEAKS_MAX).collect()
}

/// What was settled.
pub(crate) fn posted(cluster: &Cluster) -> Result<Vec<Posted>, ChaosError> {
    let dir = cluster.dir.join("posted");
    let mut posted = Vec::new();
    for entry in std::fs::read_dir(&dir).map_err(ChaosError::file("read", &dir))?.flatten() {
        // A coordinator that was killed leaves a temporary file.
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        let path = entry.path();
        let bytes = std::fs::read(&path).map_err(ChaosError::file("read", &path))?;
        posted.push(serde_json::from_slice(&bytes).map_err(|error| ChaosError::look("settlements", error))?);
    }
    Ok(posted)
}

/// What the cluster knows of its batches.
pub(crate) async fn known(cluster: &Cluster, state: &State, workers: u32, patience: Duration) -> Vec<Known> {
    let workers: BTreeMap<WorkerId, u32> =
        (0..workers).map(|number| (worker_key(number).worker(), number)).collect();
    let mut known = Vec::new();
    for (batch, history) in state.histories() {
        let bundle = bundle(cluster, history).await;
        let is_settled = history.phase == Phase::Settled;
        known.push(Known {
            number: batch.0,
            chain: history.spec.chain.0,
            sequence: history.spec.sequence,
            phase: history.phase.clone(),
            attempts: history
                .spans
                .iter()
                .map(|span| attempt(cluster, span, &workers, bundle.as_ref().ok().and_then(Option::as_ref)))
                .collect(),
            receipts: bundle.map(drop),
            proof: match is_settled {
                true => Some(cluster.client.proof(batch.0, patience).await),
                false => None,
            },
        });
    }
    known
}

async fn bundle(cluster: &Cluster, history: &History) -> Result<Option<Bundle>, String> {
    let Some(file) = history.files.iter().find(|file| file.name == RECEIPTS_FILE) else { return Ok(None) };
    let bytes = cluster.store.get(&blake3::Hash::from_bytes(file.hash.0)).await;
    let bytes = bytes.map_err(|error| error.to_string())?;
    Bundle::from_file(&bytes).map(Some).map_err(|error| error.to_string())
}

fn attempt(
    cluster: &Cluster,
    span: &Span,
    workers: &BTreeMap<WorkerId, u32>,
    bundle: Option<&Bundle>,
) -> Attempt {
    use assay_agent::fake::Fault;
    let worker = workers.get(&span.worker).copied();
    let drawn = cluster.wrong.zip(worker).and_then(|(wrong, n)| wrong.faults(n).draw(span.attempt.0));
    let signed = bundle.into_iter().flat_map(|bundle| &bundle.receipts);
    let receipt = signed.map(|signed| &signed.receipt).find(|receipt| receipt.attempt == span.attempt);
    let hashes = |contents: &[assay_agent::receipt::Content]| contents.iter().map(|one| one.hash.0).collect();
    Attempt {
        number: span.attempt,
        stage: span.stage,
        state: span.state,
        is_made_wrong: drawn == Some(Fault::Wrong),
        receipt: receipt.map(|receipt| (hashes(&receipt.inputs), hashes(&receipt.outputs))),
    }
}
