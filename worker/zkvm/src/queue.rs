//! The queue between the crate's controller and the provers of this process.
//!
//! A [`WorkerClient`] that keeps what the controller relies on:
//! a retried task keeps its id and never shows a retryable status; a terminal status is replayed to late and repeated
//! subscribers; a task's messages are ordered, replayed from the first, and end when the task ends; a task that panics
//! ends as a failure; a result of an older attempt is dropped (fencing). Everything is bounded: submission waits while
//! `depth` tasks of the same kind are queued.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sp1_prover::worker::{
    ProofId, RawTaskRequest, SubscriberBuilder, TaskError, TaskId, TaskMetadata, WorkerClient,
};
use sp1_prover_types::{ProofRequestStatus, TaskStatus, TaskType};
use tokio::sync::{mpsc, watch, Notify, OwnedSemaphorePermit, Semaphore};
use tokio::task::{AbortHandle, JoinError};

/// Attempts at a task before its failure is final. Execution streams messages, so a second attempt would stream them
/// twice: it has one.
const ATTEMPTS_MAX: u32 = 3;
/// Terminal statuses remembered after their proof is released.
const FINISHED_MAX: usize = 1 << 16;

/// Tasks of one lane share runners.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lane {
    /// Guest execution: light, long, waits for the other lane.
    Execute,
    /// Everything that holds traces.
    Prove,
}

/// Why a task did not succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// Another attempt may succeed.
    Retryable(String),
    /// It will fail again, or it panicked.
    Fatal(String),
}

/// A task handed to a runner.
#[derive(Clone)]
pub struct Task {
    /// The id its waiters hold; the same for every attempt.
    pub id: TaskId,
    /// What to do.
    pub kind: TaskType,
    /// Inputs and outputs.
    pub request: RawTaskRequest,
    /// Number of this attempt, from 1.
    pub attempt: u32,
}

/// Tasks of one kind of one proof.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// Submitted so far.
    pub submitted: u64,
    /// Ended well so far.
    pub succeeded: u64,
}

struct Entry {
    kind: TaskType,
    proof: ProofId,
    status: watch::Sender<TaskStatus>,
    attempt: u32,
    abort: Option<AbortHandle>,
}

struct Queued {
    task: Task,
    /// Frees a place in the queue when the task is handed out; none for a retry.
    _place: Option<OwnedSemaphorePermit>,
}

struct Channel {
    /// None once the task has ended.
    sender: Option<mpsc::UnboundedSender<Vec<u8>>>,
    /// None once a consumer has taken it.
    receiver: Option<mpsc::UnboundedReceiver<Vec<u8>>>,
}

#[derive(Default)]
struct State {
    next_number: u64,
    tasks: HashMap<TaskId, Entry>,
    ready: HashMap<Lane, BTreeMap<(u8, u64), Queued>>,
    channels: HashMap<TaskId, Channel>,
    finished: HashMap<TaskId, TaskStatus>,
    finished_order: VecDeque<TaskId>,
    counts: HashMap<(ProofId, i32), Count>,
    first_failure: HashMap<ProofId, String>,
    closed: bool,
}

struct Inner {
    state: Mutex<State>,
    ready: Notify,
    depth: usize,
    places: Mutex<HashMap<i32, Arc<Semaphore>>>,
}

/// The queue. Clones share it.
#[derive(Clone)]
pub struct LocalQueue {
    inner: Arc<Inner>,
}

impl LocalQueue {
    /// A queue in which at most `depth` tasks of each kind wait.
    pub fn new(depth: usize) -> Self {
        Self {
            inner: Arc::new(Inner {
                state: Mutex::default(),
                ready: Notify::new(),
                depth: depth.max(1),
                places: Mutex::default(),
            }),
        }
    }

    /// Waits for the next task of a lane: the kind nearest to the final proof first, then the oldest.
    /// `None` once the queue is closed.
    pub async fn next(&self, lane: Lane) -> Option<Task> {
        loop {
            let notified = self.inner.ready.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            {
                let mut state = self.state();
                if state.closed {
                    return None;
                }
                if let Some((_, queued)) = state.ready.entry(lane).or_default().pop_first() {
                    return Some(queued.task);
                }
            }
            notified.await;
        }
    }

    /// Lets [`LocalQueue::cancel`] stop a running task.
    pub fn set_abort(&self, task: &Task, handle: AbortHandle) {
        if let Some(entry) = self.state().tasks.get_mut(&task.id) {
            if entry.attempt == task.attempt {
                entry.abort = Some(handle);
            }
        }
    }

    /// Ends an attempt. A retryable failure puts the task back under its id until its attempts are used up; the result of
    /// an attempt that is no longer the current one is dropped.
    pub fn finish(&self, task: &Task, result: Result<(), Failure>) {
        let mut state = self.state();
        let Some(entry) = state.tasks.get_mut(&task.id) else { return };
        if entry.attempt != task.attempt || is_terminal(*entry.status.borrow()) {
            return;
        }
        entry.abort = None;
        let (status, reason) = match result {
            Ok(()) => (TaskStatus::Succeeded, None),
            Err(Failure::Retryable(reason)) if entry.attempt < attempts_max(task.kind) => {
                tracing::warn!(task = %task.id, attempt = entry.attempt, reason, "task failed, trying again");
                entry.attempt += 1;
                let retry = Task { attempt: entry.attempt, ..task.clone() };
                state.enqueue(retry, None);
                drop(state);
                self.inner.ready.notify_waiters();
                return;
            }
            Err(Failure::Retryable(reason) | Failure::Fatal(reason)) => {
                (TaskStatus::FailedFatal, Some(reason))
            }
        };
        state.end(&task.id, status, reason);
    }

    /// Ends every open task of a proof as failed, and stops the running ones.
    pub fn cancel(&self, proof: &ProofId, reason: &str) {
        let mut state = self.state();
        let others = |queued: &Queued| queued.task.request.context.proof_id != *proof;
        state.ready.values_mut().for_each(|lane| lane.retain(|_, queued| others(queued)));
        let open: Vec<TaskId> = state
            .tasks
            .iter()
            .filter(|(_, e)| e.proof == *proof && !is_terminal(*e.status.borrow()))
            .map(|(id, _)| id.clone())
            .collect();
        for id in open {
            if let Some(handle) = state.tasks.get_mut(&id).and_then(|entry| entry.abort.take()) {
                handle.abort();
            }
            state.end(&id, TaskStatus::FailedFatal, Some(reason.to_owned()));
        }
    }

    /// Forgets a proof; its tasks' terminal statuses stay known for late subscribers.
    pub fn release(&self, proof: &ProofId) {
        self.cancel(proof, "proof released");
        let mut state = self.state();
        let ids: Vec<TaskId> =
            state.tasks.iter().filter(|(_, e)| e.proof == *proof).map(|(id, _)| id.clone()).collect();
        for id in ids {
            if let Some(entry) = state.tasks.remove(&id) {
                let status = *entry.status.borrow();
                state.remember(id.clone(), status);
            }
            state.channels.remove(&id);
        }
        state.counts.retain(|(owner, _), _| owner != proof);
        state.first_failure.remove(proof);
    }

    /// The first failure among a proof's tasks.
    pub fn first_failure(&self, proof: &ProofId) -> Option<String> {
        self.state().first_failure.get(proof).cloned()
    }

    /// How many tasks of a kind a proof has.
    pub fn count(&self, proof: &ProofId, kind: TaskType) -> Count {
        self.state().counts.get(&(proof.clone(), kind as i32)).copied().unwrap_or_default()
    }

    /// Status of a task, if it is known.
    pub fn status(&self, id: &TaskId) -> Option<TaskStatus> {
        let state = self.state();
        state.tasks.get(id).map(|e| *e.status.borrow()).or_else(|| state.finished.get(id).copied())
    }

    /// Waits until a task has ended and says how.
    pub async fn ended(&self, id: &TaskId) -> TaskStatus {
        match self.watch(id) {
            Err(status) => status,
            Ok(mut status) => match status.wait_for(|s| is_terminal(*s)).await {
                Ok(last) => *last,
                // The entry went away without ending: nobody may wait for it for ever.
                Err(_) => TaskStatus::FailedFatal,
            },
        }
    }

    /// Tasks that are not released.
    pub fn len(&self) -> usize {
        self.state().tasks.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Ends [`LocalQueue::next`] for every runner.
    pub fn close(&self) {
        self.state().closed = true;
        self.inner.ready.notify_waiters();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn places(&self, kind: TaskType) -> Arc<Semaphore> {
        let mut places = self.inner.places.lock().unwrap_or_else(PoisonError::into_inner);
        places.entry(kind as i32).or_insert_with(|| Arc::new(Semaphore::new(self.inner.depth))).clone()
    }

    fn watch(&self, id: &TaskId) -> Result<watch::Receiver<TaskStatus>, TaskStatus> {
        let state = self.state();
        match state.tasks.get(id) {
            Some(entry) => Ok(entry.status.subscribe()),
            // Asking for an id that was never submitted is the caller's mistake; it is answered, never ignored.
            None => Err(state.finished.get(id).copied().unwrap_or(TaskStatus::FailedFatal)),
        }
    }
}

impl State {
    fn enqueue(&mut self, task: Task, place: Option<OwnedSemaphorePermit>) {
        let Some((lane, priority)) = lane_and_priority(task.kind) else { return };
        let number = self.next_number;
        self.next_number += 1;
        self.ready.entry(lane).or_default().insert((priority, number), Queued { task, _place: place });
    }

    fn end(&mut self, id: &TaskId, status: TaskStatus, reason: Option<String>) {
        let Some(entry) = self.tasks.get(id) else { return };
        let (proof, kind) = (entry.proof.clone(), entry.kind);
        entry.status.send_replace(status);
        if let Some(channel) = self.channels.get_mut(id) {
            channel.sender = None;
        }
        if status == TaskStatus::Succeeded {
            self.counts.entry((proof, kind as i32)).or_default().succeeded += 1;
        } else {
            let reason = format!("{}: {}", kind.as_str_name(), reason.unwrap_or_default());
            tracing::error!(task = %id, reason, "task failed");
            self.first_failure.entry(proof).or_insert(reason);
        }
    }

    fn remember(&mut self, id: TaskId, status: TaskStatus) {
        if self.finished.insert(id.clone(), status).is_none() {
            self.finished_order.push_back(id);
        }
        while self.finished_order.len() > FINISHED_MAX {
            if let Some(oldest) = self.finished_order.pop_front() {
                self.finished.remove(&oldest);
            }
        }
    }
}

fn is_terminal(status: TaskStatus) -> bool {
    matches!(status, TaskStatus::Succeeded | TaskStatus::FailedFatal | TaskStatus::FailedRetryable)
}

fn attempts_max(kind: TaskType) -> u32 {
    if kind == TaskType::CoreExecute {
        1
    } else {
        ATTEMPTS_MAX
    }
}

/// Lower runs first. Proofs nearer to the root free more than they take. `None`: never run, completed by another task.
fn lane_and_priority(kind: TaskType) -> Option<(Lane, u8)> {
    match kind {
        TaskType::CoreExecute => Some((Lane::Execute, 0)),
        TaskType::SetupVkey => Some((Lane::Prove, 0)),
        TaskType::RecursionReduce => Some((Lane::Prove, 1)),
        TaskType::ProveShard => Some((Lane::Prove, 2)),
        TaskType::RecursionDeferred => Some((Lane::Prove, 3)),
        _ => None,
    }
}

impl WorkerClient for LocalQueue {
    async fn submit_task(&self, kind: TaskType, request: RawTaskRequest) -> anyhow::Result<TaskId> {
        let runs = lane_and_priority(kind).is_some();
        anyhow::ensure!(
            runs || kind == TaskType::MarkerDeferredRecord,
            "tasks of kind {} are not run by this engine",
            kind.as_str_name()
        );
        let place = if runs { Some(self.places(kind).acquire_owned().await?) } else { None };
        let mut state = self.state();
        anyhow::ensure!(!state.closed, "the queue is closed");
        let id = TaskId::new(format!("task_{:016x}", state.next_number));
        state.next_number += 1;
        let proof = request.context.proof_id.clone();
        let entry = Entry {
            kind,
            proof: proof.clone(),
            status: watch::Sender::new(TaskStatus::Pending),
            attempt: 1,
            abort: None,
        };
        state.tasks.insert(id.clone(), entry);
        state.counts.entry((proof, kind as i32)).or_default().submitted += 1;
        state.enqueue(Task { id: id.clone(), kind, request, attempt: 1 }, place);
        drop(state);
        self.inner.ready.notify_waiters();
        Ok(id)
    }

    async fn complete_task(&self, _: ProofId, id: TaskId, _: TaskMetadata) -> anyhow::Result<()> {
        let mut state = self.state();
        let entry = state.tasks.get(&id).ok_or_else(|| anyhow::anyhow!("task {id} is unknown"))?;
        let status = *entry.status.borrow();
        match status {
            // A marker completed by an earlier attempt of its shard.
            TaskStatus::Succeeded => Ok(()),
            status if is_terminal(status) => anyhow::bail!("task {id} has already failed"),
            _ => {
                state.end(&id, TaskStatus::Succeeded, None);
                Ok(())
            }
        }
    }

    async fn complete_proof(
        &self,
        proof: ProofId,
        _: Option<TaskId>,
        _: ProofRequestStatus,
        _: impl Into<String> + Send,
    ) -> anyhow::Result<()> {
        self.release(&proof);
        Ok(())
    }

    async fn subscriber(&self, _: ProofId) -> anyhow::Result<SubscriberBuilder<Self>> {
        let (asked_sender, mut asked) = mpsc::unbounded_channel::<TaskId>();
        let (answers, answers_receiver) = mpsc::unbounded_channel();
        let queue = self.clone();
        tokio::spawn(async move {
            while let Some(id) = asked.recv().await {
                let answers = answers.clone();
                let queue = queue.clone();
                tokio::spawn(async move {
                    let last = queue.ended(&id).await;
                    answers.send((id, last)).ok();
                });
            }
        });
        Ok(SubscriberBuilder::new(self.clone(), asked_sender, answers_receiver))
    }

    async fn subscribe_task_messages(&self, id: &TaskId) -> anyhow::Result<mpsc::UnboundedReceiver<Vec<u8>>> {
        let mut state = self.state();
        let ended = match state.tasks.get(id) {
            Some(entry) => is_terminal(*entry.status.borrow()),
            None => anyhow::bail!("task {id} is unknown or released"),
        };
        let channel = state.channels.entry(id.clone()).or_insert_with(|| Channel::new(!ended));
        channel
            .receiver
            .take()
            .ok_or_else(|| anyhow::anyhow!("messages of task {id} already have a consumer"))
    }

    async fn send_task_message(&self, id: &TaskId, payload: Vec<u8>) -> anyhow::Result<()> {
        let mut state = self.state();
        match state.tasks.get(id) {
            Some(entry) if !is_terminal(*entry.status.borrow()) => {}
            _ => anyhow::bail!("task {id} has ended or is unknown"),
        }
        let channel = state.channels.entry(id.clone()).or_insert_with(|| Channel::new(true));
        let sender =
            channel.sender.as_ref().ok_or_else(|| anyhow::anyhow!("messages of task {id} have ended"))?;
        sender.send(payload).map_err(|_| anyhow::anyhow!("the consumer of task {id}'s messages is gone"))
    }
}

impl Channel {
    fn new(open: bool) -> Self {
        let (sender, receiver) = mpsc::unbounded_channel();
        Self { sender: open.then_some(sender), receiver: Some(receiver) }
    }
}

/// The queue's view of an attempt. Panics and stopped attempts are final.
///
/// # Errors
/// [`Failure`] for everything but success.
pub fn outcome(result: Result<Result<(), TaskError>, JoinError>) -> Result<(), Failure> {
    match result {
        Ok(Ok(())) => Ok(()),
        Ok(Err(TaskError::Retryable(error))) => Err(Failure::Retryable(format!("{error:#}"))),
        Ok(Err(TaskError::Fatal(error))) => Err(Failure::Fatal(format!("{error:#}"))),
        Ok(Err(TaskError::Execution(error))) => {
            Err(Failure::Fatal(format!("guest execution failed: {error}")))
        }
        Err(error) if error.is_panic() => Err(Failure::Fatal(format!("panicked: {}", panic_message(error)))),
        Err(_) => Err(Failure::Fatal("stopped".to_owned())),
    }
}

/// What a pipeline of the zkVM has to say of a task of its own that did not end. The reason itself is in the error's sources.
pub fn join_failure(error: impl std::error::Error + Send + Sync + 'static) -> TaskError {
    TaskError::Fatal(anyhow::Error::new(error).context("task panicked or was stopped"))
}

/// The message of a panic that ended a task.
pub fn panic_message(error: JoinError) -> String {
    match error.try_into_panic() {
        Ok(payload) => payload
            .downcast_ref::<&str>()
            .map(|s| (*s).to_owned())
            .or_else(|| payload.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "no message".to_owned()),
        Err(error) => error.to_string(),
    }
}
