//! What is done with an attempt's files: fetched, run, published, sealed.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use assay_queue::{ArtifactStore, BackendError, StoreError};
use assay_schedule::{Artifact, Dispatch, Hash, Holder, Output, Report};
use tokio::sync::{mpsc, Semaphore};
use tracing::Instrument;

use super::work::Work;
use super::AgentConfig;
use crate::folder::{write_json, Folder, FolderError, Made, Sealed};
use crate::key::WorkerKey;
use crate::receipt::{Content, Outcome, Receipt};
use crate::runner::{Device, Failure, FromRunner, Host, Runner, Task};
use crate::state::{FetchError, PublishError};
use crate::wire;

/// What operations need.
pub(super) struct Tools {
    pub config: AgentConfig,
    pub store: Arc<dyn ArtifactStore>,
    pub runner: Arc<dyn Runner>,
    pub key: Arc<WorkerKey>,
    pub folder: Arc<Folder>,
    pub to_agent: mpsc::Sender<FromRunner>,
    pub transfers: Semaphore,
}

/// Runs something that blocks.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, FolderError> + Send + 'static,
) -> Result<T, String> {
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(error.to_string()),
        Err(error) => Err(error.to_string()),
    }
}

fn make_dir(path: &Path) -> Result<(), FolderError> {
    let io = |source: io::Error| FolderError::Io { action: "create", path: path.to_owned(), source };
    std::fs::create_dir_all(path).map_err(io)
}

/// Makes an empty folder, whatever was there.
fn fresh_dir(path: &Path) -> Result<(), FolderError> {
    match std::fs::remove_dir_all(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            return Err(FolderError::Io { action: "empty", path: path.to_owned(), source });
        }
        _ => {}
    }
    make_dir(path)
}

impl Tools {
    /// Brings a task's inputs to its folder.
    pub(super) async fn fetch(&self, work: &Work) -> Result<(), FetchError> {
        let (dir, dispatch) = (work.dir.clone(), work.dispatch.clone());
        let prepare = move || {
            make_dir(&dir.join("in"))?;
            write_json(&dir.join("task.json"), &*dispatch)
        };
        blocking(prepare).await.map_err(FetchError::Local)?;
        for (number, input) in (0..).zip(&work.dispatch.inputs) {
            self.get(work, &input.artifact, &input_path(work, number), number).await?;
        }
        Ok(())
    }

    /// Copies an artifact to a file. One that is there already was checked when it came.
    async fn get(
        &self,
        work: &Work,
        artifact: &Artifact,
        path: &Path,
        number: u32,
    ) -> Result<(), FetchError> {
        if std::fs::metadata(path).is_ok_and(|found| found.len() == artifact.bytes) {
            return Ok(());
        }
        let hash = blake3::Hash::from_bytes(artifact.hash.0);
        let transfer = async {
            let _permit = self.transfers.acquire().await;
            self.store.get_to_file(&hash, path).await
        };
        let got = tokio::select! {
            got = transfer => got,
            () = work.stopped() => return Err(FetchError::Stopped),
        };
        match got {
            Ok(bytes) if bytes == artifact.bytes => {
                work.use_up(|usage| usage.fetched_bytes = usage.fetched_bytes.saturating_add(bytes));
                Ok(())
            }
            Ok(bytes) => {
                tracing::warn!(%hash, bytes, expected = artifact.bytes, "an artifact of another size");
                Err(FetchError::Lost(number))
            }
            Err(error @ (StoreError::Missing { .. } | StoreError::Corrupt { .. })) => {
                tracing::warn!(attempt = %work.dispatch.attempt, %error, "an input is lost");
                Err(FetchError::Lost(number))
            }
            // The only thing that fills up by reading is the disk here.
            Err(error @ StoreError::Full { .. }) => Err(FetchError::Local(error.to_string())),
            Err(StoreError::Backend(BackendError::File(error))) if error.path.starts_with(&work.dir) => {
                Err(FetchError::Local(error.to_string()))
            }
            Err(error) => {
                tracing::warn!(attempt = %work.dispatch.attempt, %error, "the store does not give");
                work.use_up(|usage| usage.retries = usage.retries.saturating_add(1));
                Err(FetchError::Unavailable)
            }
        }
    }

    /// Runs a task whose inputs are there.
    pub(super) async fn run(&self, work: &Arc<Work>, device: Device) -> Result<(), Failure> {
        let dir = work.dir.join("run");
        let made = dir.clone();
        blocking(move || fresh_dir(&made)).await.map_err(Failure::Transient)?;
        let count = u32::try_from(work.dispatch.inputs.len()).unwrap_or(u32::MAX);
        let inputs = (0..count).map(|number| input_path(work, number)).collect();
        let task = Task { dispatch: work.dispatch.clone(), inputs, dir, device };
        let host = Host::new(work.dispatch.attempt, self.to_agent.clone(), work.stopper());
        work.set_device(self.config.model(device));
        let (runner, begun) = (self.runner.clone(), Instant::now());
        let Dispatch { attempt, batch, stage, .. } = &*work.dispatch;
        let span = tracing::info_span!("task", %attempt, %batch, ?stage);
        // A task of its own: a panic ends this attempt and nothing else.
        let ended = tokio::spawn(async move { runner.run(task, host).await }.instrument(span)).await;
        let wall_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        work.drop_parts();
        let ended = ended.map_err(|error| Failure::Transient(format!("the runner failed: {error}")))?;
        work.use_up(|usage| {
            let gpu_ms = match device {
                Device::Cpu => ended.used.gpu_ms.unwrap_or(0),
                Device::Gpu(_) => ended.used.gpu_ms.unwrap_or(wall_ms),
            };
            // It may have been begun before.
            usage.wall_ms = usage.wall_ms.saturating_add(wall_ms);
            usage.cpu_ms = usage.cpu_ms.saturating_add(ended.used.cpu_ms);
            usage.gpu_ms = usage.gpu_ms.saturating_add(gpu_ms);
            usage.memory_bytes_peak = usage.memory_bytes_peak.max(ended.used.memory_bytes_peak);
            let faults = ended.used.gpu_faults;
            usage.gpu_retries = usage.gpu_retries.saturating_add(faults.retries);
            usage.gpu_fallbacks = usage.gpu_fallbacks.saturating_add(faults.fallbacks);
        });
        let outputs = ended.result?;
        let outputs_max = work.dispatch.outputs_max;
        if outputs.len() > outputs_max as usize {
            let reason = format!("the task has {} outputs, at most {outputs_max} are allowed", outputs.len());
            return Err(Failure::Permanent(reason));
        }
        if let Some(missing) = outputs.iter().find(|file| !file.path.is_file()) {
            return Err(Failure::Transient(format!("{} was not made", missing.path.display())));
        }
        let made = Made { outputs: outputs.clone(), usage: work.usage(), device: work.device() };
        let path = work.dir.join("made.json");
        work.set_outputs(outputs);
        if let Err(error) = blocking(move || write_json(&path, &made)).await {
            // It only makes a restart lose this result.
            tracing::warn!(attempt = %work.dispatch.attempt, error, "not stored");
        }
        Ok(())
    }

    /// Publishes a task's outputs, going on where an earlier try stopped.
    pub(super) async fn publish(&self, work: &Work) -> Result<Vec<Output>, PublishError> {
        while let Some((number, file)) = work.next_output() {
            let holder = Holder::Attempt(work.dispatch.attempt, number);
            let (hash, bytes) = self.put(work, holder, &file.path).await?;
            work.add_published(Output { hash, bytes, units: file.units });
        }
        Ok(work.published())
    }

    async fn put(&self, work: &Work, holder: Holder, path: &Path) -> Result<(Hash, u64), PublishError> {
        let name = wire::holder(holder).map_err(|error| PublishError::Refused(error.to_string()))?;
        let transfer = async {
            let _permit = self.transfers.acquire().await;
            self.store.put_file(&name, path).await
        };
        let put = tokio::select! {
            put = transfer => put,
            () = work.stopped() => return Err(PublishError::Stopped),
        };
        match put {
            Ok(artifact) => {
                work.use_up(|usage| {
                    usage.published_bytes = usage.published_bytes.saturating_add(artifact.bytes)
                });
                Ok((Hash(*artifact.hash.as_bytes()), artifact.bytes))
            }
            Err(StoreError::Revoked { .. }) => Err(PublishError::Revoked),
            Err(error @ StoreError::TooLarge { .. }) => Err(PublishError::Refused(error.to_string())),
            Err(StoreError::Backend(BackendError::File(error))) if !path.is_file() => {
                Err(PublishError::Local(error.to_string()))
            }
            Err(error) => {
                tracing::warn!(attempt = %work.dispatch.attempt, %error, "the store does not take");
                work.use_up(|usage| usage.retries = usage.retries.saturating_add(1));
                Err(PublishError::Unavailable)
            }
        }
    }

    /// Signs the receipt and stores it with the report. What cannot be stored is still reported.
    pub(super) async fn seal(&self, work: &Work, report: Report, outcome: Outcome) {
        let contents = |hash, bytes| Content { hash, bytes };
        let outputs = match &report {
            Report::Finished { outputs } => outputs.iter().map(|o| contents(o.hash, o.bytes)).collect(),
            _ => Vec::new(),
        };
        let dispatch = &work.dispatch;
        let artifacts = dispatch.inputs.iter().map(|input| &input.artifact);
        let receipt = Receipt {
            worker: self.key.worker(),
            batch: dispatch.batch,
            attempt: dispatch.attempt,
            key: dispatch.key,
            kind: dispatch.stage.kind(),
            outcome,
            inputs: artifacts.map(|artifact| contents(artifact.hash, artifact.bytes)).collect(),
            outputs,
            device: work.device(),
            build: self.config.build.clone(),
            usage: work.usage(),
        };
        let receipt = match receipt.sign(&*self.key) {
            Ok(receipt) => Some(Box::new(receipt)),
            Err(error) => {
                tracing::error!(attempt = %dispatch.attempt, %error, "no receipt");
                None
            }
        };
        work.set_receipt(receipt.clone());
        let (dir, dispatch, sealed) = (work.dir.clone(), dispatch.clone(), Sealed { report, receipt });
        let store = move || {
            make_dir(&dir)?;
            write_json(&dir.join("task.json"), &*dispatch)?;
            write_json(&dir.join("report.json"), &sealed)
        };
        if let Err(error) = blocking(store).await {
            tracing::warn!(attempt = %work.dispatch.attempt, error, "not stored");
        }
    }

    /// Publishes a part's inputs, going on where an earlier try stopped; `is_again`: all of them, under new numbers.
    pub(super) async fn publish_part(
        &self,
        work: &Work,
        key: &Hash,
        is_again: bool,
    ) -> Result<Vec<Artifact>, PublishError> {
        if is_again {
            work.restart_part(key);
        }
        while let Some(path) = work.next_part_input(key) {
            let known = if is_again { None } else { delivered(work, &path).await };
            let artifact = match known {
                Some(artifact) => artifact,
                None => {
                    let holder = work.next_holder();
                    let (hash, bytes) = self.put(work, holder, &path).await?;
                    Artifact { holder, hash, bytes }
                }
            };
            work.add_part_input(key, artifact);
        }
        Ok(work.part_inputs(key))
    }

    /// Brings a part's outputs to the task's folder.
    pub(super) async fn fetch_part(
        &self,
        work: &Work,
        key: &Hash,
        outputs: &[Artifact],
    ) -> Result<(), FetchError> {
        let dir = work.dir.join("parts").join(hex::encode(key.0));
        let made = dir.clone();
        blocking(move || make_dir(&made)).await.map_err(FetchError::Local)?;
        let mut paths = Vec::with_capacity(outputs.len());
        for (number, artifact) in (0..).zip(outputs) {
            let path = dir.join(number.to_string());
            self.get(work, artifact, &path, number).await?;
            paths.push(path);
        }
        work.add_delivered(outputs);
        work.set_part_results(key, paths);
        Ok(())
    }
}

fn input_path(work: &Work, number: u32) -> PathBuf {
    work.dir.join("in").join(number.to_string())
}

/// The output of a part that a file is a copy of: it need not be published again.
async fn delivered(work: &Work, path: &Path) -> Option<Artifact> {
    if !work.has_delivered() {
        return None;
    }
    let path = path.to_owned();
    let hash = tokio::task::spawn_blocking(move || {
        let mut hasher = blake3::Hasher::new();
        io::copy(&mut std::fs::File::open(path)?, &mut hasher)?;
        Ok::<_, io::Error>(hasher.finalize())
    });
    let hash = hash.await.ok()?.ok()?;
    work.delivered(&Hash(*hash.as_bytes()))
}
