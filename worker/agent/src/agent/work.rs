//! What the shell keeps of an attempt.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use assay_schedule::{Artifact, Dispatch, Hash, Holder, Output};
use tokio::sync::{oneshot, watch};

use crate::folder::Kept;
use crate::receipt::{SignedReceipt, Usage};
use crate::runner::{NewFile, Part, PartError};

type PartAnswer = oneshot::Sender<Result<Vec<PathBuf>, PartError>>;

pub(super) struct Work {
    pub dispatch: Arc<Dispatch>,
    pub dir: PathBuf,
    stop: watch::Sender<bool>,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    usage: Usage,
    /// Model of the device that it runs on.
    device: String,
    outputs: Vec<NewFile>,
    /// Those of them that are published.
    published: Vec<Output>,
    receipt: Option<Box<SignedReceipt>>,
    parts: BTreeMap<Hash, PartWork>,
    /// Outputs of parts, which others of its parts may read.
    delivered: BTreeMap<Hash, Artifact>,
    /// Numbers given to inputs of parts.
    numbers: u32,
}

struct PartWork {
    files: Vec<PathBuf>,
    answers: Vec<PartAnswer>,
    published: Vec<Artifact>,
    results: Vec<PathBuf>,
}

impl Work {
    pub(super) fn new(dispatch: Arc<Dispatch>, dir: PathBuf) -> Self {
        Self { dispatch, dir, stop: watch::Sender::new(false), inner: Mutex::default() }
    }

    /// What an earlier process has left.
    pub(super) fn restored(kept: Kept, dir: PathBuf) -> Self {
        let work = Self::new(Arc::new(kept.dispatch), dir);
        if let Some(made) = kept.made {
            let mut inner = work.inner();
            (inner.usage, inner.device, inner.outputs) = (made.usage, made.device, made.outputs);
        }
        if let Some(sealed) = kept.sealed {
            work.inner().receipt = sealed.receipt;
        }
        work
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes whatever is under way end soon.
    pub(super) fn stop(&self) {
        self.stop.send_replace(true);
    }

    pub(super) fn stopper(&self) -> watch::Receiver<bool> {
        self.stop.subscribe()
    }

    /// Ready when it is to stop.
    pub(super) async fn stopped(&self) {
        let mut stop = self.stop.subscribe();
        // The sender lives as long as this.
        let _ = stop.wait_for(|stopped| *stopped).await;
    }

    pub(super) fn usage(&self) -> Usage {
        self.inner().usage
    }

    pub(super) fn use_up(&self, change: impl FnOnce(&mut Usage)) {
        change(&mut self.inner().usage);
    }

    pub(super) fn set_device(&self, device: String) {
        self.inner().device = device;
    }

    pub(super) fn device(&self) -> String {
        self.inner().device.clone()
    }

    pub(super) fn set_outputs(&self, outputs: Vec<NewFile>) {
        self.inner().outputs = outputs;
    }

    /// An output that is not published yet, with its number.
    pub(super) fn next_output(&self) -> Option<(u32, NewFile)> {
        let inner = self.inner();
        let number = inner.published.len();
        inner.outputs.get(number).map(|file| (number as u32, file.clone()))
    }

    pub(super) fn add_published(&self, output: Output) {
        self.inner().published.push(output);
    }

    pub(super) fn published(&self) -> Vec<Output> {
        self.inner().published.clone()
    }

    pub(super) fn set_receipt(&self, receipt: Option<Box<SignedReceipt>>) {
        self.inner().receipt = receipt;
    }

    pub(super) fn receipt(&self) -> Option<Box<SignedReceipt>> {
        self.inner().receipt.clone()
    }

    /// Somebody waits for a part, perhaps not the first one.
    pub(super) fn add_part(&self, part: Part, answer: PartAnswer) {
        let mut inner = self.inner();
        let new = || PartWork { files: part.files, answers: vec![], published: vec![], results: vec![] };
        inner.parts.entry(part.key).or_insert_with(new).answers.push(answer);
    }

    /// A part has ended: tells all who wait for it.
    pub(super) fn give_part(&self, key: &Hash, error: Option<PartError>) {
        let Some(part) = self.inner().parts.remove(key) else { return };
        let result = error.map_or(Ok(part.results), Err);
        for answer in part.answers {
            // Whoever has given up waiting is not told.
            let _ = answer.send(result.clone());
        }
    }

    /// Nobody is to wait for parts any more.
    pub(super) fn drop_parts(&self) {
        self.inner().parts.clear();
    }

    /// Forgets what is published of a part, so that all of it is published again under new numbers.
    pub(super) fn restart_part(&self, key: &Hash) {
        let mut inner = self.inner();
        if let Some(part) = inner.parts.get_mut(key).filter(|part| part.published.len() == part.files.len()) {
            part.published.clear();
        }
    }

    /// A part's input that is not published yet.
    pub(super) fn next_part_input(&self, key: &Hash) -> Option<PathBuf> {
        let inner = self.inner();
        let part = inner.parts.get(key)?;
        part.files.get(part.published.len()).cloned()
    }

    pub(super) fn add_part_input(&self, key: &Hash, artifact: Artifact) {
        if let Some(part) = self.inner().parts.get_mut(key) {
            part.published.push(artifact);
        }
    }

    pub(super) fn part_inputs(&self, key: &Hash) -> Vec<Artifact> {
        self.inner().parts.get(key).map_or_else(Vec::new, |part| part.published.clone())
    }

    pub(super) fn set_part_results(&self, key: &Hash, results: Vec<PathBuf>) {
        if let Some(part) = self.inner().parts.get_mut(key) {
            part.results = results;
        }
    }

    /// The next holder for an input of a part.
    pub(super) fn next_holder(&self) -> Holder {
        let mut inner = self.inner();
        let number = Holder::INPUTS.saturating_add(inner.numbers);
        inner.numbers += 1;
        Holder::Attempt(self.dispatch.attempt, number)
    }

    pub(super) fn has_delivered(&self) -> bool {
        !self.inner().delivered.is_empty()
    }

    pub(super) fn delivered(&self, hash: &Hash) -> Option<Artifact> {
        self.inner().delivered.get(hash).copied()
    }

    pub(super) fn add_delivered(&self, artifacts: &[Artifact]) {
        let mut inner = self.inner();
        inner.delivered.extend(artifacts.iter().map(|artifact| (artifact.hash, *artifact)));
    }
}
