//! The workers' process: it speaks the agent's protocol for all of them over a few connections.
//!
//! The parent says on standard input what the next batch is, `run <tasks> <rate>` (rate 0: all at once), and then `go`
//! once all controllers have published the inputs of their parts, which this process says by `ready`. When all parts have
//! been delivered it says `done` and what it has seen.

use std::collections::{BTreeSet, HashMap};
use std::io::BufRead as _;
use std::sync::Arc;
use std::time::Duration;

use assay_queue::{ArtifactStore, Cursor, Mailbox, TaskQueue};
use assay_schedule::{
    Action, Artifact, AttemptId, Dispatch, Effect, Event, Hash, Holder, Kind, Message, Output, Part, Profile,
    Report, Stage, WorkerId,
};
use assay_service::names;
use futures::StreamExt as _;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::meter::percentile;
use crate::{open, Failure, Handle};

/// Connections of the process; workers share them.
const CONNECTIONS: u64 = 4;
/// Controllers that ask for the parts: blocks of the batch.
pub(crate) const CONTROLLERS: u32 = 8;
/// Parts in one request.
const SPAWN: usize = 64;
/// As the agent has it.
const HEARTBEAT: Duration = Duration::from_secs(3);
const PAGE: usize = 256;
const WAIT: Duration = Duration::from_secs(10);
/// A controller asks again for what has not been delivered after this.
const REPEAT: Duration = Duration::from_secs(5);
/// Publications of one controller at the same time.
const PUBLISHED_AT_ONCE: usize = 32;

/// What the workers have seen of a batch.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Seen {
    /// From the first dispatch to the last delivery, which is committed with the acceptance.
    pub span_us: u64,
    /// From the request for a part to its dispatch: median, 90 %, 99 %, longest.
    pub pick_us: [u64; 4],
    /// Parts that were dispatched, and how often one was dispatched again.
    pub picked: u64,
    pub repeated: u64,
    /// From when a part was due to when it was asked for, 99 %: how late this process was itself.
    pub late_us: u64,
}

/// The batch that is under way.
#[derive(Default)]
struct Run {
    tasks: usize,
    rate: u64,
    /// Controllers that are ready, and those that have everything.
    ready: u32,
    done: u32,
    /// By part: when it was asked for, and when it came to a worker.
    asked: Vec<Option<Instant>>,
    picked: Vec<Option<Instant>>,
    late_us: Vec<u64>,
    repeated: u64,
    ended: Option<Instant>,
}

struct Crew {
    run: Mutex<Run>,
    go: watch::Sender<Option<Instant>>,
}

struct Worker {
    id: WorkerId,
    session: u64,
    queue: Arc<dyn TaskQueue>,
    store: Arc<dyn ArtifactStore>,
    crew: Arc<Crew>,
    running: Mutex<BTreeSet<AttemptId>>,
    controllers: Mutex<HashMap<AttemptId, mpsc::UnboundedSender<Hash>>>,
}

/// Runs the workers until standard input ends.
pub(crate) async fn main(url: &str, folder: &str, workers: u64) -> Result<(), Failure> {
    let mut handles: Vec<Handle> = Vec::new();
    for _ in 0..CONNECTIONS {
        handles.push(open(url, folder).await?);
    }
    let crew = Arc::new(Crew { run: Mutex::default(), go: watch::Sender::new(None) });
    let session = rand::random::<u64>() >> 11;
    let mut all = Vec::new();
    for id in 0..workers {
        let (queue, store) = handles[(id % CONNECTIONS) as usize].clone();
        let worker = Arc::new(Worker {
            id: WorkerId(id),
            session,
            queue,
            store,
            crew: Arc::clone(&crew),
            running: Mutex::default(),
            controllers: Mutex::default(),
        });
        tokio::spawn(Arc::clone(&worker).live());
        all.push(worker);
    }
    tokio::spawn(beat(all));
    let mut orders = orders();
    while let Some(order) = orders.recv().await {
        match order.split(' ').collect::<Vec<_>>()[..] {
            ["run", tasks, rate] => crew.begin(tasks.parse()?, rate.parse()?),
            ["go"] => drop(crew.go.send_replace(Some(Instant::now()))),
            _ => return Err(format!("an order that is none: {order}").into()),
        }
    }
    Ok(())
}

/// Lines of standard input.
fn orders() -> mpsc::UnboundedReceiver<String> {
    let (sender, receiver) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

/// Sends every worker's heartbeat in its time.
async fn beat(workers: Vec<Arc<Worker>>) {
    let pause = HEARTBEAT / workers.len().max(1) as u32;
    let mut due = Instant::now();
    for worker in workers.iter().cycle() {
        due += pause;
        tokio::time::sleep_until(due).await;
        let worker = Arc::clone(worker);
        tokio::spawn(async move {
            let running = worker.running.lock().iter().copied().collect();
            worker.post(&Event::Heartbeat { worker: worker.id, session: worker.session, running }).await;
        });
    }
}

impl Crew {
    fn begin(&self, tasks: usize, rate: u64) {
        // Each controller asks for as many.
        let tasks = tasks.next_multiple_of(CONTROLLERS as usize);
        self.go.send_replace(None);
        let (asked, picked) = (vec![None; tasks], vec![None; tasks]);
        *self.run.lock() = Run { tasks, rate, asked, picked, ..Run::default() };
    }

    fn pick(&self, part: u64) {
        let mut run = self.run.lock();
        let run = &mut *run;
        let Some(picked) = run.picked.get_mut(part as usize) else { return };
        match picked {
            Some(_) => run.repeated += 1,
            None => *picked = Some(Instant::now()),
        }
    }

    fn ready(&self) {
        let mut run = self.run.lock();
        run.ready += 1;
        if run.ready == CONTROLLERS {
            println!("ready");
        }
    }

    fn done(&self) {
        let mut run = self.run.lock();
        run.done += 1;
        run.ended = Some(Instant::now());
        if run.done == CONTROLLERS {
            println!("done {}", serde_json::to_string(&run.seen()).expect("numbers"));
        }
    }
}

impl Run {
    fn seen(&mut self) -> Seen {
        let us = |span: Duration| span.as_micros() as u64;
        let both = self.asked.iter().zip(&self.picked);
        let mut picks: Vec<u64> = both
            .filter_map(|(asked, picked)| Some(us((*picked)?.saturating_duration_since((*asked)?))))
            .collect();
        picks.sort_unstable();
        self.late_us.sort_unstable();
        let first = self.picked.iter().flatten().min();
        let span = first.zip(self.ended).map_or(Duration::ZERO, |(first, ended)| ended - *first);
        Seen {
            span_us: us(span),
            pick_us: [500, 900, 990, 1000].map(|permille| percentile(&picks, permille)),
            picked: picks.len() as u64,
            repeated: self.repeated,
            late_us: percentile(&self.late_us, 990),
        }
    }
}

/// A part's key says which it is.
fn key(run: u64, part: u64) -> Hash {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&part.to_le_bytes());
    key[8..16].copy_from_slice(&run.to_le_bytes());
    Hash(key)
}

fn part_of(key: Hash) -> u64 {
    key.0.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

impl Worker {
    async fn post(&self, event: &Event) {
        let message = serde_json::to_vec(event).expect("events have only string keys");
        if let Err(error) = self.queue.post(message).await {
            eprintln!("worker {}: {error}", self.id);
        }
    }

    async fn live(self: Arc<Self>) {
        let (worker, session) = (self.id, self.session);
        let profile = Profile {
            kinds: Kind::ALL.to_vec(),
            version: 1,
            memory_bytes: 1 << 40,
            slots: 1,
            controllers: 1,
        };
        self.post(&Event::Join { worker, session, profile }).await;
        let mailbox: Mailbox = names::worker(worker, session);
        let (mut cursor, mut dealt_with) = (Cursor(0), None);
        loop {
            // As the agent does it: what has been dealt with is forgotten while more is awaited.
            let forget = async {
                if let Some(upto) = dealt_with.take() {
                    if let Err(error) = self.queue.forget(&mailbox, upto).await {
                        eprintln!("worker {worker}: {error}");
                    }
                }
            };
            let page = match tokio::join!(self.queue.read(&mailbox, cursor, PAGE, WAIT), forget).0 {
                Ok(page) => page,
                Err(error) => {
                    eprintln!("worker {worker}: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            for mail in &page.mails {
                self.take(&mail.bytes);
                cursor = mail.cursor;
                dealt_with = Some(cursor);
            }
        }
    }

    fn take(self: &Arc<Self>, mail: &[u8]) {
        // What is no effect says that a result was taken.
        let Ok(effect) = serde_json::from_slice::<Effect>(mail) else { return };
        match effect.action {
            Action::Message(Message::Dispatch(dispatch)) => self.begin(*dispatch),
            Action::Message(Message::Deliver { attempt, key, .. }) => {
                if let Some(sender) = self.controllers.lock().get(&attempt) {
                    let _ = sender.send(key);
                }
            }
            Action::Message(Message::Revoke { attempt, .. }) => {
                self.running.lock().remove(&attempt);
                self.controllers.lock().remove(&attempt);
            }
            _ => {}
        }
    }

    fn begin(self: &Arc<Self>, dispatch: Dispatch) {
        let (this, attempt) = (Arc::clone(self), dispatch.attempt);
        self.running.lock().insert(attempt);
        match dispatch.stage {
            Stage::Shard { .. } => {
                self.crew.pick(part_of(dispatch.key));
                tokio::spawn(async move { this.finish(attempt, 1).await });
            }
            Stage::Block { run } => {
                let (sender, receiver) = mpsc::unbounded_channel();
                self.controllers.lock().insert(attempt, sender);
                tokio::spawn(async move {
                    this.control(&dispatch, run, receiver).await;
                    this.controllers.lock().remove(&attempt);
                    this.finish(attempt, 1).await;
                });
            }
            stage => {
                let outputs = if stage == Stage::Execute { CONTROLLERS } else { 1 };
                tokio::spawn(async move { this.finish(attempt, outputs).await });
            }
        }
    }

    /// Publishes empty outputs and reports.
    async fn finish(&self, attempt: AttemptId, count: u32) {
        let mut outputs = Vec::new();
        for index in 0..count {
            let Some(Artifact { hash, bytes, .. }) = self.publish(attempt, index, Vec::new()).await else {
                return;
            };
            outputs.push(Output { hash, bytes, units: 1 });
        }
        self.running.lock().remove(&attempt);
        let report = Report::Finished { outputs };
        self.post(&Event::Result { worker: self.id, session: self.session, attempt, report }).await;
    }

    async fn publish(&self, attempt: AttemptId, number: u32, bytes: Vec<u8>) -> Option<Artifact> {
        let holder = Holder::Attempt(attempt, number);
        match self.store.put(&names::holder(holder), bytes).await {
            Ok(made) => Some(Artifact { holder, hash: Hash(*made.hash.as_bytes()), bytes: made.bytes }),
            Err(error) => {
                eprintln!("worker {}: {error}", self.id);
                None
            }
        }
    }

    /// Asks for this controller's share of the parts and waits until they are delivered.
    async fn control(&self, dispatch: &Dispatch, run: u32, mut delivered: mpsc::UnboundedReceiver<Hash>) {
        let (total, rate) = {
            let run = self.crew.run.lock();
            (run.tasks as u64, run.rate)
        };
        let numbers: Vec<u64> = (u64::from(run)..total).step_by(CONTROLLERS as usize).collect();
        // An execution would publish them one by one; here they are there before the clock starts.
        let inputs = futures::stream::iter((0..).zip(numbers.clone()).map(|(index, number)| async move {
            let bytes = [dispatch.attempt.0.to_le_bytes(), number.to_le_bytes()].concat();
            self.publish(dispatch.attempt, Holder::INPUTS + index, bytes).await
        }));
        let inputs: Vec<Option<Artifact>> = inputs.buffered(PUBLISHED_AT_ONCE).collect().await;
        let part = |(number, input): (&u64, Option<Artifact>)| {
            let input = input?;
            Some(Part {
                kind: Kind::Shard,
                key: key(dispatch.batch.0, *number),
                inputs: vec![input],
                units: 1,
            })
        };
        let Some(parts) = numbers.iter().zip(inputs).map(part).collect::<Option<Vec<Part>>>() else { return };
        let mut go = self.crew.go.subscribe();
        self.crew.ready();
        let Ok(begun) = go.wait_for(Option::is_some).await.map(|begun| begun.unwrap_or_else(Instant::now))
        else {
            return;
        };
        let mut missing: HashMap<Hash, Part> = HashMap::new();
        let mut waiting = parts.into_iter().zip(numbers).peekable();
        let due = |number: u64| match rate {
            0 => begun,
            rate => begun + Duration::from_nanos(1_000_000_000 / rate * number),
        };
        let mut repeat = Instant::now() + REPEAT;
        while waiting.peek().is_some() || !missing.is_empty() {
            let next = waiting.peek().map_or(repeat, |(_, number)| due(*number).min(repeat));
            tokio::select! {
                Some(key) = delivered.recv() => {
                    missing.remove(&key);
                }
                () = tokio::time::sleep_until(next) => {
                    let now = Instant::now();
                    let mut asked = Vec::new();
                    while let Some((part, number)) = waiting.next_if(|(_, number)| due(*number) <= now) {
                        asked.push((number, now - due(number)));
                        missing.insert(part.key, part);
                    }
                    let parts = if asked.is_empty() {
                        repeat = now + REPEAT;
                        missing.values().cloned().collect()
                    } else {
                        asked.iter().filter_map(|(number, _)| missing.get(&key(dispatch.batch.0, *number)).cloned()).collect()
                    };
                    self.ask(dispatch.attempt, parts, &asked).await;
                }
            }
        }
        self.crew.done();
    }

    async fn ask(&self, attempt: AttemptId, parts: Vec<Part>, asked: &[(u64, Duration)]) {
        for (at, parts) in parts.chunks(SPAWN).enumerate() {
            {
                let mut run = self.crew.run.lock();
                let now = Instant::now();
                for (number, late) in asked.iter().skip(at * SPAWN).take(SPAWN) {
                    run.asked[*number as usize] = Some(now);
                    run.late_us.push(late.as_micros() as u64);
                }
            }
            let (worker, session, parts) = (self.id, self.session, parts.to_vec());
            self.post(&Event::Spawn { worker, session, attempt, parts }).await;
        }
    }
}
