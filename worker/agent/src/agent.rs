//! The shell around [`State`]: one loop that takes what comes in, steps the state, and starts what it asks for.
//!
//! ```text
//! mailbox ──reader──▶ ┐                     ┌──▶ poster ──▶ inbox
//! operations ───────▶ ├─▶ loop: State::step ┼──▶ operations: fetch, run, publish, seal, parts
//! runners ──────────▶ │                     └──▶ answers to runners
//! clock, signals ───▶ ┘
//! ```
//! Nothing in the loop waits for queue, store or disk (but for a new session's number): those are tasks of their own.

mod link;
mod operations;
mod work;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use assay_queue::{ArtifactStore, NameError, TaskQueue};
use assay_schedule::{AttemptId, Dispatch, Event, Kind, Profile};
use tokio::sync::{mpsc, Semaphore};

use crate::folder::{Folder, FolderError};
use crate::key::WorkerKey;
use crate::runner::{Device, DeviceFault, FromRunner, GpuShare, PartError, Runner};
use crate::state::{Action, Input, PostId, Saved, Settings, State, Times};
use crate::wire::{self, About, Extra, Health};
use link::{Batch, Letter, Reader};
use operations::Tools;
use work::Work;

/// How often the state is told the time.
const TICK: Duration = Duration::from_millis(50);
/// Things that wait for the loop.
const INPUTS_MAX: usize = 1024;
/// Messages that wait for the poster; the state has fewer under way.
const LETTERS_MAX: usize = 1024;

/// What a worker is and may use.
#[derive(Clone, Debug)]
pub struct AgentConfig {
    /// Its files; one folder for each worker.
    pub work_dir: PathBuf,
    /// What its operator calls it.
    pub name: String,
    /// Its program, for receipts.
    pub build: String,
    /// Version of its programs and keys.
    pub version: u32,
    /// What it does.
    pub kinds: Vec<Kind>,
    /// Memory of all tasks together.
    pub memory_bytes: u64,
    /// Tasks at the same time.
    pub slots: u32,
    /// Controllers at the same time.
    pub controllers: u32,
    /// Devices of the slots, in turn, with their models; at least one.
    pub devices: Vec<(Device, String)>,
    /// How GPUs are shared by the runner's processes; one of which nothing is said has one at a time.
    pub gpu_shares: BTreeMap<Device, GpuShare>,
    /// Tasks that may wait for a slot.
    pub waiting_max: usize,
    /// Parts of one task that may be outstanding.
    pub parts_max: usize,
    /// How often a result is sent that nobody answers.
    pub reports_max: u32,
    /// Transfers with the store at the same time.
    pub transfers_max: usize,
    /// Heartbeats, repetitions, farewell.
    pub times: Times,
}

impl AgentConfig {
    /// One slot and one controller on the CPU, everything else by default.
    pub fn new(work_dir: impl Into<PathBuf>, version: u32, memory_bytes: u64) -> Self {
        Self {
            work_dir: work_dir.into(),
            name: "worker".to_owned(),
            build: concat!("assay-agent ", env!("CARGO_PKG_VERSION")).to_owned(),
            version,
            kinds: Kind::ALL.to_vec(),
            memory_bytes,
            slots: 1,
            controllers: 1,
            devices: vec![(Device::Cpu, "cpu".to_owned())],
            gpu_shares: BTreeMap::new(),
            waiting_max: 64,
            parts_max: 4096,
            reports_max: 3,
            transfers_max: 8,
            times: Times::default(),
        }
    }

    /// What a device is called.
    pub(crate) fn model(&self, device: Device) -> String {
        let known = self.devices.iter().find(|(known, _)| *known == device);
        known.map_or_else(|| device.to_string(), |(_, model)| model.clone())
    }
}

/// Why a worker cannot work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AgentError {
    /// Its folder.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// A name that the queue does not take.
    #[error(transparent)]
    Name(#[from] NameError),
    /// It has lost its last device, and has left.
    #[error("no device is left: {faults}")]
    NoDevice {
        /// Which were lost, and why.
        faults: String,
    },
}

/// What a worker is asked from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// End in good order. A second time: without waiting for running tasks.
    Leave,
}

/// A worker: queue, store, runner and key together.
pub struct Agent {
    config: AgentConfig,
    queue: Arc<dyn TaskQueue>,
    store: Arc<dyn ArtifactStore>,
    runner: Arc<dyn Runner>,
    key: Arc<WorkerKey>,
    folder: Arc<Folder>,
}

impl Agent {
    /// Opens the work folder.
    ///
    /// # Errors
    /// [`AgentError::Folder`].
    pub fn open(
        config: AgentConfig,
        queue: Arc<dyn TaskQueue>,
        store: Arc<dyn ArtifactStore>,
        runner: Arc<dyn Runner>,
        key: WorkerKey,
    ) -> Result<Self, AgentError> {
        let folder = Arc::new(Folder::open(&config.work_dir)?);
        Ok(Self { config, queue, store, runner, key: Arc::new(key), folder })
    }

    /// Works until it is told to leave and has left. Queue and store may come and go meanwhile.
    ///
    /// # Errors
    /// [`AgentError`]: at the start, and [`AgentError::NoDevice`].
    pub async fn run(self, signals: mpsc::Receiver<Signal>) -> Result<(), AgentError> {
        let (session, kept) = self.folder.begin(unix_ms())?;
        let Self { config, queue, store, runner, key, folder } = self;
        tracing::info!(worker = %key.worker(), session, name = config.name, "starting");
        let (inputs, input_queue) = mpsc::channel(INPUTS_MAX);
        let (to_agent, from_runners) = mpsc::channel(INPUTS_MAX);
        let saved = kept.iter().map(|kept| Saved {
            dispatch: kept.dispatch.clone(),
            report: kept.sealed.as_ref().map(|sealed| sealed.report.clone()),
        });
        let state = State::new(settings(&config, &key, session), saved.collect(), 0);
        let works = kept.into_iter().map(|kept| {
            let dir = folder.attempt(kept.dispatch.attempt);
            (kept.dispatch.attempt, Arc::new(Work::restored(kept, dir)))
        });
        let works = works.collect();
        let (letters, letter_queue) = mpsc::channel(LETTERS_MAX);
        let poster = tokio::spawn(link::post(queue.clone(), letter_queue, inputs.clone()));
        let (batches, batch_queue) = mpsc::channel(1);
        let reader = Reader::start(&queue, &batches, key.worker(), session)?;
        let transfers = Semaphore::new(config.transfers_max.max(1));
        let tools = Tools { config, store, runner, key, folder, to_agent, transfers };
        let runtime = Loop {
            state,
            works,
            tools: Arc::new(tools),
            queue,
            inputs,
            letters,
            batches,
            reader,
            begun: Instant::now(),
        };
        let (state, tools) = runtime.run(input_queue, from_runners, batch_queue, signals).await;
        poster.abort();
        tools.runner.close().await;
        let faults = lost(&state, &tools.config);
        if state.is_useless() && !faults.is_empty() {
            return Err(AgentError::NoDevice { faults: faults.join("; ") });
        }
        Ok(())
    }
}

fn settings(config: &AgentConfig, key: &WorkerKey, session: u64) -> Settings {
    Settings {
        worker: key.worker(),
        session,
        profile: Profile {
            kinds: config.kinds.clone(),
            version: config.version,
            memory_bytes: config.memory_bytes,
            slots: config.slots,
            controllers: config.controllers,
        },
        devices: config.devices.iter().map(|(device, _)| *device).collect(),
        waiting_max: config.waiting_max,
        parts_max: config.parts_max,
        reports_max: config.reports_max,
        times: config.times.clone(),
        // Workers that start together must not retry together.
        seed: rand::random(),
    }
}

/// Devices that are out of service, for people.
fn lost(state: &State, config: &AgentConfig) -> Vec<String> {
    state.out().map(|(device, fault)| format!("GPU {device} ({}): {fault}", config.model(device))).collect()
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The loop and what it holds.
struct Loop {
    state: State,
    works: BTreeMap<AttemptId, Arc<Work>>,
    tools: Arc<Tools>,
    queue: Arc<dyn TaskQueue>,
    inputs: mpsc::Sender<Input>,
    letters: mpsc::Sender<Letter>,
    batches: mpsc::Sender<Batch>,
    reader: Reader,
    begun: Instant,
}

/// Whether the process goes on.
type Goes = std::ops::ControlFlow<()>;

impl Loop {
    async fn run(
        mut self,
        mut inputs: mpsc::Receiver<Input>,
        mut runners: mpsc::Receiver<FromRunner>,
        mut batches: mpsc::Receiver<Batch>,
        mut signals: mpsc::Receiver<Signal>,
    ) -> (State, Arc<Tools>) {
        let mut clock = tokio::time::interval(TICK);
        clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut is_signalled = true;
        loop {
            let goes = tokio::select! {
                Some(input) = inputs.recv() => self.give(input),
                Some(told) = runners.recv() => self.hear_runner(told),
                Some(batch) = batches.recv() => self.read(batch),
                signal = signals.recv(), if is_signalled => match signal {
                    Some(Signal::Leave) => self.give(Input::Leave),
                    None => {
                        is_signalled = false;
                        Goes::Continue(())
                    }
                },
                _ = clock.tick() => self.give(Input::Tick),
            };
            if goes.is_break() {
                tracing::info!("left");
                return (self.state, self.tools);
            }
        }
    }

    /// Steps the state.
    fn give(&mut self, input: Input) -> Goes {
        if let Input::Mail(mail) = &input {
            tracing::trace!(?mail, "mail");
        }
        let now_ms = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        match self.state.step(input, now_ms) {
            Ok(actions) => actions.into_iter().try_for_each(|action| self.carry_out(action)),
            Err(refused) => {
                // Repetitions and late messages, mostly.
                tracing::debug!(%refused, "refused");
                Goes::Continue(())
            }
        }
    }

    fn read(&mut self, batch: Batch) -> Goes {
        let Batch { session, mails, is_over, dealt_with } = batch;
        if session != self.state.session() {
            return Goes::Continue(());
        }
        for bytes in mails {
            match serde_json::from_slice(&bytes) {
                Ok(mail) => self.give(Input::Mail(mail))?,
                Err(error) => tracing::warn!(%error, "a mail that is none"),
            }
        }
        let _ = dealt_with.send(());
        if is_over {
            tracing::info!(session, "the session is over");
            let session = unix_ms().max(session + 1);
            return self.give(Input::SessionOver { session });
        }
        Goes::Continue(())
    }

    fn hear_runner(&mut self, told: FromRunner) -> Goes {
        match told {
            FromRunner::Progress { attempt, progress } => {
                let (phase, done, total) = (&progress.phase, progress.done, progress.total);
                tracing::debug!(%attempt, phase, done, total, "progress");
                Goes::Continue(())
            }
            FromRunner::Part { attempt, part, answer } => {
                let Some(work) = self.works.get(&attempt).cloned() else {
                    let _ = answer.send(Err(PartError::Cancelled));
                    return Goes::Continue(());
                };
                let (key, kind, units) = (part.key, part.kind, part.units);
                work.add_part(part, answer);
                let now_ms = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
                match self.state.step(Input::Part { attempt, key, kind, units }, now_ms) {
                    Ok(actions) => actions.into_iter().try_for_each(|action| self.carry_out(action)),
                    Err(_) => {
                        work.give_part(&key, Some(PartError::Cancelled));
                        Goes::Continue(())
                    }
                }
            }
        }
    }

    fn carry_out(&mut self, action: Action) -> Goes {
        match action {
            Action::Post { post, event } => self.send(post, &event),
            Action::Fetch { attempt } => self.fetch(attempt),
            Action::Run { attempt, device } => self.begin(attempt, move |tools, work| async move {
                Input::Ended { attempt, result: tools.run(&work, device).await }
            }),
            Action::Stop { attempt } => {
                if let Some(work) = self.works.get(&attempt) {
                    tracing::info!(%attempt, "stopping");
                    work.stop();
                }
            }
            Action::Publish { attempt } => self.begin(attempt, move |tools, work| async move {
                Input::Published { attempt, result: tools.publish(&work).await }
            }),
            Action::Seal { attempt, report, outcome } => {
                tracing::info!(%attempt, ?outcome, "ended");
                self.begin(attempt, move |tools, work| async move {
                    tools.seal(&work, report, outcome).await;
                    Input::Sealed { attempt }
                });
            }
            Action::PublishPart { attempt, key, is_again } => {
                self.begin(attempt, move |tools, work| async move {
                    let result = tools.publish_part(&work, &key, is_again).await;
                    Input::PartPublished { attempt, key, result }
                });
            }
            Action::FetchPart { attempt, key, outputs } => {
                self.begin(attempt, move |tools, work| async move {
                    let result = tools.fetch_part(&work, &key, &outputs).await;
                    Input::PartFetched { attempt, key, result }
                });
            }
            Action::GivePart { attempt, key, error } => {
                if let Some(work) = self.works.get(&attempt) {
                    work.give_part(&key, error);
                }
            }
            Action::Health { device, fault } => {
                self.log_health(device, fault.as_ref());
                if fault.is_some() {
                    let tools = self.tools.clone();
                    tokio::spawn(async move { tools.runner.let_go(device).await });
                }
            }
            Action::Check { device } => {
                let (tools, inputs) = (self.tools.clone(), self.inputs.clone());
                tokio::spawn(async move {
                    let is_there = tools.runner.has(device).await;
                    // The loop that is gone wants no answer.
                    let _ = inputs.send(Input::Checked { device, is_there }).await;
                });
            }
            Action::Clean { attempt } => self.clean(attempt),
            Action::Session { session } => self.change_session(session),
            Action::Exit => return Goes::Break(()),
        }
        Goes::Continue(())
    }

    fn log_health(&self, device: Device, fault: Option<&DeviceFault>) {
        let model = self.tools.config.model(device);
        match fault {
            Some(fault) => tracing::error!(%device, model, %fault, "taken out of service"),
            None => tracing::info!(%device, model, "back in service"),
        }
    }

    fn fetch(&mut self, attempt: AttemptId) {
        let dispatch: Option<Arc<Dispatch>> = self.state.dispatch(attempt).cloned();
        if let Some(dispatch) = dispatch {
            tracing::info!(%attempt, batch = %dispatch.batch, stage = ?dispatch.stage, "taken");
            self.work_of(&dispatch);
        }
        self.begin(attempt, move |tools, work| async move {
            Input::Fetched { attempt, result: tools.fetch(&work).await }
        });
    }

    fn work_of(&mut self, dispatch: &Arc<Dispatch>) -> Arc<Work> {
        let dir = self.tools.folder.attempt(dispatch.attempt);
        let new = || Arc::new(Work::new(dispatch.clone(), dir));
        self.works.entry(dispatch.attempt).or_insert_with(new).clone()
    }

    /// Starts an operation; its end comes back as an input.
    fn begin<F>(&mut self, attempt: AttemptId, operation: impl FnOnce(Arc<Tools>, Arc<Work>) -> F)
    where
        F: std::future::Future<Output = Input> + Send + 'static,
    {
        // A task may be refused before anything of it is fetched.
        let work = match (self.works.get(&attempt), self.state.dispatch(attempt)) {
            (Some(work), _) => work.clone(),
            (None, Some(dispatch)) => {
                let dispatch = dispatch.clone();
                self.work_of(&dispatch)
            }
            (None, None) => return,
        };
        let operation = operation(self.tools.clone(), work);
        let inputs = self.inputs.clone();
        tokio::spawn(async move {
            // The loop that is gone wants no answer.
            let _ = inputs.send(operation.await).await;
        });
    }

    fn send(&mut self, post: PostId, event: &Event) {
        let mut messages = vec![wire::encode(event)];
        match event {
            Event::Join { .. } => {
                let config = &self.tools.config;
                let is_out = |device: &Device| self.state.out().any(|(out, _)| out == *device);
                let devices = config.devices.iter().filter(|(device, _)| !is_out(device));
                let about = About {
                    worker: self.tools.key.worker(),
                    name: config.name.clone(),
                    devices: devices.map(|(_, model)| model.clone()).collect(),
                    build: config.build.clone(),
                    public_key: self.tools.key.public(),
                };
                let worker = about.worker;
                messages.push(wire::encode(&Extra::About(about)));
                let lost = lost(&self.state, config);
                if !lost.is_empty() {
                    messages.push(wire::encode(&Extra::Health(Health { worker, lost })));
                }
            }
            Event::Result { attempt, .. } => {
                let receipt = self.works.get(attempt).and_then(|work| work.receipt());
                messages.extend(receipt.map(|receipt| wire::encode(&Extra::Receipt(receipt))));
            }
            _ => {}
        }
        let messages = messages.into_iter().filter_map(|message| match message {
            Ok(message) => Some(message),
            Err(error) => {
                tracing::error!(%error, "a message does not encode");
                None
            }
        });
        let letter = Letter { post, messages: messages.collect() };
        if self.letters.try_send(letter).is_err() {
            // Cannot be: the state has fewer under way than fit. It would wait for this answer for ever.
            tracing::error!("the poster is gone");
        }
    }

    fn clean(&mut self, attempt: AttemptId) {
        if let Some(work) = self.works.remove(&attempt) {
            work.stop();
            work.drop_parts();
        }
        let folder = self.tools.folder.clone();
        tokio::task::spawn_blocking(move || {
            if let Err(error) = folder.remove(attempt) {
                tracing::warn!(%error, "left behind");
            }
        });
    }

    fn change_session(&mut self, session: u64) {
        if let Err(error) = self.tools.folder.set_session(session) {
            // The clock gives the next one a higher number all the same.
            tracing::warn!(%error, "the session's number is not stored");
        }
        match Reader::start(&self.queue, &self.batches, self.tools.key.worker(), session) {
            Ok(reader) => self.reader = reader,
            Err(error) => tracing::error!(%error, "no mailbox"),
        }
    }
}
