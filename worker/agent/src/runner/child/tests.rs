use assay_schedule::{AttemptId, Kind};
use tokio::sync::watch;

use super::super::FromRunner;
use super::*;

/// Children are scripts that speak words: `progress n`, `part path`, `done path`, `failed why`, `full`, `fault`.
struct Scripts {
    script: String,
    class: Option<String>,
}

struct Words {
    dir: PathBuf,
    jobs_before: u64,
    faults: GpuFaults,
}

impl Jobs for Scripts {
    fn program(&self, _: &Task) -> Program {
        let arguments = vec!["-c".to_owned(), self.script.clone()];
        Program { path: "/bin/sh".into(), arguments, environment: vec![("X".into(), "y".into())] }
    }

    /// Tasks with an odd number of bytes are of another class.
    fn class(&self, task: &Task) -> Option<String> {
        self.class.as_ref().map(|class| format!("{class}{}", task.dispatch.memory_bytes % 2))
    }

    fn works_on_gpu(&self, task: &Task) -> bool {
        task.dispatch.stage != assay_schedule::Stage::Execute
    }

    fn begin(&self, task: &Task, jobs_before: u64) -> Result<Box<dyn Talk>, Failure> {
        if task.dispatch.key == Hash([9; 32]) {
            return Err(Failure::Permanent("no such job".into()));
        }
        Ok(Box::new(Words { dir: task.dir.clone(), jobs_before, faults: GpuFaults::default() }))
    }
}

impl Talk for Words {
    fn open(&mut self) -> Vec<String> {
        vec![format!("job {} {}", self.jobs_before, self.dir.display())]
    }

    fn hear(&mut self, line: &str) -> Meaning {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let dir = self.dir.clone();
        let file = || dir.join(rest);
        match word {
            "progress" => Meaning::Progress(Progress { phase: rest.into(), ..Progress::default() }),
            "part" => Meaning::Part(Part {
                kind: Kind::Shard,
                key: Hash(*blake3::hash(rest.as_bytes()).as_bytes()),
                files: vec![file()],
                units: 1,
            }),
            "ask" => Meaning::Say(vec!["answer".into()]),
            "done" => Meaning::Done { outputs: vec![NewFile { path: file(), units: 2 }], gpu_ms: Some(3) },
            "failed" => Meaning::Failed(Failure::Permanent(rest.into())),
            "full" => Meaning::Failed(Failure::Device(DeviceFault::Allocation)),
            "fault" => {
                self.faults.retries += 1;
                Meaning::Noise
            }
            "fallback" => {
                self.faults.fallbacks += 1;
                Meaning::Noise
            }
            _ => Meaning::Noise,
        }
    }

    fn part_done(&mut self, _: &Hash, result: Result<Vec<PathBuf>, PartError>) -> Vec<String> {
        vec![match result {
            Ok(files) => format!("proved {}", files[0].display()),
            Err(error) => format!("lost {error}"),
        }]
    }

    fn jobs(&self) -> u64 {
        1
    }

    fn gpu_faults(&self) -> GpuFaults {
        self.faults
    }
}

struct Bench {
    dir: tempfile::TempDir,
    settings: ChildSettings,
    cancel: watch::Sender<bool>,
    sender: tokio::sync::mpsc::Sender<FromRunner>,
    told: tokio::sync::mpsc::Receiver<FromRunner>,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let settings = ChildSettings {
            log_dir: dir.path().join("logs"),
            grace: Duration::from_secs(2),
            silence_max: Duration::from_secs(120),
            gpu_silence_max: Duration::from_secs(120),
            memory_limit_percent: 100,
            memory_bytes: 1 << 40,
        };
        let (sender, told) = tokio::sync::mpsc::channel(16);
        Self { dir, settings, cancel: watch::channel(false).0, sender, told }
    }

    fn runner(&self, script: &str, class: Option<&str>) -> ChildRunner<Scripts> {
        let scripts = Scripts { script: script.to_owned(), class: class.map(str::to_owned) };
        ChildRunner::new(scripts, self.settings.clone())
    }

    fn task(&self, attempt: u64, memory_bytes: u64, device: Device) -> Task {
        let mut dispatch = crate::testing::dispatch(attempt, assay_schedule::Stage::Wrap);
        dispatch.memory_bytes = memory_bytes;
        let dir = self.dir.path().join(attempt.to_string());
        std::fs::create_dir_all(&dir).unwrap();
        Task { dispatch: Arc::new(dispatch), inputs: Vec::new(), dir, device }
    }

    fn host(&self, attempt: u64) -> Host {
        Host::new(AttemptId(attempt), self.sender.clone(), self.cancel.subscribe())
    }

    async fn run(&self, script: &str) -> Ended {
        let runner = self.runner(script, None);
        let ended = runner.run(self.task(1, 1 << 30, Device::Cpu), self.host(1)).await;
        runner.close().await;
        ended
    }
}

fn reason(ended: &Ended) -> String {
    match ended.result.as_ref().unwrap_err() {
        Failure::Transient(reason) => reason.clone(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_job_is_done_in_a_process_whose_words_are_understood() {
    let mut bench = Bench::new();
    let script = "read job n dir; echo noise; echo progress half; echo ask; read answer; \
                  echo \"$job $n $answer $X $CUDA_VISIBLE_DEVICES.\" > $dir/out; echo done out; read end";
    let ended = bench.run(script).await;
    let outputs = ended.result.unwrap();
    assert_eq!(outputs[0].units, 2);
    assert_eq!(std::fs::read_to_string(&outputs[0].path).unwrap(), "job 0 answer y .\n");
    assert_eq!(ended.used.gpu_ms, Some(3));
    assert!(ended.used.memory_bytes_peak > 100_000, "{:?}", ended.used);
    let Some(FromRunner::Progress { progress, attempt }) = bench.told.recv().await else {
        panic!("no progress")
    };
    assert_eq!((progress.phase.as_str(), attempt), ("half", AttemptId(1)));
}

#[tokio::test]
async fn what_a_gpu_failed_at_is_told_however_the_task_ends() {
    let bench = Bench::new();
    for (end, is_done) in [("echo x > $dir/out; echo done out", true), ("echo failed no", false)] {
        let ended = bench.run(&format!("read job n dir; echo fault; echo fault; {end}; read end")).await;
        assert_eq!(ended.result.is_ok(), is_done, "{ended:?}");
        assert_eq!(ended.used.gpu_faults, GpuFaults { retries: 2, fallbacks: 0 });
    }
}

#[tokio::test]
async fn a_gpu_task_sees_its_gpu_only_by_the_number_that_the_driver_gives_it() {
    let bench = Bench::new();
    let script =
        "read job n dir; echo $CUDA_VISIBLE_DEVICES $CUDA_DEVICE_ORDER > $dir/out; echo done out; read end";
    let runner = bench.runner(script, None);
    let ended = runner.run(bench.task(1, 1 << 30, Device::Gpu(3)), bench.host(1)).await;
    assert_eq!(std::fs::read_to_string(&ended.result.unwrap()[0].path).unwrap(), "3 PCI_BUS_ID\n");
}

#[tokio::test]
async fn a_part_is_handed_on_once_and_its_result_comes_back() {
    let mut bench = Bench::new();
    // While the part is outstanding the child may be silent for as long as it takes.
    bench.settings.silence_max = Duration::from_secs(3);
    let script =
        "read job n dir; echo part in; echo part in; read proved path; echo $path > $dir/out; echo done out";
    let runner = bench.runner(script, None);
    let (task, host) = (bench.task(1, 1 << 30, Device::Cpu), bench.host(1));
    let dir = task.dir.clone();
    let running = tokio::spawn(async move { runner.run(task, host).await });
    let Some(FromRunner::Part { part, answer, .. }) = bench.told.recv().await else { panic!("no part") };
    assert_eq!(part.files, [dir.join("in")]);
    tokio::time::sleep(Duration::from_secs(5)).await;
    answer.send(Ok(vec!["/the/proof".into()])).unwrap();
    let ended = running.await.unwrap();
    assert_eq!(std::fs::read_to_string(&ended.result.unwrap()[0].path).unwrap(), "/the/proof\n");
    assert!(bench.told.try_recv().is_err(), "the same part was asked for twice");
}

#[tokio::test]
async fn failures_are_told_apart() {
    let bench = Bench::new();
    let ended = bench.run("read job; echo failed bad input; sleep 1000").await;
    assert_eq!(ended.result, Err(Failure::Permanent("bad input".into())));
    let ended = bench.run("read job; echo first >&2; echo 'no such table' >&2; exit 7").await;
    assert!(reason(&ended).contains("ended with code 7: no such table"), "{ended:?}");
    let ended = bench.run("read job; kill -9 $$").await;
    assert_eq!(ended.result, Err(Failure::OutOfMemory), "killed by somebody else: the kernel");
    let ended = bench.run("read job; echo 'memory allocation of 77 bytes failed' >&2; kill -6 $$").await;
    assert_eq!(ended.result, Err(Failure::OutOfMemory));
    let ended = bench.run("read job; kill -11 $$").await;
    assert!(reason(&ended).contains("signal 11"), "{ended:?}");
}

#[tokio::test]
async fn a_program_that_is_not_there_and_a_task_that_is_no_job_fail_by_themselves() {
    let bench = Bench::new();
    struct Nothing;
    impl Jobs for Nothing {
        fn program(&self, _: &Task) -> Program {
            Program { path: "/no/such/program".into(), ..Program::default() }
        }
        fn class(&self, _: &Task) -> Option<String> {
            None
        }
        fn begin(&self, _: &Task, _: u64) -> Result<Box<dyn Talk>, Failure> {
            Err(Failure::Permanent("never asked".into()))
        }
    }
    let runner = ChildRunner::new(Nothing, bench.settings.clone());
    let ended = runner.run(bench.task(1, 1 << 30, Device::Cpu), bench.host(1)).await;
    assert!(reason(&ended).contains("does not start"), "{ended:?}");
    let runner = bench.runner("read job", None);
    let mut task = bench.task(1, 1 << 30, Device::Cpu);
    Arc::get_mut(&mut task.dispatch).unwrap().key = Hash([9; 32]);
    let ended = runner.run(task, bench.host(1)).await;
    assert_eq!(ended.result, Err(Failure::Permanent("no such job".into())));
    assert_eq!(runner.shared.pool().busy_bytes, 0);
}

#[tokio::test]
async fn a_silent_child_hangs_and_is_ended() {
    let mut bench = Bench::new();
    bench.settings.silence_max = Duration::from_millis(300);
    let started = Instant::now();
    let ended = bench.run("read job; sleep 1000").await;
    assert!(reason(&ended).contains("said nothing"), "{ended:?}");
    assert!(started.elapsed() < Duration::from_secs(15), "it was killed, not waited for");
}

#[tokio::test]
async fn on_a_gpu_a_child_may_be_silent_for_less_time_and_the_gpu_hangs() {
    let mut bench = Bench::new();
    bench.settings.gpu_silence_max = Duration::from_millis(300);
    let runner = bench.runner("read job n dir; sleep 3; echo > $dir/out; echo done out; read end", None);
    let ended = runner.run(bench.task(1, 1 << 30, Device::Cpu), bench.host(1)).await;
    assert!(ended.result.is_ok(), "{ended:?}");
    let ended = runner.run(bench.task(2, 1 << 30, Device::Gpu(0)), bench.host(2)).await;
    assert!(matches!(ended.result, Err(Failure::Device(DeviceFault::Hung(_)))), "{ended:?}");
    // What does not work on the GPU has the time of the processor.
    let mut task = bench.task(3, 1 << 30, Device::Gpu(0));
    Arc::get_mut(&mut task.dispatch).unwrap().stage = assay_schedule::Stage::Execute;
    let ended = runner.run(task, bench.host(3)).await;
    assert!(ended.result.is_ok(), "{ended:?}");
}

#[tokio::test]
async fn a_cancelled_child_is_told_by_the_end_of_its_input_and_killed_after_the_grace() {
    let mut bench = Bench::new();
    bench.settings.grace = Duration::from_millis(300);
    for script in ["read job; read end; sleep 0", "read job; sleep 1000"] {
        let runner = bench.runner(script, Some("a"));
        let (task, host) = (bench.task(1, 1 << 30, Device::Cpu), bench.host(1));
        bench.cancel.send_replace(false);
        let cancel = bench.cancel.clone();
        let (ended, ()) = tokio::join!(runner.run(task, host), async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            cancel.send_replace(true);
        });
        assert_eq!(ended.result, Err(Failure::Cancelled));
        assert_eq!(runner.ready(), 0, "a cancelled process is not kept");
    }
}

#[tokio::test]
async fn a_child_past_its_memory_is_killed() {
    let bench = Bench::new();
    let runner = bench.runner("read job; while true; do echo progress x; sleep 0.05; done", None);
    // A shell needs more than 64 KiB.
    let ended = runner.run(bench.task(1, 64 << 10, Device::Cpu), bench.host(1)).await;
    assert_eq!(ended.result, Err(Failure::OutOfMemory));
    assert!(ended.used.memory_bytes_peak > 64 << 10);
}

#[tokio::test]
async fn a_process_is_kept_for_the_next_task_of_its_class_with_a_log_for_each() {
    let bench = Bench::new();
    let script = "while read job n dir; do echo \"task $n\" >&2; echo $$ $n > $dir/out; echo done out; done";
    let runner = bench.runner(script, Some("a"));
    let mut words = Vec::new();
    for attempt in [1, 2] {
        let ended = runner.run(bench.task(attempt, 1 << 30, Device::Cpu), bench.host(attempt)).await;
        words.push(std::fs::read_to_string(&ended.result.unwrap()[0].path).unwrap());
        assert_eq!(runner.ready(), 1);
    }
    let (one, two) = (words[0].trim().split_once(' ').unwrap(), words[1].trim().split_once(' ').unwrap());
    assert_eq!((one.0, one.1, two.1), (two.0, "0", "1"), "one process, jobs numbered on");
    let log =
        |attempt| std::fs::read_to_string(bench.settings.log_dir.join(format!("{attempt}.log"))).unwrap();
    assert_eq!((log(1).as_str(), log(2).as_str()), ("task 0\n", "task 1\n"));
    runner.close().await;
    assert_eq!(runner.ready(), 0);
}

#[tokio::test]
async fn a_ready_process_makes_room_for_others() {
    let mut bench = Bench::new();
    bench.settings.memory_bytes = 10 << 30;
    let script = "while read job n dir; do echo $$ > $dir/out; echo done out; done";
    let runner = bench.runner(script, Some("a"));
    let run = |attempt, memory, device| {
        let (runner, task, host) = (&runner, bench.task(attempt, memory, device), bench.host(attempt));
        async move {
            let ended = runner.run(task, host).await;
            std::fs::read_to_string(&ended.result.unwrap()[0].path).unwrap()
        }
    };
    let cpu = run(1, 6 << 30, Device::Cpu).await;
    let gpu = run(2, 4 << 30, Device::Gpu(0)).await;
    assert_ne!(cpu, gpu);
    assert_eq!(runner.ready(), 2, "both fit");
    assert_eq!(run(3, 4 << 30, Device::Gpu(0)).await, gpu);
    // The other GPU's process needs memory that the oldest ready one has.
    let other = run(4, 5 << 30, Device::Gpu(1)).await;
    assert_eq!(runner.ready(), 2);
    assert_ne!(run(5, 1 << 30, Device::Cpu).await, cpu);
    assert_eq!(run(6, 5 << 30, Device::Gpu(1)).await, other);
    assert_eq!(runner.shared.pool().busy_bytes, 0);
    runner.close().await;
}

#[tokio::test]
async fn a_gpu_with_room_keeps_a_process_of_each_class() {
    let bench = Bench::new();
    let script =
        "while read job n dir; do echo $$ $ASSAY_DEVICE_MEMORY_BYTES > $dir/out; echo done out; done";
    let shares = [(Device::Gpu(0), GpuShare { processes: 2, memory_bytes: Some(7) })];
    let runner = bench.runner(script, Some("a")).with_gpus(shares.into());
    let run = |attempt, memory, number| {
        let task = bench.task(attempt, memory, Device::Gpu(number));
        let (runner, host) = (&runner, bench.host(attempt));
        async move {
            let ended = runner.run(task, host).await;
            std::fs::read_to_string(&ended.result.unwrap()[0].path).unwrap()
        }
    };
    let (prover, groth16) = (run(1, 2, 0).await, run(2, 1, 0).await);
    assert!(prover != groth16 && prover.ends_with(" 7\n"), "{prover}");
    assert_eq!((run(3, 2, 0).await, run(4, 1, 0).await), (prover, groth16), "both stay");
    // Of the other GPU nobody has said that it has room for two.
    let prover = run(5, 2, 1).await;
    assert_ne!(run(6, 1, 1).await, prover);
    assert_eq!(runner.ready(), 3);
    assert_ne!(run(7, 2, 1).await, prover);
    assert!(runner.shared.pool().busy.values().all(|tasks| *tasks == 0));
    runner.close().await;
}

#[tokio::test]
async fn a_process_whose_gpu_has_failed_for_good_is_not_kept() {
    let bench = Bench::new();
    for (fault, is_kept) in [("fault", true), ("fallback", false)] {
        let script =
            format!("while read job n dir; do echo {fault}; echo $$ > $dir/out; echo done out; done");
        let runner = bench.runner(&script, Some("a"));
        let task = bench.task(1, 1 << 30, Device::Gpu(0));
        let ended = runner.run(task, bench.host(1)).await;
        assert!(ended.result.is_ok(), "{ended:?}");
        assert_eq!(runner.ready(), usize::from(is_kept), "{fault}");
        runner.close().await;
    }
}

#[tokio::test]
async fn a_task_that_finds_no_memory_on_its_gpu_ends_what_waits_there() {
    let bench = Bench::new();
    let script =
        "while read job n dir; do case $dir in */4) echo full;; *) echo x > $dir/out; echo done out;; esac; done";
    let shares = [(Device::Gpu(0), GpuShare { processes: 2, memory_bytes: None })];
    let runner = bench.runner(script, Some("a")).with_gpus(shares.into());
    let run = |attempt, memory, number| {
        runner.run(bench.task(attempt, memory, Device::Gpu(number)), bench.host(attempt))
    };
    for (attempt, memory, number) in [(1, 1, 0), (2, 2, 0), (3, 1, 1)] {
        assert!(run(attempt, memory, number).await.result.is_ok());
    }
    assert_eq!(runner.ready(), 3);
    assert_eq!(run(4, 2, 0).await.result, Err(Failure::Device(DeviceFault::Allocation)));
    assert_eq!(runner.ready(), 1, "the other GPU's stays");
    assert!(run(5, 2, 0).await.result.is_ok());
    runner.close().await;
}

#[test]
fn old_logs_are_removed_and_other_files_are_not() {
    let dir = tempfile::tempdir().unwrap();
    for attempt in 0..LOGS_MAX + 10 {
        std::fs::write(dir.path().join(format!("{attempt}.log")), "").unwrap();
    }
    std::fs::write(dir.path().join("notes.txt"), "").unwrap();
    prune_logs(dir.path());
    assert!(dir.path().join("notes.txt").exists());
    assert!(!dir.path().join("10.log").exists() && dir.path().join("11.log").exists());
}
