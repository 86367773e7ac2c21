//! Answers as text.

use crate::story::{clock, duration, shown};
use crate::wire::{Batch, BatchList, Detail, Submitted, Task, Worker, WorkerList};

/// Waiting tasks that are listed.
const TASKS_MAX: usize = 20;

pub(super) fn submitted(answer: &Submitted, deadline_ms: Option<u64>) -> String {
    let id = answer.id;
    let what = if answer.repeated { "was taken before" } else { "is taken" };
    let mut text = format!("batch {id} {what}\n");
    if let Some(ms) = deadline_ms {
        // A repetition has to ask for the same.
        text += &format!("  deadline  {} UTC; to submit it again: --deadline {ms}\n", clock(ms));
    }
    text += &format!("  assay watch {id}     follows it to its end\n  assay fetch {id}     downloads and verifies the result");
    text
}

pub(super) fn list(list: &BatchList) -> String {
    if list.batches.is_empty() {
        return "no batches".into();
    }
    let mut text =
        format!("{:>8}  {:<10} {:>10} {:>8}  {:<10} {}\n", "batch", "phase", "chain", "place", "took", "key");
    // Only operators see those of several.
    let has_others = list.batches.iter().any(|batch| batch.tenant != list.batches[0].tenant);
    for batch in &list.batches {
        let whose = if has_others { format!("tenant {}: ", batch.tenant) } else { String::new() };
        let took = batch.ended_ms.map(|ended| duration(ended.saturating_sub(batch.submitted_ms)));
        text += &format!(
            "{:>8}  {:<10} {:>10} {:>8}  {:<10} {whose}{}\n",
            batch.id,
            shown(&batch.phase),
            batch.chain,
            batch.sequence,
            took.unwrap_or_default(),
            shown(&batch.idempotency_key)
        );
        if let Some(failure) = &batch.failure {
            text += &format!("{:>8}  {}\n", "", shown(&failure.text));
        }
    }
    if let Some(next) = list.next {
        text += &format!("older ones: --before {next}\n");
    }
    text
}

pub(super) fn detail(detail: &Detail) -> String {
    let Batch {
        id, chain, sequence, priority, units, payload_bytes, tasks_done, tasks_running, retries, ..
    } = &detail.batch;
    let batch = &detail.batch;
    let end = batch.ended_ms.unwrap_or(detail.now_ms).saturating_sub(batch.submitted_ms);
    let took = if batch.ended_ms.is_some() { "took" } else { "so far" };
    let mut text = format!(
        "batch {id} is {}\n  place       {sequence} of chain {chain}\n  key         {}\n  work        {units} gas, {payload_bytes} \
         bytes, priority {priority}, version {}\n  submitted   {} UTC, {took} {}\n  tasks       {tasks_done} done, \
         {tasks_running} running, {retries} repeated\n",
        shown(&batch.phase),
        shown(&batch.idempotency_key),
        batch.version,
        clock(batch.submitted_ms),
        duration(end)
    );
    let until = |ms: u64| {
        let left = ms.saturating_sub(detail.now_ms);
        format!("{} UTC, in {}", clock(ms), duration(left))
    };
    if let Some(eta_ms) = detail.eta_ms.filter(|_| batch.ended_ms.is_none()) {
        text += &format!("  expected    {}\n", until(eta_ms));
    }
    if let Some(deadline_ms) = batch.deadline_ms {
        text += &format!("  deadline    {}\n", until(deadline_ms));
    }
    if let Some(failure) = &batch.failure {
        text += &format!("  failure     {} ({})\n", shown(&failure.text), shown(&failure.code));
    }
    tasks(&mut text, &detail.tasks);
    for file in &detail.files {
        text += &format!("  file        {} ({} bytes)\n", shown(&file.name), file.bytes);
    }
    text
}

fn tasks(text: &mut String, tasks: &[Task]) {
    let open: Vec<&Task> = tasks.iter().filter(|task| task.state != "done").collect();
    for task in open.iter().take(TASKS_MAX) {
        let workers: Vec<String> = task.workers.iter().map(u64::to_string).collect();
        let mut line = match (&task.wait, workers.is_empty()) {
            (Some(wait), _) => format!("waits: {}", shown(&wait.text)),
            (None, false) => format!("on worker {}", workers.join(", ")),
            (None, true) => shown(&task.state),
        };
        if task.parts > 0 {
            line += &format!("; {} of {} parts done", task.parts_done, task.parts);
        }
        if task.failures > 0 {
            line += &format!("; failed {} times", task.failures);
        }
        *text += &format!("  {:<24} {line}\n", shown(&task.name));
    }
    let hidden = open.len().saturating_sub(TASKS_MAX);
    if hidden > 0 {
        *text += &format!("  and {hidden} more tasks (--json has all)\n");
    }
}

pub(super) fn workers(list: &WorkerList) -> String {
    if list.workers.is_empty() {
        return "no workers: start `assay-worker` on any machine that reaches the coordinator's Redis".into();
    }
    list.workers.iter().map(worker).collect()
}

fn worker(worker: &Worker) -> String {
    let state = match (worker.present, worker.quarantined_until_ms) {
        (_, Some(until)) => format!("quarantined until {} UTC, {} bad results", clock(until), worker.strikes),
        (true, None) => format!("{} running, {} MiB set aside", worker.running, worker.memory_used >> 20),
        (false, None) => "away".into(),
    };
    let devices: Vec<String> = worker.devices.iter().map(|device| shown(device)).collect();
    let mut text = format!(
        "{} (worker {})\n  {state}\n  {}; {}\n",
        shown(&worker.name),
        worker.id,
        if devices.is_empty() { "devices unknown".into() } else { devices.join(", ") },
        shown(&worker.build)
    );
    for lost in &worker.lost {
        text += &format!("  out of service: {}\n", shown(lost));
    }
    let speeds: Vec<String> = worker
        .speeds
        .iter()
        .map(|speed| format!("{} {} ns", shown(&speed.kind), speed.ns_per_unit))
        .collect();
    if !speeds.is_empty() {
        text += &format!("  for a unit of work: {}\n", speeds.join(", "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{File, Reason, Speed};

    #[test]
    fn a_batch_is_told_with_what_waits_and_why() {
        let wait = |text: &str| Some(Reason { code: "x".into(), text: text.into() });
        let task =
            |name: &str, state: &str| Task { name: name.into(), state: state.into(), ..Task::default() };
        let status = Detail {
            batch: Batch {
                id: 7,
                phase: "proving".into(),
                submitted_ms: 1000,
                deadline_ms: Some(200_000),
                failure: wait("bad\nnews"),
                ..Batch::default()
            },
            now_ms: 61_000,
            eta_ms: Some(71_000),
            tasks: vec![
                task("execute", "done"),
                Task { workers: vec![3], parts: 9, parts_done: 4, ..task("block 0", "running") },
                Task { wait: wait("no worker is here"), failures: 2, ..task("wrap", "waiting") },
            ],
            files: vec![File { name: "proof.bin".into(), bytes: 128, blake3: String::new() }],
        };
        let text = detail(&status);
        for line in [
            "batch 7 is proving",
            "so far 60 s",
            "expected    00:01:11 UTC, in 10 s",
            "block 0                  on worker 3; 4 of 9 parts done",
            "wrap                     waits: no worker is here; failed 2 times",
            "failure     bad news (x)",
            "file        proof.bin (128 bytes)",
        ] {
            assert!(text.contains(line), "{line:?} is not in\n{text}");
        }
        assert!(!text.contains("execute"));
        let many = vec![task("shard", "waiting"); TASKS_MAX + 5];
        assert!(detail(&Detail { tasks: many, ..status }).contains("and 5 more tasks"));
    }

    #[test]
    fn lists_say_how_to_go_on() {
        assert_eq!(list(&BatchList::default()), "no batches");
        let batch = Batch { id: 9, phase: "failed".into(), ended_ms: Some(90_000), ..Batch::default() };
        let text = list(&BatchList { batches: vec![batch], next: Some(9) });
        assert!(text.contains("failed") && text.contains("90 s") && text.contains("--before 9"), "{text}");
        assert!(workers(&WorkerList::default()).contains("assay-worker"));
        let known = Worker {
            name: "gpu-7".into(),
            present: true,
            running: 2,
            speeds: vec![Speed { kind: "shard".into(), ns_per_unit: 5 }],
            ..Worker::default()
        };
        let bad = Worker { quarantined_until_ms: Some(1000), strikes: 3, ..known.clone() };
        let broken = Worker { lost: vec!["GPU 1 (H200): off the bus".into()], ..known.clone() };
        let text = workers(&WorkerList { workers: vec![broken] });
        assert!(text.contains("out of service: GPU 1 (H200): off the bus"), "{text}");
        let text = workers(&WorkerList { workers: vec![known, bad] });
        assert!(text.contains("2 running") && text.contains("shard 5 ns"), "{text}");
        assert!(text.contains("quarantined until 00:00:01 UTC, 3 bad results"), "{text}");
    }

    #[test]
    fn a_submission_says_how_to_repeat_it() {
        let text = submitted(&Submitted { id: 7, repeated: true }, Some(1000));
        assert!(
            text.contains("was taken before")
                && text.contains("--deadline 1000")
                && text.contains("assay watch 7")
        );
    }
}
