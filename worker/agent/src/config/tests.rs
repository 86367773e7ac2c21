use super::*;

const SAMPLE: &str = include_str!("../../worker.sample.toml");
const NEEDED: &str = "[queue]\nredis = \"redis://r\"\n[store]\nurl = \"file:///s\"\n";

fn machine() -> Machine {
    Machine {
        cpu: "EPYC".into(),
        gpus: vec![(Device::Gpu(0), "H200".into()), (Device::Gpu(1), "4090".into())],
        gpu_memory_bytes: [(Device::Gpu(0), 140 << 30), (Device::Gpu(1), 24 << 30)].into(),
        memory_bytes: 60 << 30,
        cores: 4,
        host: "box".into(),
    }
}

fn program() -> Program {
    let build = "test 1".to_owned();
    Program { version: 7, build, task_bytes: 8 << 30, uses_gpus: true, gpu_bytes_min: 5 << 30 }
}

fn config_on(
    machine: &Machine,
    file: &str,
    env: &[(&str, &str)],
    flags: Settings,
) -> Result<Config, ConfigError> {
    config_of(true, machine, file, env, flags)
}

fn config_of(
    uses_gpus: bool,
    machine: &Machine,
    file: &str,
    env: &[(&str, &str)],
    flags: Settings,
) -> Result<Config, ConfigError> {
    let lookup = |name: &str| {
        let all = [("HOME", "/home/me")].into_iter().chain(env.iter().copied());
        all.filter(|(key, _)| *key == name).map(|(_, value)| value.to_owned()).next_back()
    };
    let program = Program { uses_gpus, ..program() };
    Config::new(&program, machine, Some((Path::new("assay-worker.toml"), file)), lookup, flags)
}

fn config(file: &str, env: &[(&str, &str)], flags: Settings) -> Result<Config, ConfigError> {
    config_on(&machine(), file, env, flags)
}

#[test]
fn the_sample_file_says_the_defaults() {
    let sample =
        config(SAMPLE, &[("ASSAY_REDIS", "redis://r"), ("ASSAY_STORE", "file:///s")], Settings::default());
    let (sample, plain) = (sample.unwrap(), config(NEEDED, &[], Settings::default()).unwrap());
    assert_eq!(format!("{sample:?}"), format!("{plain:?}"));
    assert_eq!(plain.agent.work_dir, Path::new("/home/me/.cache/assay/worker"));
    assert_eq!(plain.key_file, Path::new("/home/me/.cache/assay/worker/worker.key"));
    assert_eq!((plain.agent.name.as_str(), plain.agent.memory_bytes), ("box", 50 << 30));
    assert_eq!((plain.agent.version, plain.agent.build.as_str()), (7, "test 1"));
    assert_eq!((plain.agent.slots, plain.agent.controllers), (2, 2));
    assert_eq!(plain.agent.devices, machine().gpus);
    assert_eq!(plain.agent.kinds, Kind::ALL);
}

#[test]
fn the_commented_lines_of_the_sample_file_are_valid_too() {
    let all: String =
        SAMPLE.lines().map(|line| line.strip_prefix("#: ").unwrap_or(line).to_owned() + "\n").collect();
    let config = config(&all, &[], Settings::default()).unwrap();
    assert!(config.redis.password_file.is_some() && config.objects.secret_file.is_some());
    assert!(!config.objects.options.is_empty());
    assert!(config.prover.keys.is_some());
}

#[test]
fn flags_win_over_environment_over_file_over_defaults() {
    let file = format!("{NEEDED}[worker]\nname = \"f\"\nslots = 3\ncontrollers = 4\nmemory_gib = 5\n");
    let env = [("ASSAY_WORKER_NAME", "e"), ("ASSAY_WORKER_SLOTS", "6")];
    let worker = WorkerSettings { name: Some("flag".into()), ..WorkerSettings::default() };
    let config = config(&file, &env, Settings { worker, ..Settings::default() }).unwrap().agent;
    assert_eq!((config.name.as_str(), config.slots, config.controllers), ("flag", 6, 4));
    assert_eq!(config.memory_bytes, 5 << 30);
    assert_eq!(config.times.drain_ms, 20_000);
}

#[test]
fn every_variable_is_read() {
    let values = [
        "redis://r",
        "/p",
        "d",
        "s3://b",
        "n",
        "/w",
        "/k",
        "1,cpu",
        "4",
        "5",
        "6",
        "12",
        "wrap,execute",
        "7",
        "/keys",
        "21000",
        "9",
    ];
    let env: Vec<(&str, &str)> = VARIABLES.into_iter().zip(values).collect();
    let config = config("", &env, Settings::default()).unwrap();
    assert_eq!((config.redis.url.as_str(), config.redis.name.as_str()), ("redis://r", "d"));
    assert_eq!(config.redis.password_file.as_deref(), Some(Path::new("/p")));
    assert_eq!(config.objects.url, "s3://b");
    assert_eq!(config.key_file, Path::new("/k"));
    let keys = Some("/keys".into());
    assert_eq!(config.prover, ProverConfig { keys, parts: 8, run_gas_max: 21_000, run_blocks_max: 9 });
    let agent = config.agent;
    assert_eq!((agent.name.as_str(), agent.work_dir.as_path()), ("n", Path::new("/w")));
    assert_eq!(agent.devices, [(Device::Gpu(1), "4090".into()), (Device::Cpu, "EPYC".into())]);
    assert_eq!((agent.slots, agent.controllers, agent.memory_bytes), (4, 5, 6 << 30));
    let share = GpuShare { processes: 2, memory_bytes: Some(5 << 30) };
    assert_eq!(agent.gpu_shares, BTreeMap::from([(Device::Gpu(1), share)]));
    assert_eq!(agent.kinds, [Kind::Execute, Kind::Wrap]);
    assert_eq!(agent.times.drain_ms, 7_000);
}

#[test]
fn devices_are_what_was_asked_for_and_what_there_is() {
    let on = |machine: &Machine, devices: &str| {
        let worker = WorkerSettings { devices: Some(devices.into()), ..WorkerSettings::default() };
        let found = config_on(machine, NEEDED, &[], Settings { worker, ..Settings::default() });
        found.map(|config| {
            config.agent.devices.iter().map(|(d, _)| d.to_string()).collect::<Vec<_>>().join(" ")
        })
    };
    let (two, none) = (machine(), Machine { gpus: Vec::new(), ..machine() });
    for (machine, asked, got) in [
        (&two, "auto", "0 1"),
        (&none, "auto", "cpu"),
        (&two, "all", "0 1"),
        (&two, "1", "1"),
        (&two, "cpu", "cpu"),
        (&two, "all, cpu", "0 1 cpu"),
    ] {
        assert_eq!(on(machine, asked).unwrap(), got, "{asked}");
    }
    for (machine, asked, word) in
        [(&none, "all", "none"), (&two, "2", "0 (H200), 1 (4090)"), (&two, "gpu", "gpu")]
    {
        let error = on(machine, asked).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
}

#[test]
fn a_build_without_cuda_leaves_gpus_alone() {
    let on = |devices: &str| {
        let worker = WorkerSettings { devices: Some(devices.into()), ..WorkerSettings::default() };
        config_of(false, &machine(), NEEDED, &[], Settings { worker, ..Settings::default() })
    };
    for asked in ["auto", "cpu"] {
        assert_eq!(on(asked).unwrap().agent.devices, [(Device::Cpu, "EPYC".into())], "{asked}");
    }
    for asked in ["all", "1", "0,cpu"] {
        let error = on(asked).unwrap_err().to_string();
        assert!(error.contains(asked) && error.contains("make cuda"), "{error}");
    }
}

#[test]
fn unknown_fields_and_impossible_values_are_named_and_passwords_are_not_shown() {
    for (file, env, word) in [
        ("colour = 1", None, "colour"),
        ("[worker]\nspeed = 1", None, "speed"),
        ("[worker]\nslots = 0\ncontrollers = 0", None, "slots"),
        ("[worker]\nslots = 1000", None, "slots"),
        ("[worker]\nkinds = \"wrap,mop\"", None, "mop"),
        ("[worker]\nname = \"\"", None, "name"),
        ("[worker]\ndrain_seconds = 100000", None, "drain_seconds"),
        ("[prover]\nthreads = 1", None, "threads"),
        ("[prover]\nparts = 0", None, "prover.parts"),
        ("[prover]\nrun_gas_max = 1", None, "prover.run_gas_max"),
        ("[prover]\nrun_blocks_max = 0", None, "prover.run_blocks_max"),
        ("", Some(("ASSAY_WORKER_SLOTS", "many")), "ASSAY_WORKER_SLOTS"),
        ("", Some(("ASSAY_STORE", "http://x")), "store.url"),
        ("", Some(("ASSAY_REDIS", "http://me:secret@x")), "queue.redis"),
    ] {
        let mut all = vec![("ASSAY_REDIS", "redis://r"), ("ASSAY_STORE", "file:///s")];
        all.extend(env);
        let error = config(file, &all, Settings::default()).unwrap_err().to_string();
        assert!(error.contains(word) && !error.contains("secret"), "{error}");
    }
    for (file, word) in
        [("[store]\nurl = \"file:///s\"", "--redis"), ("[queue]\nredis = \"redis://r\"", "--store")]
    {
        let error = config(file, &[], Settings::default()).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
}

#[test]
fn a_processor_takes_as_many_tasks_as_it_has_memory_and_cores_for() {
    let slots = |memory: &str| {
        let flags = Settings::default();
        config(&format!("{NEEDED}[worker]\ndevices = \"cpu\"\nmemory_gib = {memory}\n"), &[], flags)
            .unwrap()
            .agent
            .slots
    };
    assert_eq!(["1", "15", "16", "20", "24", "200"].map(slots), [1, 1, 2, 2, 3, 4]);
    assert_eq!(cpu_slots(1 << 40, 0, 0), 1);
    assert_eq!(cpu_slots(u64::MAX, 1, u32::MAX), SLOTS_MAX);
}

#[test]
fn a_gpus_memory_is_shared_by_the_processes_that_it_has_at_the_same_time() {
    let shares = |config: &Config| -> Vec<(Device, u32, u64)> {
        let gib = |share: &GpuShare| share.memory_bytes.unwrap() >> 30;
        config.agent.gpu_shares.iter().map(|(device, share)| (*device, share.processes, gib(share))).collect()
    };
    let with = |text: &str| config(&format!("{NEEDED}[worker]\n{text}"), &[], Settings::default()).unwrap();
    let (first, second) = (Device::Gpu(0), Device::Gpu(1));
    // Provers and Groth16 stay loaded where there is memory for both.
    assert_eq!(shares(&with("")), [(first, 2, 69), (second, 1, 24)]);
    assert_eq!(shares(&with("slots = 3")), [(first, 4, 34), (second, 1, 24)]);
    assert_eq!(shares(&with("slots = 5")), [(first, 5, 27), (second, 2, 11)], "as many as there are tasks");
    // No card has more than it has.
    assert_eq!(shares(&with("device_memory_gib = 40")), [(first, 1, 40), (second, 1, 24)]);
    assert_eq!(shares(&with("devices = \"1,cpu\"")), [(second, 1, 24)]);
    assert_eq!(shares(&with("devices = \"cpu\"")), []);
    let silent = Machine { gpu_memory_bytes: BTreeMap::new(), ..machine() };
    let file = format!("{NEEDED}[worker]\nslots = 4\ndevice_memory_gib = 12");
    let config = config_on(&silent, &file, &[], Settings::default()).unwrap();
    assert_eq!(shares(&config), [(first, 2, 5), (second, 2, 5)]);
    let config = config_on(&silent, NEEDED, &[], Settings::default()).unwrap();
    let share = config.agent.gpu_shares[&first];
    assert_eq!((config.agent.slots, share), (2, GpuShare::default()), "nothing is known of their memory");
}

#[test]
fn a_gpu_has_no_more_tasks_than_it_has_memory_for() {
    let with = |text: &str| config(&format!("{NEEDED}[worker]\n{text}"), &[], Settings::default());
    assert!(with("slots = 8").is_ok(), "four tasks with 24 GiB");
    let error = with("slots = 10").unwrap_err();
    assert!(matches!(error, ConfigError::GpuShare { device: Device::Gpu(1), tasks: 5, .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("GPU 1 has 3891 MiB") && text.contains("need 5120"), "{text}");
    assert!(with("devices = \"all\"\ndevice_memory_gib = 4").is_err());
    assert!(with("devices = \"cpu\"\ndevice_memory_gib = 4").is_ok());
    assert!(
        with("slots = 10\nkinds = \"execute,block,fold,groth16\"").is_ok(),
        "only the zkVM needs so much"
    );
    assert!(with("slots = 10\nkinds = \"reduce,groth16\"").is_err());
}

#[test]
fn gpus_with_too_little_memory_are_left_out_unless_they_are_named() {
    let small = |small: &[u32]| {
        let bytes = |gpu: &u32| (Device::Gpu(*gpu), if small.contains(gpu) { 4 << 30 } else { 24 << 30 });
        Machine { gpu_memory_bytes: [0, 1].iter().map(bytes).collect(), ..machine() }
    };
    let devices = |machine: &Machine, text: &str| {
        let file = format!("{NEEDED}[worker]\ndevices = \"{text}\"\n");
        let config = config_on(machine, &file, &[], Settings::default());
        config.map(|config| config.agent.devices.into_iter().map(|(device, _)| device).collect::<Vec<_>>())
    };
    assert_eq!(devices(&small(&[0]), "auto").unwrap(), [Device::Gpu(1)]);
    assert_eq!(devices(&small(&[0, 1]), "auto").unwrap(), [Device::Cpu]);
    assert!(devices(&small(&[0]), "all").is_err());
    assert!(devices(&small(&[0]), "0").is_err());
    assert_eq!(devices(&small(&[0]), "1").unwrap(), [Device::Gpu(1)]);
    assert_eq!(devices(&small(&[0]), "auto\"\nkinds = \"groth16").unwrap().len(), 2);
}

#[test]
fn gpus_that_have_room_have_two_tasks_each() {
    let slots = |file: &str, gpu_gib: u64, memory_gib: u64| {
        let gpus = machine().gpus.into_iter().map(|(device, _)| (device, gpu_gib << 30));
        let machine =
            Machine { gpu_memory_bytes: gpus.collect(), memory_bytes: memory_gib << 30, ..machine() };
        let file = format!("{NEEDED}[worker]\n{file}");
        config_on(&machine, &file, &[], Settings::default()).unwrap().agent.slots
    };
    assert_eq!(slots("", 80, 60), 4);
    assert_eq!(slots("", 48, 60), 2, "one task needs most of it");
    assert_eq!(slots("", 80, 36), 2, "the machine has no memory for four tasks");
    assert_eq!(slots("device_memory_gib = 40", 80, 60), 2);
    assert_eq!(slots("devices = \"0,cpu\"", 80, 60), 2, "the processor has one");
    assert_eq!(slots("slots = 3", 80, 60), 3);
}

#[test]
fn two_controllers_keep_gpus_busy_where_there_is_memory_for_them() {
    let controllers = |file: &str| {
        let file = format!("{NEEDED}[worker]\n{file}");
        config(&file, &[], Settings::default()).unwrap().agent.controllers
    };
    assert_eq!(controllers("memory_gib = 32"), 2, "two shards and two controllers");
    assert_eq!(controllers("memory_gib = 31"), 1);
    assert_eq!(controllers("devices = \"cpu\""), 1);
    assert_eq!(controllers("controllers = 7"), 7);
}

#[test]
fn a_worker_that_nobody_has_configured_takes_what_there_is() {
    let program = program();
    let agent = |program: &Program, machine: &Machine, devices: &str| {
        local_agent(program, machine, devices, 20 << 30, "/w".into())
    };
    let found = agent(&program, &machine(), "auto").unwrap();
    assert_eq!((found.devices, found.slots, found.version), (machine().gpus, 2, 7));
    assert_eq!(found.controllers, 1, "20 GiB are not enough for two");
    assert_eq!((found.name.as_str(), found.build.as_str(), found.gpu_shares.len()), ("box", "test 1", 2));
    let found = agent(&program, &machine(), "cpu").unwrap();
    assert_eq!((found.devices, found.slots), (vec![(Device::Cpu, "EPYC".into())], 2));
    assert_eq!(agent(&program, &machine(), "1").unwrap().devices, [(Device::Gpu(1), "4090".into())]);
    assert!(agent(&program, &machine(), "7").is_err());
    let plain = Program { uses_gpus: false, ..program };
    assert_eq!(agent(&plain, &machine(), "auto").unwrap().devices, [(Device::Cpu, "EPYC".into())]);
    let nameless = Machine { host: "\u{7}".into(), ..machine() };
    assert_eq!(agent(&plain, &nameless, "auto").unwrap().name, "worker");
}
