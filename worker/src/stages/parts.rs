//! Parts of a child's proofs that others prove: out as [`Event::Part`] lines, back as [`PartResult`] lines.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::{Event, PartRequest, PartResult};
use crate::files::FileRef;
use crate::node::Hidden;
use crate::part::{Part, Parts};

/// Writes an event to the parent.
pub(super) type Emit = Arc<dyn Fn(&Event) + Send + Sync>;

type Answer = Result<Vec<FileRef>, String>;

/// What connects an engine's parts with the parent. Clones share it.
#[derive(Clone)]
pub(super) struct Broker {
    emit: Emit,
    waiting: Arc<Mutex<HashMap<String, Vec<oneshot::Sender<Answer>>>>>,
}

impl Broker {
    pub(super) fn new(emit: Emit) -> Self {
        Self { emit, waiting: Arc::default() }
    }

    /// Gives a result to the part that waits for it. False if none does: a result may come twice.
    pub(super) fn deliver(&self, result: PartResult) -> bool {
        let PartResult { part, files, failed } = result;
        let answer = failed.map_or(Ok(files), Err);
        let waiting = self.waiting().remove(&part).unwrap_or_default();
        let found = !waiting.is_empty();
        for sender in waiting {
            // A part whose proof was given up waits for nothing.
            let _ = sender.send(answer.clone());
        }
        found
    }

    /// Fails every part that waits: the parent is gone.
    pub(super) fn close(&self) {
        self.waiting().clear();
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<String, Vec<oneshot::Sender<Answer>>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Parts for Broker {
    fn prove(&self, part: Part) -> Hidden<Result<Vec<PathBuf>, String>> {
        let broker = self.clone();
        Box::pin(async move {
            let (sender, receiver) = oneshot::channel();
            let first = {
                let mut waiting = broker.waiting();
                let list = waiting.entry(part.key.clone()).or_default();
                list.push(sender);
                list.len() == 1
            };
            if first {
                let hashed = tokio::task::spawn_blocking(move || {
                    let files = part.files.into_iter().map(FileRef::of).collect::<Result<Vec<_>, _>>();
                    files.map(|files| PartRequest { key: part.key, kind: part.kind, files })
                });
                match hashed.await {
                    Ok(Ok(request)) => (broker.emit)(&Event::Part(request)),
                    Ok(Err(error)) => return Err(error.to_string()),
                    Err(error) => return Err(error.to_string()),
                }
            }
            match receiver.await {
                Ok(answer) => answer.map(|files| files.into_iter().map(|file| file.path).collect()),
                Err(_) => Err("the parent has closed its end".to_owned()),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::part::PartKind;

    fn part(dir: &std::path::Path, key: &str) -> Part {
        let header = dir.join("header.json");
        std::fs::write(&header, b"{}").unwrap();
        Part { key: key.into(), kind: PartKind::Reduce, files: vec![header] }
    }

    fn broker() -> (Broker, Arc<Mutex<Vec<Event>>>) {
        let events: Arc<Mutex<Vec<Event>>> = Arc::default();
        let sink = events.clone();
        (Broker::new(Arc::new(move |event: &Event| sink.lock().unwrap().push(event.clone()))), events)
    }

    #[tokio::test]
    async fn equal_parts_are_asked_for_once_and_both_get_the_result() {
        let dir = tempfile::tempdir().unwrap();
        let (broker, events) = broker();
        let first = tokio::spawn(broker.prove(part(dir.path(), "a")));
        let second = tokio::spawn(broker.prove(part(dir.path(), "a")));
        while broker.waiting().get("a").map_or(0, Vec::len) < 2 || events.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        let file = FileRef::write(&dir.path().join("result.json"), b"proof").unwrap();
        let result = PartResult { part: "a".into(), files: vec![file.clone()], failed: None };
        assert!(broker.deliver(result.clone()));
        assert!(!broker.deliver(result), "a second delivery has nobody to go to");
        assert_eq!(first.await.unwrap().unwrap(), vec![file.path.clone()]);
        assert_eq!(second.await.unwrap().unwrap(), vec![file.path]);
        assert_eq!(events.lock().unwrap().len(), 1);
    }

    #[tokio::test]
    async fn a_failure_and_a_parent_that_is_gone_end_the_wait() {
        let dir = tempfile::tempdir().unwrap();
        let (broker, _) = broker();
        let failed = tokio::spawn(broker.prove(part(dir.path(), "a")));
        let lost = tokio::spawn(broker.prove(part(dir.path(), "b")));
        while broker.waiting().len() < 2 {
            tokio::task::yield_now().await;
        }
        broker.deliver(PartResult { part: "a".into(), files: vec![], failed: Some("no memory".into()) });
        broker.close();
        assert_eq!(failed.await.unwrap().unwrap_err(), "no memory");
        assert!(lost.await.unwrap().unwrap_err().contains("parent"));
    }
}
