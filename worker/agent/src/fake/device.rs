//! GPUs that fail as a script says, without any GPU: [`FakeGpus`] does cheap tasks in child processes, which find in a folder
//! ([`Hardware`]) what happens to their device.
//!
//! The child is a program of the caller's that calls [`serve`]; what a device has done and suffered is in its folder, and so
//! survives its processes. A script is a list of troubles with `;` between them, tasks of a device counted from 1, whatever
//! process does them:
//!
//! | entry | the device at this task |
//! |---|---|
//! | `3: fail` | fails, and its process ends |
//! | `3: hang` | says nothing any more |
//! | `3: slow 500` | takes 500 ms longer, and says that it goes on |
//! | `3: wrong` | returns another result |
//! | `3: memory 25` | needs 25 bytes of its memory ([`DEVICE_MEMORY_VARIABLE`]; no limit if not set) |
//! | `3: sticky` | fails it and everything after it, until its process is started again |
//! | `3: lost` | fails everything from now on, also in new processes, until [`Hardware::repair`] |
//! | `3..: wrong` | the same at every task from the third on |
//!
//! ```
//! use assay_agent::fake::device::{Script, Trouble};
//!
//! let script: Script = "2: sticky; 5..: slow 20".parse().unwrap();
//! assert_eq!(script.at(2), Some(Trouble::Sticky));
//! assert_eq!((script.at(3), script.at(9)), (None, Some(Trouble::Slow(20))));
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, BufRead, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, Instant};

use assay_schedule::{Hash, Kind};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{read_all, results, write_outputs, Cheap};
use crate::runner::child::{
    ChildRunner, ChildSettings, Jobs, Meaning, Program, Talk, DEVICE_MEMORY_VARIABLE,
};
use crate::runner::{
    Device, DeviceFault, Ended, Failure, GpuShare, Host, NewFile, PartError, Progress, Runner, Task,
};

/// The variable in which a child finds the folder of its [`Hardware`].
pub const HARDWARE_VARIABLE: &str = "ASSAY_FAKE_GPUS";
/// How often a slow device says that it goes on.
const SIGN_OF_LIFE: Duration = Duration::from_millis(10);

/// What goes wrong with a task; see the module's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It fails.
    Fail,
    /// It never ends.
    Hang,
    /// It takes this many milliseconds longer.
    Slow(u64),
    /// It returns another result.
    Wrong,
    /// It needs this many bytes of the device's memory.
    Memory(u64),
    /// It fails, and so does everything after it in this process.
    Sticky,
    /// It fails, and so does everything after it.
    Lost,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trouble::Fail => f.write_str("fail"),
            Trouble::Hang => f.write_str("hang"),
            Trouble::Slow(ms) => write!(f, "slow {ms}"),
            Trouble::Wrong => f.write_str("wrong"),
            Trouble::Memory(bytes) => write!(f, "memory {bytes}"),
            Trouble::Sticky => f.write_str("sticky"),
            Trouble::Lost => f.write_str("lost"),
        }
    }
}

impl FromStr for Trouble {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let number = |word: &str| word.parse::<u64>().map_err(|_| format!("{word:?} is no number"));
        Ok(match words.as_slice() {
            ["fail"] => Trouble::Fail,
            ["hang"] => Trouble::Hang,
            ["slow", ms] => Trouble::Slow(number(ms)?),
            ["wrong"] => Trouble::Wrong,
            ["memory", bytes] => Trouble::Memory(number(bytes)?),
            ["sticky"] => Trouble::Sticky,
            ["lost"] => Trouble::Lost,
            _ => return Err(format!("{text:?} is no trouble")),
        })
    }
}

/// What happens to a device, and when.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Script {
    once: BTreeMap<u64, Trouble>,
    /// From a task on, unless something else is said of it.
    from: Option<(u64, Trouble)>,
}

impl Script {
    /// What goes wrong with the device's task of this number, from 1.
    pub fn at(&self, task: u64) -> Option<Trouble> {
        let lasting = self.from.filter(|(from, _)| *from <= task).map(|(_, trouble)| trouble);
        self.once.get(&task).copied().or(lasting)
    }

    /// Troubles among the first `tasks` tasks, each as many times of a thousand as is said; the same for the same seed.
    pub fn draw(seed: u64, tasks: u64, permille: &[(Trouble, u32)]) -> Self {
        let mut once = BTreeMap::new();
        for task in 1..=tasks {
            let mut drawn = super::draw("assay-agent 1 device", seed, task) % 1000;
            for (trouble, chance) in permille {
                match drawn.checked_sub((*chance).into()) {
                    None => {
                        once.insert(task, *trouble);
                        break;
                    }
                    Some(rest) => drawn = rest,
                }
            }
        }
        Self { once, from: None }
    }
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let once = self.once.iter().map(|(task, trouble)| format!("{task}: {trouble}"));
        let entries = once.chain(self.from.map(|(task, trouble)| format!("{task}..: {trouble}")));
        f.write_str(&entries.collect::<Vec<_>>().join("; "))
    }
}

impl FromStr for Script {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut script = Script::default();
        for entry in text.split(';').map(str::trim).filter(|entry| !entry.is_empty()) {
            let wrong = || format!("{entry:?}: expected a task's number, a colon and a trouble");
            let (task, trouble) = entry.split_once(':').ok_or_else(wrong)?;
            let trouble: Trouble = trouble.parse()?;
            match task.strip_suffix("..") {
                Some(task) => script.from = Some((task.parse().map_err(|_| wrong())?, trouble)),
                None => {
                    script.once.insert(task.parse().map_err(|_| wrong())?, trouble);
                }
            }
        }
        Ok(script)
    }
}

/// The folder of a machine's fake GPUs: for each what will happen to it and what has.
#[derive(Clone, Debug)]
pub struct Hardware {
    dir: PathBuf,
}

impl Hardware {
    /// GPUs in a folder; none has trouble yet.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    fn gpu(&self, number: u32) -> PathBuf {
        self.dir.join(format!("gpu-{number}"))
    }

    /// Says what will happen to a GPU.
    ///
    /// # Errors
    /// Those of the file.
    pub fn set(&self, number: u32, script: &Script) -> io::Result<()> {
        fs::create_dir_all(self.gpu(number))?;
        fs::write(self.gpu(number).join("script"), script.to_string())
    }

    /// Makes a GPU a new one, but for the count of its tasks.
    ///
    /// # Errors
    /// Those of the file.
    pub fn repair(&self, number: u32) -> io::Result<()> {
        self.set(number, &Script::default())?;
        match fs::remove_file(self.gpu(number).join("lost")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Tasks that were begun on a GPU.
    pub fn tasks(&self, number: u32) -> u64 {
        self.count(number, "tasks")
    }

    /// Processes that were started on a GPU.
    pub fn starts(&self, number: u32) -> u64 {
        self.count(number, "starts")
    }

    /// Whether a GPU is lost.
    pub fn is_lost(&self, number: u32) -> bool {
        self.gpu(number).join("lost").exists()
    }

    fn count(&self, number: u32, what: &str) -> u64 {
        fs::metadata(self.gpu(number).join(what)).map_or(0, |file| file.len())
    }

    /// Counts by a byte, and returns how many there are: one process at a time has a GPU.
    fn add(&self, number: u32, what: &str) -> io::Result<u64> {
        fs::create_dir_all(self.gpu(number))?;
        let path = self.gpu(number).join(what);
        OpenOptions::new().create(true).append(true).open(&path)?.write_all(b".")?;
        Ok(fs::metadata(&path)?.len())
    }

    fn script(&self, number: u32) -> io::Result<Script> {
        match fs::read_to_string(self.gpu(number).join("script")) {
            Ok(text) => text.parse().map_err(io::Error::other),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Script::default()),
            Err(error) => Err(error),
        }
    }
}

/// What a child is told.
#[derive(Debug, Serialize, Deserialize)]
struct Order {
    kind: Kind,
    inputs: Vec<PathBuf>,
    dir: PathBuf,
}

/// What a child says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Word {
    Alive,
    Done(Vec<NewFile>),
    Failed(String),
    Allocation,
    Sticky,
    Lost,
}

/// A child's whole life: tasks from standard input, on the GPU that `CUDA_VISIBLE_DEVICES` names, of the hardware that
/// [`HARDWARE_VARIABLE`] names. Returns when the input ends or a task fails; never if the device hangs.
///
/// # Errors
/// Those of the hardware's folder and of standard input and output; a variable that is not there.
pub fn serve() -> io::Result<()> {
    let variable =
        |name: &str| std::env::var(name).map_err(|error| io::Error::other(format!("{name}: {error}")));
    let hardware = Hardware::new(variable(HARDWARE_VARIABLE)?);
    let number: u32 = variable("CUDA_VISIBLE_DEVICES")?.parse().map_err(io::Error::other)?;
    let memory = std::env::var(DEVICE_MEMORY_VARIABLE).ok().and_then(|bytes| bytes.parse().ok());
    hardware.add(number, "starts")?;
    let mut child = Child { hardware, number, memory_bytes: memory.unwrap_or(u64::MAX), is_sticky: false };
    // Whoever has started this may have printed half a line.
    println!();
    for line in io::stdin().lock().lines() {
        let order: Order = serde_json::from_str(&line?)?;
        let word = child.work(&order)?;
        child.say(&word)?;
        if matches!(word, Word::Failed(_)) {
            return Ok(());
        }
    }
    Ok(())
}

/// A process on a GPU.
struct Child {
    hardware: Hardware,
    number: u32,
    memory_bytes: u64,
    is_sticky: bool,
}

impl Child {
    fn say(&self, word: &Word) -> io::Result<()> {
        let mut output = io::stdout().lock();
        writeln!(output, "{}", serde_json::to_string(word)?)?;
        output.flush()
    }

    fn work(&mut self, order: &Order) -> io::Result<Word> {
        let task = self.hardware.add(self.number, "tasks")?;
        if self.hardware.is_lost(self.number) {
            return Ok(Word::Lost);
        }
        if self.is_sticky {
            return Ok(Word::Sticky);
        }
        let trouble = self.hardware.script(self.number)?.at(task);
        match trouble {
            Some(Trouble::Fail) => return Ok(Word::Failed("a scripted failure".to_owned())),
            Some(Trouble::Hang) => loop {
                std::thread::park();
            },
            Some(Trouble::Slow(ms)) => {
                let end = Instant::now() + Duration::from_millis(ms);
                while Instant::now() < end {
                    self.say(&Word::Alive)?;
                    std::thread::sleep(SIGN_OF_LIFE);
                }
            }
            Some(Trouble::Memory(bytes)) if bytes > self.memory_bytes => return Ok(Word::Allocation),
            Some(Trouble::Sticky) => {
                self.is_sticky = true;
                return Ok(Word::Sticky);
            }
            Some(Trouble::Lost) => {
                fs::write(self.hardware.gpu(self.number).join("lost"), "")?;
                return Ok(Word::Lost);
            }
            Some(Trouble::Wrong | Trouble::Memory(_)) | None => {}
        }
        let outputs = read_all(&order.inputs).and_then(|inputs| results(order.kind, &inputs));
        let written = outputs.and_then(|mut outputs| {
            if trouble == Some(Trouble::Wrong) {
                super::falsify(&mut outputs);
            }
            write_outputs(outputs, &order.dir)
        });
        Ok(written.map_or_else(|failure| Word::Failed(failure.to_string()), Word::Done))
    }
}

/// Tasks of GPUs as orders to children.
struct Orders {
    program: Program,
    hardware: Hardware,
}

impl Jobs for Orders {
    fn program(&self, _: &Task) -> Program {
        self.program.clone()
    }

    fn class(&self, _: &Task) -> Option<String> {
        Some("gpu".to_owned())
    }

    fn begin(&self, task: &Task, _: u64) -> Result<Box<dyn Talk>, Failure> {
        let kind = task.dispatch.stage.kind();
        let order = Order { kind, inputs: task.inputs.clone(), dir: task.dir.clone() };
        let line = serde_json::to_string(&order).map_err(|error| Failure::Permanent(error.to_string()))?;
        Ok(Box::new(Conversation { order: Some(line) }))
    }

    fn has(&self, device: Device) -> bool {
        matches!(device, Device::Gpu(number) if !self.hardware.is_lost(number))
    }
}

struct Conversation {
    order: Option<String>,
}

impl Talk for Conversation {
    fn open(&mut self) -> Vec<String> {
        self.order.take().into_iter().collect()
    }

    fn hear(&mut self, line: &str) -> Meaning {
        let fault = |fault| Meaning::Failed(Failure::Device(fault));
        match serde_json::from_str(line) {
            Ok(Word::Alive) => Meaning::Progress(Progress { phase: "slow".to_owned(), done: 0, total: 0 }),
            Ok(Word::Done(outputs)) => Meaning::Done { outputs, gpu_ms: None },
            Ok(Word::Failed(reason)) => Meaning::Failed(Failure::Transient(reason)),
            Ok(Word::Allocation) => Meaning::GivenBack(Failure::Device(DeviceFault::Allocation)),
            Ok(Word::Sticky) => fault(DeviceFault::Sticky("an illegal memory access".to_owned())),
            Ok(Word::Lost) => fault(DeviceFault::Lost("it has fallen off the bus".to_owned())),
            Err(_) => Meaning::Noise,
        }
    }

    fn part_done(&mut self, _: &Hash, _: Result<Vec<PathBuf>, PartError>) -> Vec<String> {
        Vec::new()
    }

    fn jobs(&self) -> u64 {
        1
    }
}

/// Does cheap tasks: those with a GPU in children, as its script has it, controllers in this process.
pub struct FakeGpus {
    cheap: Cheap,
    children: ChildRunner<Orders>,
}

impl FakeGpus {
    /// A runner whose children are `program`, which calls [`serve`]. `gpus`: how they are shared.
    pub fn new(
        mut program: Program,
        hardware: &Path,
        settings: ChildSettings,
        gpus: BTreeMap<Device, GpuShare>,
    ) -> Self {
        program.environment.push((HARDWARE_VARIABLE.to_owned(), hardware.display().to_string()));
        let orders = Orders { program, hardware: Hardware::new(hardware) };
        let children = ChildRunner::new(orders, settings).with_gpus(gpus);
        Self { cheap: Cheap::default(), children }
    }
}

#[async_trait]
impl Runner for FakeGpus {
    async fn run(&self, task: Task, host: Host) -> Ended {
        match task.device {
            Device::Cpu => self.cheap.run(task, host).await,
            Device::Gpu(_) => self.children.run(task, host).await,
        }
    }

    async fn has(&self, device: Device) -> bool {
        self.children.has(device).await
    }

    async fn let_go(&self, device: Device) {
        self.children.let_go(device).await;
    }

    async fn close(&self) {
        self.children.close().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_read_as_it_is_written() {
        let text = "1: fail; 2: hang; 3: slow 5; 4: wrong; 5: memory 6; 7: sticky; 9..: lost";
        let script: Script = text.parse().unwrap();
        assert_eq!(script.to_string(), text);
        assert_eq!((script.at(5), script.at(6)), (Some(Trouble::Memory(6)), None));
        assert_eq!(
            (script.at(8), script.at(9), script.at(99)),
            (None, Some(Trouble::Lost), Some(Trouble::Lost))
        );
        assert_eq!("".parse(), Ok(Script::default()));
        for bad in ["x: fail", "1 fail", "1: fly", "1: slow", "1: slow x", "..: fail", "1: hang now"] {
            assert!(bad.parse::<Script>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_seed_draws_the_same_script_every_time_and_each_trouble_as_often_as_asked() {
        let permille = [(Trouble::Hang, 100), (Trouble::Wrong, 20)];
        let script = Script::draw(3, 10_000, &permille);
        assert_eq!(script, Script::draw(3, 10_000, &permille));
        assert_ne!(script, Script::draw(4, 10_000, &permille));
        let count = |trouble| (1..=10_000).filter(|task| script.at(*task) == Some(trouble)).count();
        assert!((850..1150).contains(&count(Trouble::Hang)), "{}", count(Trouble::Hang));
        assert!((140..260).contains(&count(Trouble::Wrong)), "{}", count(Trouble::Wrong));
        assert_eq!(script.to_string().parse(), Ok(script));
    }

    #[test]
    fn a_gpu_stays_lost_until_it_is_repaired() {
        let dir = tempfile::tempdir().unwrap();
        let hardware = Hardware::new(dir.path());
        hardware.set(3, &"1: lost".parse().unwrap()).unwrap();
        let mut child = Child { hardware: hardware.clone(), number: 3, memory_bytes: 1, is_sticky: false };
        let order = Order { kind: Kind::Wrap, inputs: Vec::new(), dir: dir.path().to_owned() };
        for task in 1..=3 {
            assert!(matches!(child.work(&order), Ok(Word::Lost)));
            assert_eq!((hardware.tasks(3), hardware.is_lost(3)), (task, true));
        }
        hardware.repair(3).unwrap();
        // The order itself makes no sense, which is another failure.
        assert!(matches!(child.work(&order), Ok(Word::Failed(_))));
    }
}
