//! Metrics in the OpenMetrics text format, which Prometheus reads.
//!
//! Counters are this process's: only the leader counts what is committed, each record once. Gauges of the cluster are set
//! from the state at each scrape, by the leader alone, so that a sum over all coordinators is right.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use assay_queue::{Health, Usage};
use parking_lot::Mutex;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::api::view::kind_name;
use crate::shared::Role;
use crate::state::{phase_name, AttemptState, Fact, State, PHASES};

/// `Content-Type` of [`Metrics::text`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Upper bounds of the buckets for durations of tasks and batches, in seconds.
const TASK_SECONDS: [f64; 14] =
    [0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0, 14_400.0];
/// The same for requests and commits.
const CALL_SECONDS: [f64; 11] = [0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.0, 10.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TaskLabels {
    kind: &'static str,
    device: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AttemptLabels {
    kind: &'static str,
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DeviceLabel {
    device: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SlotLabels {
    worker: String,
    device: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WorkerLabel {
    worker: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PhaseLabel {
    phase: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabel {
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HttpLabels {
    route: &'static str,
    status: u16,
}

#[derive(Clone)]
struct Buckets(&'static [f64]);

impl MetricConstructor<Histogram> for Buckets {
    fn new_metric(&self) -> Histogram {
        Histogram::new(self.0.iter().copied())
    }
}

type Seconds = Counter<f64, AtomicU64>;
type GaugeU64 = Gauge<u64, AtomicU64>;
type GaugeF64 = Gauge<f64, AtomicU64>;

/// Devices that have a label of their own. Their names come from workers.
const DEVICES_MAX: usize = 64;
/// Workers that have labels of their own.
const WORKERS_MAX: usize = 256;

/// All metrics of a coordinator.
pub struct Metrics {
    registry: Registry,
    devices: Mutex<BTreeSet<String>>,
    /// One scrape at a time: gauges are set and read together.
    scrape: Mutex<()>,
    task_seconds: Family<TaskLabels, Histogram, Buckets>,
    attempts: Family<AttemptLabels, Counter>,
    wasted_seconds: Family<KindLabel, Seconds>,
    verification_failures: Family<KindLabel, Counter>,
    gpu_seconds: Family<DeviceLabel, Seconds>,
    cpu_seconds: Family<DeviceLabel, Seconds>,
    gpu_retries: Family<DeviceLabel, Counter>,
    gpu_fallbacks: Family<DeviceLabel, Counter>,
    retries: Counter,
    submitted: Counter,
    ended: Family<PhaseLabel, Counter>,
    batch_seconds: Family<PhaseLabel, Histogram, Buckets>,
    requests_refused: Counter,
    webhooks: Family<ResultLabel, Counter>,
    bad_messages: Counter,
    events_refused: Family<ResultLabel, Counter>,
    commit_seconds: Histogram,
    checkpoint_bytes: GaugeU64,
    http_requests: Family<HttpLabels, Counter>,
    http_seconds: Histogram,
    leading: GaugeU64,
    epoch: GaugeU64,
    work: GaugeU64,
    standbys: GaugeU64,
    batches: Family<PhaseLabel, GaugeU64>,
    tasks_running: Family<KindLabel, GaugeU64>,
    tasks_queued: Family<KindLabel, GaugeU64>,
    task_queue_age: Family<KindLabel, GaugeF64>,
    workers: Family<StateLabel, GaugeU64>,
    device_slots: Family<SlotLabels, GaugeU64>,
    device_slots_busy: Family<SlotLabels, GaugeU64>,
    devices_lost: Family<WorkerLabel, GaugeU64>,
    webhooks_pending: GaugeU64,
    inbox: GaugeU64,
    inbox_bytes: GaugeU64,
    log_records: GaugeU64,
    log_bytes: GaugeU64,
    mailboxes: GaugeU64,
    mail_bytes: GaugeU64,
    redis_bytes: GaugeU64,
    redis_bytes_max: GaugeU64,
    queue_warnings: GaugeU64,
    artifacts: GaugeU64,
    artifact_bytes: GaugeU64,
    artifact_bytes_max: GaugeU64,
    artifact_holds: GaugeU64,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Metrics at zero.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("assay");
        let r = &mut registry;
        Self {
            scrape: Mutex::new(()),
            devices: Mutex::default(),
            task_seconds: histograms(
                r,
                "task_seconds",
                "Time of attempts whose result counts",
                &TASK_SECONDS,
            ),
            attempts: add(r, "attempts", "Attempts that ended, by how"),
            wasted_seconds: add(r, "wasted_seconds", "Time of attempts whose result does not count"),
            verification_failures: add(r, "verification_failures", "Results that did not verify"),
            gpu_seconds: add(r, "gpu_seconds", "Device time, as workers' receipts say"),
            cpu_seconds: add(r, "cpu_seconds", "CPU time, as workers' receipts say"),
            gpu_retries: add(r, "gpu_retries", "Calls that a GPU was given twice, as workers' receipts say"),
            gpu_fallbacks: add(r, "gpu_fallbacks", "Calls done on the CPU because a GPU had failed"),
            retries: add(r, "retries", "Attempts that ended without their result counting"),
            submitted: add(r, "batches_submitted", "Batches taken"),
            ended: add(r, "batches_ended", "Batches that ended, by how"),
            batch_seconds: histograms(r, "batch_seconds", "Time from submission to end", &TASK_SECONDS),
            requests_refused: add(
                r,
                "requests_refused",
                "Submissions and cancellations refused by the leader",
            ),
            webhooks: add(r, "webhooks", "Calls of webhooks"),
            bad_messages: add(r, "bad_messages", "Messages in the inbox that were not taken"),
            events_refused: add(r, "events_refused", "Events that the schedule refused"),
            commit_seconds: histogram(r, "commit_seconds", "Time of commits", &CALL_SECONDS),
            checkpoint_bytes: add(r, "checkpoint_bytes", "Size of the last checkpoint"),
            http_requests: add(r, "http_requests", "Requests answered"),
            http_seconds: histogram(r, "http_request_seconds", "Time until the answer begins", &CALL_SECONDS),
            leading: add(r, "leading", "Whether this coordinator leads"),
            epoch: add(r, "leader_epoch", "The term"),
            work: add(r, "work_running", "Effects that the leader carries out"),
            standbys: add(r, "standbys", "Coordinators that follow"),
            batches: add(r, "batches", "Batches known, by phase"),
            task_queue_age: add(r, "task_queue_age_seconds", "How long the oldest of them has waited"),
            tasks_queued: add(r, "tasks_queued", "Tasks that could be sent and are not"),
            tasks_running: add(r, "tasks_running", "Attempts under way"),
            workers: add(r, "workers", "Workers known"),
            device_slots: add(r, "device_slots", "Places for tasks on the devices of workers that are here"),
            device_slots_busy: add(r, "device_slots_busy", "Those of them that a task has now"),
            devices_lost: add(r, "devices_lost", "Devices of workers that are here, out of service"),
            webhooks_pending: add(r, "webhooks_pending", "Webhooks still to be delivered"),
            inbox: add(r, "inbox_events", "Events that wait for the leader"),
            inbox_bytes: add(r, "inbox_bytes", "Their size"),
            log_records: add(r, "log_records", "Records since the last checkpoint"),
            log_bytes: add(r, "log_bytes", "Their size"),
            mailboxes: add(r, "mailboxes", "Mailboxes"),
            mail_bytes: add(r, "mail_bytes", "Size of all mails"),
            redis_bytes: add(r, "redis_memory_bytes", "Memory that Redis uses"),
            redis_bytes_max: add(
                r,
                "redis_memory_bytes_max",
                "Memory that Redis may use, 0 if it has no limit",
            ),
            queue_warnings: add(r, "queue_warnings", "What an operator should change"),
            artifacts: add(r, "artifacts", "Artifacts in the store"),
            artifact_bytes: add(r, "artifact_bytes", "Their size, publications under way included"),
            artifact_bytes_max: add(r, "artifact_bytes_max", "What the store may hold"),
            artifact_holds: add(r, "artifact_holds", "Holds on artifacts"),
            registry,
        }
    }

    /// Counts what a committed record has led to.
    pub fn count(&self, fact: &Fact) {
        match fact {
            Fact::Attempt { kind, state, elapsed_ms, device, .. } => {
                let kind = kind_name(*kind);
                let seconds = *elapsed_ms as f64 / 1000.0;
                self.attempts.get_or_create(&AttemptLabels { kind, state: state.name() }).inc();
                if *state == AttemptState::Accepted {
                    let labels = TaskLabels { kind, device: self.device(device) };
                    self.task_seconds.get_or_create(&labels).observe(seconds);
                    return;
                }
                self.retries.inc();
                self.wasted_seconds.get_or_create(&KindLabel { kind }).inc_by(seconds);
                if *state == AttemptState::Rejected {
                    self.verification_failures.get_or_create(&KindLabel { kind }).inc();
                }
            }
            Fact::Usage { device, gpu_ms, cpu_ms, gpu_retries, gpu_fallbacks } => {
                let labels = DeviceLabel { device: self.device(device) };
                self.gpu_seconds.get_or_create(&labels).inc_by(*gpu_ms as f64 / 1000.0);
                self.cpu_seconds.get_or_create(&labels).inc_by(*cpu_ms as f64 / 1000.0);
                self.gpu_retries.get_or_create(&labels).inc_by((*gpu_retries).into());
                self.gpu_fallbacks.get_or_create(&labels).inc_by((*gpu_fallbacks).into());
            }
            Fact::Submitted => {
                self.submitted.inc();
            }
            Fact::Ended { phase, elapsed_ms } => {
                self.ended.get_or_create(&PhaseLabel { phase }).inc();
                self.batch_seconds.get_or_create(&PhaseLabel { phase }).observe(*elapsed_ms as f64 / 1000.0);
            }
            Fact::Refused => {
                self.requests_refused.inc();
            }
            Fact::Called { is_delivered } => {
                let result = if *is_delivered { "delivered" } else { "failed" };
                self.webhooks.get_or_create(&ResultLabel { result }).inc();
            }
        }
    }

    /// A device's label: its name, unless there are too many names.
    fn device(&self, name: &str) -> String {
        let mut devices = self.devices.lock();
        if !devices.contains(name) {
            if devices.len() >= DEVICES_MAX {
                return "other".into();
            }
            devices.insert(name.to_owned());
        }
        name.to_owned()
    }

    pub(crate) fn bad_message(&self) {
        self.bad_messages.inc();
    }

    pub(crate) fn refused(&self, error: &assay_schedule::Error) {
        let result = match error.class() {
            assay_schedule::Class::Transient => "transient",
            assay_schedule::Class::Permanent => "permanent",
        };
        self.events_refused.get_or_create(&ResultLabel { result }).inc();
    }

    pub(crate) fn commit(&self, elapsed: Duration) {
        self.commit_seconds.observe(elapsed.as_secs_f64());
    }

    pub(crate) fn checkpoint(&self, bytes: u64) {
        self.checkpoint_bytes.set(bytes);
    }

    pub(crate) fn leading(&self, work: u64, standbys: u64) {
        self.work.set(work);
        self.standbys.set(standbys);
    }

    pub(crate) fn http(&self, route: &'static str, status: u16, elapsed: Duration) {
        self.http_requests.get_or_create(&HttpLabels { route, status }).inc();
        self.http_seconds.observe(elapsed.as_secs_f64());
    }

    /// The text of a scrape.
    pub fn text(
        &self,
        role: Role,
        state: Option<&State>,
        queue: Option<&Health>,
        store: Option<&Usage>,
    ) -> String {
        let _one = self.scrape.lock();
        let leads = match role {
            Role::Leading { epoch } => {
                self.epoch.set(epoch);
                true
            }
            Role::Standby => false,
        };
        self.leading.set(u64::from(leads));
        self.clear();
        if leads {
            state.into_iter().for_each(|state| self.set_cluster(state));
            queue.into_iter().for_each(|health| self.set_queue(health));
            store.into_iter().for_each(|usage| self.set_store(usage));
        }
        let mut text = String::new();
        if encode(&mut text, &self.registry).is_err() {
            tracing::error!("metrics cannot be written");
        }
        text
    }

    /// Gauges of the cluster are the leader's to tell.
    fn clear(&self) {
        self.batches.clear();
        self.tasks_running.clear();
        self.tasks_queued.clear();
        self.task_queue_age.clear();
        self.workers.clear();
        self.device_slots.clear();
        self.device_slots_busy.clear();
        self.devices_lost.clear();
        for gauge in [&self.inbox, &self.inbox_bytes, &self.log_records, &self.log_bytes, &self.mailboxes] {
            gauge.set(0);
        }
        for gauge in [&self.mail_bytes, &self.redis_bytes, &self.redis_bytes_max, &self.queue_warnings] {
            gauge.set(0);
        }
        for gauge in [&self.artifacts, &self.artifact_bytes, &self.artifact_bytes_max, &self.artifact_holds] {
            gauge.set(0);
        }
        self.webhooks_pending.set(0);
    }

    /// How busy devices are: a slot is a device, or a share of one, and a controller takes none.
    fn set_devices(&self, state: &State) {
        for (number, worker) in state.machine().workers().filter(|worker| worker.present).enumerate() {
            let name = state.about(worker.worker).map(|about| about.name.clone());
            let name = name.filter(|_| number < WORKERS_MAX).unwrap_or_else(|| "other".into());
            let lost = state.lost(worker.worker).len() as u64;
            self.devices_lost.get_or_create(&WorkerLabel { worker: name.clone() }).inc_by(lost);
            let labels = SlotLabels { worker: name, device: self.device(&state.device(worker.worker)) };
            let busy = worker.running.saturating_sub(worker.controllers);
            self.device_slots.get_or_create(&labels).inc_by(worker.slots.into());
            self.device_slots_busy.get_or_create(&labels).inc_by(busy.into());
        }
    }

    fn set_cluster(&self, state: &State) {
        // What there is none of is 0, not absent.
        for phase in PHASES {
            self.batches.get_or_create(&PhaseLabel { phase }).set(0);
        }
        for state in ["present", "gone", "quarantined"] {
            self.workers.get_or_create(&StateLabel { state }).set(0);
        }
        for (_, history) in state.histories() {
            self.batches.get_or_create(&PhaseLabel { phase: phase_name(&history.phase) }).inc();
        }
        let mut running: BTreeMap<&'static str, u64> = BTreeMap::new();
        for kind in assay_schedule::Kind::ALL {
            running.insert(kind_name(kind), 0);
        }
        for kind in state.running() {
            *running.entry(kind_name(kind)).or_default() += 1;
        }
        for (kind, count) in running {
            self.tasks_running.get_or_create(&KindLabel { kind }).set(count);
        }
        let (queued, since) = (state.machine().queued(), state.machine().queued_since());
        for kind in assay_schedule::Kind::ALL {
            let label = KindLabel { kind: kind_name(kind) };
            self.tasks_queued.get_or_create(&label).set(queued[kind]);
            let age_ms = since[kind].map_or(0, |since| state.now().since(since));
            self.task_queue_age.get_or_create(&label).set(age_ms as f64 / 1000.0);
        }
        self.set_devices(state);
        for worker in state.machine().workers() {
            let state = match (worker.present, worker.quarantined_until) {
                (_, Some(_)) => "quarantined",
                (true, None) => "present",
                (false, None) => "gone",
            };
            self.workers.get_or_create(&StateLabel { state }).inc();
        }
        self.webhooks_pending.set(state.callbacks().count() as u64);
    }

    fn set_queue(&self, health: &Health) {
        self.inbox.set(health.events);
        self.inbox_bytes.set(health.event_bytes);
        self.log_records.set(health.records);
        self.log_bytes.set(health.record_bytes);
        self.mailboxes.set(health.mailboxes);
        self.mail_bytes.set(health.mail_bytes);
        self.redis_bytes.set(health.memory_bytes.unwrap_or(0));
        self.redis_bytes_max.set(health.memory_bytes_max.unwrap_or(0));
        self.queue_warnings.set(health.warnings.len() as u64);
    }

    fn set_store(&self, usage: &Usage) {
        self.artifacts.set(usage.artifacts);
        self.artifact_bytes.set(usage.bytes + usage.reserved_bytes);
        self.artifact_bytes_max.set(usage.bytes_max);
        self.artifact_holds.set(usage.holds);
    }
}

fn add<M>(registry: &mut Registry, name: &str, help: &str) -> M
where
    M: prometheus_client::registry::Metric + Clone + Default,
{
    let metric = M::default();
    registry.register(name, help, metric.clone());
    metric
}

fn histogram(registry: &mut Registry, name: &str, help: &str, buckets: &'static [f64]) -> Histogram {
    let metric = Histogram::new(buckets.iter().copied());
    registry.register(name, help, metric.clone());
    metric
}

fn histograms<L>(
    registry: &mut Registry,
    name: &str,
    help: &str,
    buckets: &'static [f64],
) -> Family<L, Histogram, Buckets>
where
    L: Clone + std::hash::Hash + Eq + EncodeLabelSet + std::fmt::Debug + Send + Sync + 'static,
{
    let metric = Family::new_with_constructor(Buckets(buckets));
    registry.register(name, help, metric.clone());
    metric
}

#[cfg(test)]
mod tests {
    use assay_schedule::{Epoch, Event, Kind, Limits, Profile, Time, WorkerId};

    use super::*;
    use crate::state::{About, Entry, Record};

    /// Metrics that have seen everything.
    fn all() -> Metrics {
        let metrics = Metrics::new();
        for state in
            [AttemptState::Accepted, AttemptState::Rejected, AttemptState::Failed, AttemptState::Revoked]
        {
            metrics.count(&Fact::Attempt {
                kind: Kind::Shard,
                worker: WorkerId(1),
                device: "sim".into(),
                state,
                elapsed_ms: 1500,
            });
        }
        metrics.count(&usage("sim".into(), 10));
        metrics.count(&Fact::Submitted);
        metrics.count(&Fact::Ended { phase: "settled", elapsed_ms: 2500 });
        metrics.count(&Fact::Refused);
        metrics.count(&Fact::Called { is_delivered: true });
        metrics.bad_message();
        metrics.refused(&assay_schedule::Error::NoLeader);
        metrics.commit(Duration::from_millis(1));
        metrics.http("batches", 200, Duration::from_millis(1));
        metrics
    }

    fn usage(device: String, ms: u64) -> Fact {
        Fact::Usage { device, gpu_ms: ms, cpu_ms: ms, gpu_retries: 2, gpu_fallbacks: 1 }
    }

    fn health(worker: WorkerId) -> crate::state::Health {
        crate::state::Health { worker, lost: vec!["GPU 3 (sim): lost".into()] }
    }

    fn scrape(metrics: &Metrics, role: Role) -> String {
        let mut state = State::new(Limits::default()).unwrap();
        let profile =
            Profile { kinds: Kind::ALL.to_vec(), version: 1, memory_bytes: 1, slots: 3, controllers: 1 };
        let worker = WorkerId(1);
        let about =
            About { worker, name: "gpu-1".into(), devices: vec!["sim".into(); 3], build: String::new() };
        for entry in [
            Entry::Event(Event::TakeOver { epoch: Epoch(1) }),
            Entry::Event(Event::Join { worker, session: 1, profile }),
            Entry::About(about),
            Entry::Health(health(worker)),
        ] {
            state.apply(&Record { at: Time(1), entry }).unwrap();
        }
        metrics.text(role, Some(&state), Some(&Health::default()), Some(&Usage::default()))
    }

    /// Names with their types.
    fn types(text: &str) -> BTreeMap<String, String> {
        let lines = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        lines.filter_map(|line| line.split_once(' ')).map(|(name, kind)| (name.into(), kind.into())).collect()
    }

    /// Every object that has a field `expr`, wherever it stands.
    fn targets<'a>(value: &'a serde_json::Value, found: &mut Vec<&'a serde_json::Value>) {
        match value {
            serde_json::Value::Object(fields) => {
                if fields.contains_key("expr") {
                    found.push(value);
                }
                fields.values().for_each(|value| targets(value, found));
            }
            serde_json::Value::Array(values) => values.iter().for_each(|value| targets(value, found)),
            _ => {}
        }
    }

    fn between<'a>(text: &'a str, open: &'a str, close: &'a str) -> impl Iterator<Item = &'a str> {
        text.split(open).skip(1).filter_map(move |rest| Some(rest.split_once(close)?.0))
    }

    #[test]
    fn what_operators_watch_is_measured() {
        let text = scrape(&all(), Role::Leading { epoch: 3 });
        let types = types(&text);
        for (name, kind) in [
            ("assay_tasks_queued", "gauge"),
            ("assay_task_queue_age_seconds", "gauge"),
            ("assay_inbox_events", "gauge"),
            ("assay_task_seconds", "histogram"),
            ("assay_retries", "counter"),
            ("assay_wasted_seconds", "counter"),
            ("assay_verification_failures", "counter"),
            ("assay_artifact_bytes", "gauge"),
            ("assay_redis_memory_bytes", "gauge"),
            ("assay_gpu_seconds", "counter"),
            ("assay_gpu_retries", "counter"),
            ("assay_gpu_fallbacks", "counter"),
            ("assay_device_slots", "gauge"),
            ("assay_device_slots_busy", "gauge"),
            ("assay_devices_lost", "gauge"),
        ] {
            assert_eq!(types.get(name).map(String::as_str), Some(kind), "{name}");
        }
        assert!(text.contains("assay_task_seconds_count{kind=\"shard\",device=\"sim\"}"), "{text}");
        assert!(text.contains("assay_device_slots{worker=\"gpu-1\",device=\"sim\"} 3"), "{text}");
        assert!(text.contains("assay_device_slots_busy{worker=\"gpu-1\",device=\"sim\"} 0"), "{text}");
        assert!(text.contains("assay_devices_lost{worker=\"gpu-1\"} 1"), "{text}");
        assert!(text.contains("assay_gpu_retries_total{device=\"sim\"} 2"), "{text}");
        assert!(text.contains("assay_gpu_fallbacks_total{device=\"sim\"} 1"), "{text}");
    }

    #[test]
    fn the_dashboard_asks_only_for_metrics_that_exist() {
        let text = scrape(&all(), Role::Leading { epoch: 3 });
        let types = types(&text);
        let dashboard: serde_json::Value =
            serde_json::from_str(include_str!("../../../deploy/grafana/assay.json")).unwrap();
        let (mut asked, mut found) = (BTreeSet::new(), Vec::new());
        targets(&dashboard, &mut found);
        assert!(found.len() > 30);
        for target in found {
            let expression = target["expr"].as_str().unwrap();
            let groups: BTreeSet<&str> =
                between(expression, "by (", ")").flat_map(|list| list.split(',')).map(str::trim).collect();
            let filters: Vec<&str> = between(expression, "{", "=").collect();
            for label in groups.iter().chain(&filters) {
                assert!(text.contains(&format!("{label}=\"")), "label {label} in {expression}");
            }
            for shown in between(target["legendFormat"].as_str().unwrap_or_default(), "{{", "}}") {
                assert!(groups.contains(shown.trim()), "{shown} is shown but not asked for by {expression}");
            }
            let is_name = |char: char| char.is_ascii_alphanumeric() || char == '_';
            let names: Vec<&str> =
                expression.split(|char| !is_name(char)).filter(|word| word.starts_with("assay_")).collect();
            assert!(!names.is_empty(), "{expression}");
            for name in names {
                let stripped = [("_total", "counter"), ("_bucket", "histogram"), ("_sum", "histogram")]
                    .into_iter()
                    .find_map(|(suffix, kind)| Some((name.strip_suffix(suffix)?, kind)));
                let (name, kind) = stripped.unwrap_or((name, "gauge"));
                assert_eq!(types.get(name).map(String::as_str), Some(kind), "{name} in {expression}");
                asked.insert(name.to_owned());
            }
        }
        // And the other way round: nothing is measured that nobody looks at.
        for name in types.keys() {
            assert!(asked.contains(name), "{name} is not on the dashboard");
        }
    }

    #[test]
    fn only_the_leader_tells_of_the_cluster() {
        let metrics = all();
        let leading = scrape(&metrics, Role::Leading { epoch: 3 });
        assert!(leading.contains("\nassay_leading 1\n") && leading.contains("\nassay_leader_epoch 3\n"));
        assert!(leading.contains("assay_tasks_queued{kind=\"wrap\"} 0"));
        assert!(leading.contains("assay_workers{state=\"gone\"} 0"));
        assert!(leading.contains("assay_batches{phase=\"proving\"} 0"));
        let standby = scrape(&metrics, Role::Standby);
        assert!(standby.contains("\nassay_leading 0\n") && !standby.contains("assay_tasks_queued{"));
        assert!(leading.ends_with("# EOF\n"));
    }

    #[test]
    fn workers_cannot_make_the_number_of_labels_grow() {
        let metrics = Metrics::new();
        for number in 0..10 * DEVICES_MAX {
            let device = format!("model {number}");
            metrics.count(&usage(device, 1000));
        }
        let text = scrape(&metrics, Role::Standby);
        let lines: Vec<&str> =
            text.lines().filter(|line| line.starts_with("assay_gpu_seconds_total{")).collect();
        assert_eq!(lines.len(), DEVICES_MAX + 1);
        let rest = format!("assay_gpu_seconds_total{{device=\"other\"}} {}.0", 9 * DEVICES_MAX);
        assert!(lines.contains(&rest.as_str()), "{lines:?}");
    }

    #[test]
    fn attempts_that_do_not_count_are_wasted_time() {
        let text = scrape(&all(), Role::Standby);
        assert!(text.contains("assay_task_seconds_count{kind=\"shard\",device=\"sim\"} 1"), "{text}");
        assert!(text.contains("assay_wasted_seconds_total{kind=\"shard\"} 4.5"), "{text}");
        assert!(text.contains("assay_retries_total 3"));
        assert!(text.contains("assay_verification_failures_total{kind=\"shard\"} 1"));
    }
}
