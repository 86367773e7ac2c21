use std::sync::Arc;

use assay_agent::runner::Device;
use assay_schedule::{Artifact, AttemptId, BatchId, ChainId, Facts, Holder, Input, Stage, WorkerId};

use super::*;
use crate::files::Hex32;
use crate::progress;
use crate::stages::{
    Failure as StageFailure, Groth16CircuitOutcome, PartOutcome, ProgramInfo, SplitOutcome, SplitRun,
};

const PARTS: u32 = 5;

fn rules() -> Rules {
    Rules { block_program: [1; 8], fold_program: [2; 8], run_gas_max: 77, run_blocks_max: 3 }
}

fn config(program: &str) -> JobsConfig {
    JobsConfig {
        program: program.into(),
        environment: vec![("A".to_owned(), "b".to_owned())],
        cache_dir: "/keys".into(),
        work_dir: "/work".into(),
        memory_bytes: 40 * GIB,
        slots: 2,
        parts: PARTS,
    }
}

fn jobs() -> StageJobs {
    StageJobs::new(config("assay-worker"), rules())
}

fn dispatch(stage: Stage, roles: &[Role], sequence: u64) -> Dispatch {
    let hash = Hash([9; 32]);
    let artifact = Artifact { holder: Holder::Attempt(AttemptId(1), 0), hash, bytes: 1 };
    Dispatch {
        attempt: AttemptId(2),
        worker: WorkerId(3),
        session: 4,
        batch: BatchId(5),
        stage,
        key: hash,
        inputs: roles.iter().map(|role| Input { role: *role, artifact }).collect(),
        units: 1,
        memory_bytes: GIB,
        outputs_max: 8,
        facts: Facts {
            chain: ChainId(1),
            sequence,
            genesis: hash,
            from: hash,
            to: hash,
            payload: hash,
            version: 1,
            deadline: None,
        },
    }
}

/// A task with a file for each role, named by its number.
fn task(dir: &Path, stage: Stage, roles: &[Role]) -> Task {
    let file = |number: usize| {
        let path = dir.join(number.to_string());
        std::fs::write(&path, [number as u8; 3]).unwrap();
        path
    };
    Task {
        dispatch: Arc::new(dispatch(stage, roles, 0)),
        inputs: (0..roles.len()).map(file).collect(),
        dir: dir.join("run"),
        device: Device::Cpu,
    }
}

fn shard() -> Stage {
    Stage::Shard { of: Parent::Block { run: 0 }, part: 7 }
}

fn reduce() -> Stage {
    Stage::Reduce { of: Parent::Fold, part: 7 }
}

/// Begins a task and returns what the child is told.
fn begin(task: &Task, jobs_before: u64) -> (Box<dyn Talk>, Job) {
    let mut talk = jobs().begin(task, jobs_before).unwrap();
    assert_eq!(talk.jobs(), 0);
    let lines = talk.open();
    assert_eq!((lines.len(), talk.jobs()), (1, 1));
    let job = serde_json::from_str(&lines[0]).unwrap();
    (talk, job)
}

fn say(event: &Event) -> String {
    serde_json::to_string(event).unwrap()
}

#[test]
fn a_task_becomes_the_job_over_its_inputs() {
    let dir = tempfile::tempdir().unwrap();
    let input = |number: usize| FileRef::of(dir.path().join(number.to_string())).unwrap();
    let run = dir.path().join("run");

    let (_, job) = begin(&task(dir.path(), Stage::Execute, &[Role::Payload]), 0);
    let Job::Split(split) = job else { panic!("{job:?}") };
    assert_eq!((split.batch, split.run_gas_max, split.run_blocks_max), (input(0), 77, 3));
    assert_eq!(split.output_dir, run);

    let (_, job) = begin(&task(dir.path(), Stage::Block { run: 4 }, &[Role::Witness]), 0);
    let Job::ProveRun(block) = job else { panic!("{job:?}") };
    assert_eq!((block.run, block.delegated, block.output), (input(0), PARTS, run.join("block.proof")));

    for stage in [shard(), reduce()] {
        let (_, job) = begin(&task(dir.path(), stage, &[Role::Part, Role::Part, Role::Part]), 0);
        let Job::ProvePart(part) = job else { panic!("{job:?}") };
        assert_eq!(part.files, [input(0), input(1), input(2)], "in the dispatch's order, the header first");
        assert!(part.output_dir.starts_with(&run));
    }
}

#[test]
fn a_folds_inputs_are_the_block_proofs_by_run_and_the_previous_fold() {
    let block = |run| Role::BlockProof { run };
    let paths: Vec<PathBuf> = ["a", "b", "c"].map(PathBuf::from).into();
    let files = |roles: &[Role], sequence| {
        Files::of(&dispatch(Stage::Fold, roles, sequence), &paths[..roles.len()], &rules())
    };
    let (first, later) =
        (files(&[block(0), block(1)], 0), files(&[block(0), block(1), Role::PreviousFold], 1));
    assert_eq!(first.unwrap(), Files::Fold { blocks: paths[..2].to_vec(), previous: None });
    assert_eq!(later.unwrap(), Files::Fold { blocks: paths[..2].to_vec(), previous: Some("c".into()) });
    let refused: [(&[Role], u64); 7] = [
        (&[], 0),
        (&[Role::PreviousFold], 1),
        (&[block(1), block(0)], 0),
        (&[block(0), block(2)], 0),
        (&[Role::PreviousFold, block(0)], 1),
        (&[block(0), block(1)], 1),
        (&[block(0), Role::PreviousFold], 0),
    ];
    for (roles, sequence) in refused {
        assert!(
            matches!(files(roles, sequence), Err(Failure::Permanent(_))),
            "{roles:?} of batch {sequence}"
        );
    }
}

#[test]
fn inputs_that_are_another_tasks_are_refused_for_good() {
    let stages: [(Stage, &[Role]); 8] = [
        (Stage::Execute, &[Role::Witness]),
        (Stage::Execute, &[]),
        (Stage::Block { run: 0 }, &[Role::Witness, Role::Witness]),
        (Stage::Wrap, &[Role::PreviousFold]),
        (Stage::Groth16, &[Role::FoldProof]),
        (shard(), &[]),
        (shard(), &[Role::Part, Role::Witness]),
        (reduce(), &[Role::Payload]),
    ];
    let dir = tempfile::tempdir().unwrap();
    for (stage, roles) in stages {
        let error = jobs().begin(&task(dir.path(), stage, roles), 0).err();
        assert!(matches!(error, Some(Failure::Permanent(_))), "{stage:?} with {roles:?}: {error:?}");
    }
    let mut short = task(dir.path(), Stage::Execute, &[Role::Payload]);
    short.inputs.clear();
    assert!(matches!(jobs().begin(&short, 0), Err(Failure::Permanent(_))));
    // Files that are no outputs of other tasks: the job cannot be put together.
    for (stage, role) in [(Stage::Wrap, Role::FoldProof), (Stage::Groth16, Role::WrapProof)] {
        assert!(matches!(jobs().begin(&task(dir.path(), stage, &[role]), 0), Err(Failure::Permanent(_))));
    }
}

#[test]
fn parts_are_of_the_program_of_their_controller() {
    let paths = [PathBuf::from("a")];
    let program = |stage| match Files::of(&dispatch(stage, &[Role::Part], 0), &paths, &rules()) {
        Ok(Files::Part { program, .. }) => program,
        other => panic!("{other:?}"),
    };
    assert_eq!((program(shard()), program(reduce())), ([1; 8], [2; 8]));
}

#[test]
fn a_child_is_heard_only_about_its_running_job() {
    let dir = tempfile::tempdir().unwrap();
    let (mut talk, _) = begin(&task(dir.path(), Stage::Execute, &[Role::Payload]), 3);
    for noise in ["", "hello", "{}", "{\"type\":\"sing\"}"] {
        assert!(matches!(talk.hear(noise), Meaning::Noise), "{noise:?}");
    }
    let told = progress::Progress {
        stage: "split".into(),
        phase: "execute".into(),
        done: 1,
        total: 2,
        peak_rss_bytes: 0,
        elapsed_ms: 5,
        gpu_faults: GpuFaults::default(),
    };
    match talk.hear(&say(&Event::Progress(told.clone()))) {
        Meaning::Progress(told) => {
            assert_eq!(told, Progress { phase: "execute".into(), done: 1, total: 2 });
        }
        other => panic!("{other:?}"),
    }
    assert!(talk.gpu_faults().is_none());
    for (retries, fallbacks) in [(1, 0), (1, 1)] {
        let told = progress::Progress { gpu_faults: GpuFaults { retries, fallbacks }, ..told.clone() };
        assert!(matches!(talk.hear(&say(&Event::Progress(told))), Meaning::Progress(_)));
    }
    assert_eq!(talk.gpu_faults(), GpuFaults { retries: 2, fallbacks: 1 });
    let file = FileRef::of(dir.path().join("0")).unwrap();
    let run = |gas| SplitRun { file: file.clone(), gas };
    let outcome = Outcome::Split(SplitOutcome { runs: vec![run(10), run(20)], elapsed_ms: 1 });
    let failed = StageFailure { class: ErrorClass::Permanent, message: "no".into() };
    assert!(matches!(talk.hear(&say(&Event::Done { job: 2, outcome: outcome.clone() })), Meaning::Noise));
    assert!(matches!(talk.hear(&say(&Event::Failed { job: 2, error: failed })), Meaning::Noise));
    match talk.hear(&say(&Event::Done { job: 3, outcome })) {
        Meaning::Done { outputs, gpu_ms: None } => {
            let output = |units| NewFile { path: file.path.clone(), units };
            assert_eq!(outputs, [output(10), output(20)]);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_outcome_of_another_job_is_no_result() {
    let dir = tempfile::tempdir().unwrap();
    let (mut talk, _) = begin(&task(dir.path(), Stage::Execute, &[Role::Payload]), 0);
    let part = PartOutcome {
        key: "00".into(),
        kind: PartKind::Shard,
        files: vec![],
        elapsed_ms: 0,
        peak_rss_bytes: 0,
    };
    let line = say(&Event::Done { job: 0, outcome: Outcome::ProvePart(part) });
    assert!(matches!(talk.hear(&line), Meaning::Failed(Failure::Transient(_))));
}

#[test]
fn only_the_inputs_fault_is_final() {
    let dir = tempfile::tempdir().unwrap();
    let hear = |class| {
        let (mut talk, _) = begin(&task(dir.path(), shard(), &[Role::Part]), 0);
        let error = StageFailure { class, message: "why".into() };
        match talk.hear(&say(&Event::Failed { job: 0, error })) {
            Meaning::Failed(failure) => failure,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(hear(ErrorClass::Permanent), Failure::Permanent("why".into()));
    assert_eq!(hear(ErrorClass::Transient), Failure::Transient("why".into()));
    assert_eq!(hear(ErrorClass::Bug), Failure::Transient("why".into()));
    assert_eq!(hear(ErrorClass::GpuMemory), Failure::Device(DeviceFault::Allocation));
    assert_eq!(hear(ErrorClass::GpuContext), Failure::Device(DeviceFault::Sticky("why".into())));
    assert_eq!(hear(ErrorClass::GpuLost), Failure::Device(DeviceFault::Lost("why".into())));
    assert_eq!(hear(ErrorClass::GpuWrong), Failure::Device(DeviceFault::Wrong("why".into())));
}

#[test]
fn a_part_is_asked_for_and_its_result_goes_back_to_the_child() {
    let dir = tempfile::tempdir().unwrap();
    let (mut talk, _) = begin(&task(dir.path(), Stage::Block { run: 0 }, &[Role::Witness]), 0);
    let files: Vec<FileRef> = ["header", "one", "two"]
        .map(|name| FileRef::write(&dir.path().join(name), name.as_bytes()).unwrap())
        .into();
    let paths: Vec<PathBuf> = files.iter().map(|file| file.path.clone()).collect();
    let key = Hash([0xab; 32]);
    let wanted = [
        (PartKind::Shard, Kind::Shard, SHARD_UNITS),
        (PartKind::Reduce, Kind::Reduce, REDUCTION_UNITS),
        (PartKind::Deferred, Kind::Reduce, REDUCTION_UNITS),
    ];
    for (asked, kind, units) in wanted {
        let request = PartRequest { key: key.to_string(), kind: asked, files: files.clone() };
        match talk.hear(&say(&Event::Part(request))) {
            Meaning::Part(part) => assert_eq!(part, Part { kind, key, files: paths.clone(), units }),
            other => panic!("{other:?}"),
        }
    }
    let request = PartRequest { key: "xyz".into(), kind: PartKind::Shard, files: vec![] };
    assert!(matches!(talk.hear(&say(&Event::Part(request))), Meaning::Failed(Failure::Transient(_))));

    let mut told = |result| -> Vec<PartResult> {
        let lines = talk.part_done(&key, result);
        lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let part = key.to_string();
    assert_eq!(told(Ok(paths)), [PartResult { part: part.clone(), files, failed: None }]);
    let failed = told(Err(PartError::Failed("no memory".into())));
    assert_eq!(failed, [PartResult { part, files: vec![], failed: Some("no memory".into()) }]);
    let gone = told(Ok(vec![dir.path().join("none")]));
    assert!(gone[0].files.is_empty() && gone[0].failed.is_some(), "{gone:?}");
    assert!(told(Err(PartError::Cancelled)).is_empty());
}

#[test]
fn controllers_have_processes_of_their_own_that_cut_alike_everywhere() {
    let dir = tempfile::tempdir().unwrap();
    let jobs = jobs();
    let of = |stage| {
        let task = task(dir.path(), stage, &[Role::Part]);
        let program = jobs.program(&task);
        assert_eq!(program.arguments[0], "stage");
        assert_eq!(program.environment, [("A".to_owned(), "b".to_owned())]);
        (jobs.class(&task), program.arguments.last().unwrap().parse::<u64>().unwrap())
    };
    for stage in [Stage::Block { run: 0 }, Stage::Fold] {
        assert_eq!(of(stage), (None, MEMORY_BYTES_MIN));
    }
    let prover = of(shard());
    assert!(prover.0.is_some());
    assert_eq!(prover.1, MEMORY_BYTES_MIN, "two slots share the memory, and less is not planned with");
    assert_eq!((of(reduce()), of(Stage::Wrap)), (prover.clone(), prover.clone()));
    assert_ne!(of(Stage::Groth16).0, prover.0, "the zkVM's process must be gone by then");
}

#[test]
fn no_child_plans_with_more_than_it_may_take() {
    let large = JobsConfig { memory_bytes: 1 << 50, slots: 0, ..config("assay-worker") };
    for kind in Kind::ALL {
        let planned: u64 = large.child(kind).arguments.last().unwrap().parse().unwrap();
        assert!(planned >= MEMORY_BYTES_MIN, "{kind}");
        let most = MEMORY_BYTES[Kind::Shard] * MEMORY_LIMIT_PERCENT / 100;
        assert!(planned <= most.max(MEMORY_BYTES_MIN), "{kind}");
    }
}

#[test]
fn a_controller_and_two_provers_fit_into_24_gib_and_so_does_everything_else_alone() {
    // What a machine sold with 24 GiB shows to be there, and the five sixths of it that a worker takes by default.
    let memory_bytes = 23 * GIB / 6 * 5;
    for kind in Kind::ALL {
        assert!(MEMORY_BYTES[kind] <= memory_bytes, "{kind}");
    }
    for controller in [Kind::Block, Kind::Fold] {
        for part in [Kind::Shard, Kind::Reduce] {
            assert!(
                MEMORY_BYTES[controller] + 2 * MEMORY_BYTES[part] <= memory_bytes,
                "{controller}, {part}"
            );
        }
    }
    // Provers that are kept ready have to go before a wrap proof, whose memory would not be there.
    assert!(MEMORY_BYTES[Kind::Shard] + MEMORY_BYTES[Kind::Wrap] > memory_bytes);
}

#[test]
fn no_part_is_taken_for_late_on_two_cores_before_it_has_been_measured() {
    let limits = assay_schedule::Limits::default();
    for (kind, units) in [(Kind::Shard, SHARD_UNITS), (Kind::Reduce, REDUCTION_UNITS)] {
        let expected_ms = units * limits.ns_per_unit[kind] / 1_000_000;
        assert!(expected_ms > 100_000, "{kind}: {expected_ms} ms");
    }
}

#[test]
fn keys_are_asked_of_a_child() {
    let info = |byte: u8| ProgramInfo {
        elf_sha256: Hex32([byte; 32]),
        vk_words: [u32::from(byte); 8],
        vk_bn254: Hex32([byte; 32]),
    };
    let keys = KeysOutcome { block: info(3), fold: info(4) };
    let done = say(&Event::Done { job: 0, outcome: Outcome::Keys(keys) });
    let failed = say(&Event::Failed {
        job: 0,
        error: StageFailure { class: ErrorClass::Bug, message: "no table".into() },
    });
    let ask = |script: String| {
        let arguments = vec!["-c".to_owned(), script];
        ask_keys(&Program { path: "/bin/sh".into(), arguments, environment: Vec::new() })
    };
    // A child ends when its input does.
    let answer = |line: &str| format!("read job; echo noise; echo '{line}'; read end");
    let rules = Rules::of_keys(&ask(answer(&done)).unwrap(), RunLimits::default());
    assert_eq!((rules.block_program, rules.fold_program), ([3; 8], [4; 8]));
    assert!(ask(answer(&failed)).unwrap_err().to_string().contains("no table"));
    assert!(ask("read job".to_owned()).unwrap_err().to_string().contains("ended"));
    assert!(ask_keys(&Program { path: "/none".into(), ..Program::default() }).is_err());
}

#[test]
fn a_worker_that_makes_groth16_proofs_needs_the_parameters_of_its_own_circuit() {
    let dir = tempfile::tempdir().unwrap();
    let circuit = Groth16CircuitOutcome { circuit_digest: Hex32([7; 32]) };
    let done = say(&Event::Done { job: 0, outcome: Outcome::Groth16Circuit(circuit) });
    let check = |line: &str| {
        let script = format!("read job; case \"$job\" in *groth16_circuit*) echo '{line}';; esac; read end");
        let arguments = vec!["-c".to_owned(), script];
        let program = Program { path: "/bin/sh".into(), arguments, environment: Vec::new() };
        check_parameters(&program, dir.path()).map_err(|error| error.to_string())
    };
    let folder = dir.path().join("groth16");
    let parameters = |digest: [u8; 32]| folder.join(format!("{}.pk", hex::encode(digest)));
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(parameters([6; 32]), "of another circuit").unwrap();
    let refused = check(&done).unwrap_err();
    assert!(refused.contains(&hex::encode([7; 32])) && refused.contains("assay setup"), "{refused}");
    std::fs::write(parameters([7; 32]), "its own").unwrap();
    check(&done).unwrap();
    // The answer to another question is none.
    let info = ProgramInfo { elf_sha256: Hex32([1; 32]), vk_words: [1; 8], vk_bn254: Hex32([1; 32]) };
    let keys = KeysOutcome { block: info.clone(), fold: info };
    check(&say(&Event::Done { job: 0, outcome: Outcome::Keys(keys) })).unwrap_err();
}

#[test]
fn what_nobody_goes_on_with_is_removed_when_it_is_old() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("memo")).unwrap();
    let now = SystemTime::now();
    prune_memos(dir.path(), now + MEMO_AGE_MAX / 2);
    assert!(dir.path().join("memo").exists());
    prune_memos(dir.path(), now + 2 * MEMO_AGE_MAX);
    assert!(!dir.path().join("memo").exists());
    prune_memos(&dir.path().join("none"), now);
}
