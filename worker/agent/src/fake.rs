//! Test helper: a runner whose results cost nothing and can be recomputed by anybody, and its faults.
//!
//! Every artifact is a line that says the batch's [`Shape`], and bytes derived with BLAKE3 from the content of the inputs.
//! [`results`] says what the task of a dispatch must return for its inputs, so whoever verifies calls it with what
//! `Work::Verify` names; [`prove`] says what a whole batch must end in. [`main`] is a whole worker process. Controllers
//! spawn a real tree of parts:
//!
//! ```text
//! witness ─▶ record 0 ─shard─▶ proof ─┐
//!         ─▶ record 1 ─shard─▶ proof ─┼─reduce─▶ … ─▶ root ─▶ block proof
//!         ─▶ …                        ┘
//! ```
//! [`device`] does the same in processes whose GPU fails as a script says.

pub mod device;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use assay_schedule::{Hash, Kind};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::cli;
use crate::config::Program;
use crate::runner::{Ended, Failure, Host, NewFile, Part, PartError, Progress, Runner, Task, Used};

/// Limits of a [`Shape`].
const RUNS_MAX: u32 = 64;
const SHARDS_MAX: u32 = 1024;
const BYTES_MAX: u32 = 64 << 20;
/// Longest first line.
const LINE_BYTES_MAX: usize = 256;

/// How a batch falls into tasks. A payload is this as one line of JSON, and anything after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shape {
    /// Runs of blocks, at least 1.
    pub runs: u32,
    /// Shards of each run, at least 1.
    pub shards: u32,
    /// Shards of the fold, at least 1.
    pub fold_shards: u32,
    /// Proofs that one reduction joins, at least 2.
    pub arity: u32,
    /// Size of each artifact's body.
    pub bytes: u32,
    /// Makes batches of the same shape differ.
    pub seed: u64,
}

impl Shape {
    /// A payload of this shape.
    pub fn payload(&self) -> Vec<u8> {
        self.pack("payload", &[])
    }

    /// An artifact: the shape and bytes that depend on `tag` and all `inputs`.
    fn pack(&self, tag: &str, inputs: &[&[u8]]) -> Vec<u8> {
        let mut out = serde_json::to_vec(self).unwrap_or_default();
        out.push(b'\n');
        let mut hasher = blake3::Hasher::new_derive_key("assay-agent 1 cheap");
        for part in [tag.as_bytes(), &out].iter().chain(inputs) {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        let at = out.len();
        out.resize(at + self.bytes as usize, 0);
        hasher.finalize_xof().fill(&mut out[at..]);
        out
    }

    /// The shape that an artifact says.
    fn unpack(artifact: &[u8]) -> Result<Self, Failure> {
        let line = artifact.iter().take(LINE_BYTES_MAX).position(|byte| *byte == b'\n');
        let shape: Option<Shape> = line.and_then(|end| serde_json::from_slice(&artifact[..end]).ok());
        let is_sound = |shape: &Shape| {
            (1..=RUNS_MAX).contains(&shape.runs)
                && (1..=SHARDS_MAX).contains(&shape.shards)
                && (1..=SHARDS_MAX).contains(&shape.fold_shards)
                && (2..=SHARDS_MAX).contains(&shape.arity)
                && shape.bytes <= BYTES_MAX
        };
        shape.filter(is_sound).ok_or_else(|| Failure::Permanent("the input has no shape".to_owned()))
    }

    fn shards_of(&self, kind: Kind) -> u32 {
        if kind == Kind::Fold {
            self.fold_shards
        } else {
            self.shards
        }
    }
}

/// What a task of a kind must return for the content of its inputs, in the dispatch's order. A result is right if it is
/// this, byte for byte; a coordinator's verifier needs nothing else.
///
/// # Errors
/// [`Failure::Permanent`] for inputs that no task can have.
pub fn results(kind: Kind, inputs: &[Vec<u8>]) -> Result<Vec<Vec<u8>>, Failure> {
    let first = inputs.first().ok_or_else(|| Failure::Permanent("no input".to_owned()))?;
    let shape = Shape::unpack(first)?;
    let all: Vec<&[u8]> = inputs.iter().map(Vec::as_slice).collect();
    Ok(match kind {
        Kind::Execute => (0..shape.runs).map(|run| shape.pack(&format!("witness {run}"), &all)).collect(),
        kind if kind.is_controller() => {
            let mut layer: Vec<Vec<u8>> = (0..shape.shards_of(kind))
                .map(|shard| shape.pack("shard", &[&record(&shape, kind, &all, shard)]))
                .collect();
            while layer.len() > 1 {
                layer = layer.chunks(shape.arity as usize).map(|chunk| reduce(&shape, chunk)).collect();
            }
            vec![root(&shape, kind, &all, &layer[0])]
        }
        kind => vec![shape.pack(&kind.to_string(), &all)],
    })
}

/// The Groth16 proof that a batch must end in, and its fold proof.
///
/// # Errors
/// [`Failure::Permanent`] for a payload that is none.
pub fn prove(payload: &[u8], previous_fold: Option<&[u8]>) -> Result<(Vec<u8>, Vec<u8>), Failure> {
    let one = |kind, inputs: &[Vec<u8>]| results(kind, inputs).map(|mut outputs| outputs.swap_remove(0));
    let mut folded = Vec::new();
    for witness in results(Kind::Execute, &[payload.to_vec()])? {
        folded.push(one(Kind::Block, &[witness])?);
    }
    folded.extend(previous_fold.map(<[u8]>::to_vec));
    let fold = one(Kind::Fold, &folded)?;
    let wrap = one(Kind::Wrap, std::slice::from_ref(&fold))?;
    Ok((one(Kind::Groth16, &[wrap])?, fold))
}

fn record(shape: &Shape, kind: Kind, inputs: &[&[u8]], shard: u32) -> Vec<u8> {
    shape.pack(&format!("record {kind} {shard}"), inputs)
}

fn reduce(shape: &Shape, proofs: &[Vec<u8>]) -> Vec<u8> {
    shape.pack("reduce", &proofs.iter().map(Vec::as_slice).collect::<Vec<_>>())
}

fn root(shape: &Shape, kind: Kind, inputs: &[&[u8]], proof: &[u8]) -> Vec<u8> {
    let all: Vec<&[u8]> = inputs.iter().copied().chain([proof]).collect();
    shape.pack(&kind.to_string(), &all)
}

/// How a cheap runner misbehaves: for each attempt one fault at most, drawn from the seed and the attempt's number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// The seed.
    pub seed: u64,
    /// Attempts of a thousand that fail.
    pub fail_permille: u32,
    /// That never end.
    pub hang_permille: u32,
    /// That return another result.
    pub wrong_permille: u32,
    /// That take [`Faults::slow_ms`] longer.
    pub slow_permille: u32,
    /// How much longer.
    pub slow_ms: u64,
    /// That run out of memory.
    pub memory_permille: u32,
}

/// What goes wrong with one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It fails.
    Fail,
    /// It never ends.
    Hang,
    /// It returns another result.
    Wrong,
    /// It takes longer.
    Slow,
    /// It runs out of memory.
    Memory,
}

impl Faults {
    /// What goes wrong with an attempt, if anything does.
    pub fn draw(&self, attempt: u64) -> Option<Fault> {
        let mut drawn = draw("assay-agent 1 faults", self.seed, attempt) % 1000;
        let chances = [
            (self.fail_permille, Fault::Fail),
            (self.hang_permille, Fault::Hang),
            (self.wrong_permille, Fault::Wrong),
            (self.slow_permille, Fault::Slow),
            (self.memory_permille, Fault::Memory),
        ];
        for (permille, fault) in chances {
            match drawn.checked_sub(permille.into()) {
                None => return Some(fault),
                Some(rest) => drawn = rest,
            }
        }
        None
    }
}

/// A number that looks random and follows from these.
fn draw(context: &str, seed: u64, number: u64) -> u64 {
    let mut hasher = blake3::Hasher::new_derive_key(context);
    hasher.update(&seed.to_le_bytes()).update(&number.to_le_bytes());
    let mut low = [0u8; 8];
    low.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    u64::from_le_bytes(low)
}

/// Makes a result wrong by one bit.
fn falsify(outputs: &mut [Vec<u8>]) {
    if let Some(last) = outputs.last_mut().and_then(|bytes| bytes.last_mut()) {
        *last ^= 1;
    }
}

/// The cheap runner.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cheap {
    /// How long each task takes.
    pub task_ms: u64,
    /// What goes wrong.
    pub faults: Faults,
}

/// Version of the cheap runner's programs; batches for it say the same.
pub const VERSION: u32 = 1;

/// Flags of the cheap runner.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct CheapFlags {
    /// Cheap runner: how long each task takes
    #[arg(long, default_value_t = 10, value_name = "MS")]
    pub task_ms: u64,
    /// Cheap runner: where the drawing of faults begins
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub fault_seed: u64,
    /// Cheap runner: attempts of a thousand that fail
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub fail_permille: u32,
    /// Cheap runner: attempts of a thousand that never end
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub hang_permille: u32,
    /// Cheap runner: attempts of a thousand that return another result
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub wrong_permille: u32,
    /// Cheap runner: attempts of a thousand that take --slow-ms longer
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub slow_permille: u32,
    /// Cheap runner: how much longer
    #[arg(long, default_value_t = 1000, value_name = "MS")]
    pub slow_ms: u64,
    /// Cheap runner: attempts of a thousand that run out of memory
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub memory_permille: u32,
}

impl From<CheapFlags> for Cheap {
    fn from(flags: CheapFlags) -> Self {
        let faults = Faults {
            seed: flags.fault_seed,
            fail_permille: flags.fail_permille,
            hang_permille: flags.hang_permille,
            wrong_permille: flags.wrong_permille,
            slow_permille: flags.slow_permille,
            slow_ms: flags.slow_ms,
            memory_permille: flags.memory_permille,
        };
        Self { task_ms: flags.task_ms, faults }
    }
}

/// A worker's whole process with the cheap runner, as [`cli::main`] reads its command line.
pub fn main() -> ExitCode {
    let build = concat!("assay-worker-cheap ", env!("CARGO_PKG_VERSION"));
    let program = Program {
        version: VERSION,
        build: build.to_owned(),
        task_bytes: u64::MAX,
        uses_gpus: true,
        gpu_bytes_min: 0,
    };
    cli::main(&program, |_, flags: CheapFlags| Ok(Cheap::from(flags)))
}

#[async_trait]
impl Runner for Cheap {
    async fn run(&self, task: Task, host: Host) -> Ended {
        let result = tokio::select! {
            result = self.work(&task, &host) => result,
            () = host.cancelled() => Err(Failure::Cancelled),
        };
        let memory_bytes_peak = task.dispatch.memory_bytes / 2;
        let used = Used { cpu_ms: self.task_ms, memory_bytes_peak, ..Used::default() };
        Ended { result, used }
    }
}

impl Cheap {
    async fn work(&self, task: &Task, host: &Host) -> Result<Vec<NewFile>, Failure> {
        let fault = self.faults.draw(task.dispatch.attempt.0);
        match fault {
            Some(Fault::Fail) => return Err(Failure::Transient("a drawn failure".to_owned())),
            Some(Fault::Memory) => return Err(Failure::OutOfMemory),
            Some(Fault::Hang) => std::future::pending().await,
            Some(Fault::Slow) => tokio::time::sleep(Duration::from_millis(self.faults.slow_ms)).await,
            Some(Fault::Wrong) | None => {}
        }
        tokio::time::sleep(Duration::from_millis(self.task_ms)).await;
        let kind = task.dispatch.stage.kind();
        let inputs = read_all(&task.inputs)?;
        let mut outputs = if kind.is_controller() {
            vec![control(kind, &inputs, &task.dir, host).await?]
        } else {
            results(kind, &inputs)?
        };
        if fault == Some(Fault::Wrong) {
            falsify(&mut outputs);
        }
        write_outputs(outputs, &task.dir)
    }
}

fn write_outputs(outputs: Vec<Vec<u8>>, dir: &Path) -> Result<Vec<NewFile>, Failure> {
    let write = |(number, bytes): (usize, Vec<u8>)| {
        let path = dir.join(format!("output-{number}"));
        std::fs::write(&path, bytes).map_err(local)?;
        Ok(NewFile { path, units: 1 })
    };
    outputs.into_iter().enumerate().map(write).collect()
}

/// Does a controller's task with the help of others.
async fn control(kind: Kind, inputs: &[Vec<u8>], dir: &Path, host: &Host) -> Result<Vec<u8>, Failure> {
    let first = inputs.first().ok_or_else(|| Failure::Permanent("no input".to_owned()))?;
    let shape = Shape::unpack(first)?;
    let all: Vec<&[u8]> = inputs.iter().map(Vec::as_slice).collect();
    let shards = shape.shards_of(kind);
    let mut asked = (0..shards)
        .map(|shard| (Kind::Shard, vec![record(&shape, kind, &all, shard)]))
        .collect::<Vec<(Kind, Vec<Vec<u8>>)>>();
    let mut level = 0u64;
    loop {
        host.progress(Progress { phase: format!("level {level}"), done: 0, total: asked.len() as u64 });
        let mut running = tokio::task::JoinSet::new();
        for (place, (kind, content)) in asked.into_iter().enumerate() {
            let part = write_part(kind, &content, dir)?;
            let host = host.clone();
            running.spawn(async move { (place, host.part(part).await) });
        }
        let mut layer = vec![Vec::new(); running.len()];
        while let Some(done) = running.join_next().await {
            let (place, files) = done.map_err(|error| Failure::Transient(error.to_string()))?;
            let files = files.map_err(|error| match error {
                PartError::Cancelled => Failure::Cancelled,
                PartError::Failed(reason) => Failure::Transient(format!("a part: {reason}")),
            })?;
            let mut content = read_all(&files)?;
            layer[place] =
                content.pop().ok_or_else(|| Failure::Transient("a part without a result".into()))?;
        }
        if layer.len() == 1 {
            return Ok(root(&shape, kind, &all, &layer[0]));
        }
        asked = layer.chunks(shape.arity as usize).map(|chunk| (Kind::Reduce, chunk.to_vec())).collect();
        level += 1;
    }
}

fn write_part(kind: Kind, content: &[Vec<u8>], dir: &Path) -> Result<Part, Failure> {
    let mut hasher = blake3::Hasher::new_derive_key("assay-agent 1 cheap part");
    hasher.update(kind.to_string().as_bytes());
    for bytes in content {
        hasher.update(blake3::hash(bytes).as_bytes());
    }
    let key = *hasher.finalize().as_bytes();
    let write = |(number, bytes): (usize, &Vec<u8>)| {
        let path = dir.join(format!("part-{}-{number}", hex::encode(&key[..8])));
        std::fs::write(&path, bytes).map_err(local).map(|()| path)
    };
    let files = content.iter().enumerate().map(write).collect::<Result<Vec<_>, _>>()?;
    Ok(Part { kind, key: Hash(key), files, units: 1 })
}

fn read_all(files: &[PathBuf]) -> Result<Vec<Vec<u8>>, Failure> {
    files.iter().map(|path| std::fs::read(path).map_err(local)).collect()
}

fn local(error: std::io::Error) -> Failure {
    Failure::Transient(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape { runs: 2, shards: 5, fold_shards: 1, arity: 2, bytes: 64, seed: 1 };

    #[test]
    fn every_input_bit_and_every_kind_changes_the_result() {
        let payload = SHAPE.payload();
        let witnesses = results(Kind::Execute, std::slice::from_ref(&payload)).unwrap();
        assert_eq!(witnesses.len(), 2);
        assert_ne!(witnesses[0], witnesses[1]);
        let block = |witness: &[u8]| results(Kind::Block, &[witness.to_vec()]).unwrap();
        let mut other = witnesses[0].clone();
        *other.last_mut().unwrap() ^= 1;
        assert_ne!(block(&witnesses[0]), block(&other));
        let wrap = results(Kind::Wrap, std::slice::from_ref(&payload)).unwrap();
        assert_ne!(wrap, results(Kind::Groth16, std::slice::from_ref(&payload)).unwrap());
        assert_ne!(prove(&payload, None).unwrap(), prove(&payload, Some(&wrap[0])).unwrap());
    }

    #[test]
    fn payloads_without_a_sound_shape_are_refused_for_good() {
        let mut zero = SHAPE;
        zero.runs = 0;
        let mut huge = SHAPE;
        huge.bytes = u32::MAX;
        let line = |shape: &Shape| [serde_json::to_vec(shape).unwrap(), b"\n".to_vec()].concat();
        for payload in [vec![], b"{}\n".to_vec(), vec![0; 1000], line(&zero), line(&huge)] {
            assert!(matches!(results(Kind::Execute, &[payload]), Err(Failure::Permanent(_))));
        }
        assert!(matches!(results(Kind::Shard, &[]), Err(Failure::Permanent(_))));
    }

    #[test]
    fn faults_are_drawn_as_often_as_asked_and_the_same_each_time() {
        let faults = Faults {
            seed: 7,
            fail_permille: 100,
            hang_permille: 50,
            wrong_permille: 20,
            slow_permille: 10,
            slow_ms: 1,
            memory_permille: 5,
        };
        let count = |fault| (0..20_000).filter(|attempt| faults.draw(*attempt) == Some(fault)).count();
        for (fault, permille) in
            [(Fault::Fail, 100), (Fault::Hang, 50), (Fault::Wrong, 20), (Fault::Slow, 10), (Fault::Memory, 5)]
        {
            let (count, expected) = (count(fault), permille * 20);
            assert!(
                count * 3 > expected * 2 && count * 2 < expected * 3,
                "{fault:?}: {count} for {expected}"
            );
        }
        assert_eq!(Faults::default().draw(3), None);
        assert_eq!(faults.draw(11), faults.draw(11));
    }
}
