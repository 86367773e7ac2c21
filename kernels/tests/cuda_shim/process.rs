//! The shim as a process: compiled once a run of the tests, one process a device.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::rc::Rc;
use std::sync::OnceLock;

use assay_kernels::device::{Argument, Device, DeviceError, Launch};

/// `kernels/cuda`: tests run in their package's folder, and a path of build time may be one of another clone.
pub(crate) fn sources() -> PathBuf {
    PathBuf::from("cuda")
}

/// BLAKE3 over the names and contents of all files below `folders`, in order of the names.
pub(crate) fn hash_of(folders: &[PathBuf], suffixes: &[&str]) -> String {
    let mut files: Vec<PathBuf> = folders
        .iter()
        .flat_map(|folder| std::fs::read_dir(folder).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|path| suffixes.iter().any(|suffix| path.to_str().unwrap().ends_with(suffix)))
        .collect();
    files.sort();
    let mut hasher = blake3::Hasher::new();
    for file in files {
        hasher.update(file.file_name().unwrap().as_encoded_bytes());
        hasher.update(&[0]);
        hasher.update(&std::fs::read(&file).unwrap());
    }
    hasher.finalize().to_hex().to_string()
}

/// The compiled shim; `None` where there is no g++. A shim that does not compile is a failure.
fn binary() -> Option<&'static Path> {
    static BINARY: OnceLock<Option<PathBuf>> = OnceLock::new();
    BINARY.get_or_init(|| compiled("cuda-shim", "main.cpp", &[])).as_deref()
}

/// Compiles a source of the shim, unless that was done before, to a file named after `name` and the sources' hash.
pub(crate) fn compiled(name: &str, source: &str, options: &[&str]) -> Option<PathBuf> {
    Command::new("g++").arg("--version").output().ok().filter(|output| output.status.success())?;
    let sources = sources();
    let suffixes = [".cu", ".cuh", ".cpp", ".hpp", ".inc"];
    let hash = hash_of(&[sources.clone(), sources.join("shim")], &suffixes);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let binary = folder.join(format!("{name}-{}", &hash[..16]));
    if !binary.exists() {
        let fresh = folder.join(format!("{name}-{}.{}", &hash[..16], std::process::id()));
        let output = Command::new("g++")
            .args(["-std=c++17", "-O1", "-U_FORTIFY_SOURCE", "-Wall", "-Wextra", "-Werror"])
            .args(["-Wno-unknown-pragmas", "-DASSAY_SHIM"])
            .args(options)
            .arg("-o")
            .arg(&fresh)
            .arg(sources.join("shim").join(source))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        std::fs::rename(&fresh, &binary).unwrap();
    }
    Some(binary)
}

struct Pipes {
    child: Child,
    input: ChildStdin,
    output: ChildStdout,
}

impl Pipes {
    /// Sends a command and reads `answer` bytes; the error is what the shim said on stderr.
    fn ask(&mut self, parts: &[&[u8]], answer: usize) -> Result<Vec<u8>, DeviceError> {
        let mut bytes = vec![0; answer];
        let sent = parts.iter().try_for_each(|part| self.input.write_all(part));
        if sent.and_then(|()| self.input.flush()).and_then(|()| self.output.read_exact(&mut bytes)).is_ok() {
            return Ok(bytes);
        }
        let mut reason = String::new();
        match self.child.stderr.take() {
            Some(mut stderr) => drop(stderr.read_to_string(&mut reason).unwrap()),
            None => reason.push_str("the shim has ended"),
        }
        Err(DeviceError::Lost { reason })
    }
}

impl Drop for Pipes {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A process of the shim.
pub(crate) struct Shim(Rc<RefCell<Pipes>>);

/// Memory of the shim. A process that has ended has none to give back.
pub(crate) struct ShimBuffer {
    id: u32,
    shim: Rc<RefCell<Pipes>>,
}

impl Drop for ShimBuffer {
    fn drop(&mut self) {
        let mut pipes = self.shim.borrow_mut();
        let _ = pipes.input.write_all(&[5u32.to_le_bytes(), self.id.to_le_bytes()].concat());
    }
}

impl Shim {
    /// Starts a process whose order of blocks, warps and lanes follows from `seed`; `None`, with a message, without g++.
    pub(crate) fn start(seed: u64) -> Option<Self> {
        let Some(binary) = binary() else {
            eprintln!("SKIPPED: no g++ on this machine, so the CUDA shim cannot be compiled");
            return None;
        };
        let mut child = Command::new(binary)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut pipes = Pipes { child, input, output };
        pipes.ask(&[&6u32.to_le_bytes(), &seed.to_le_bytes()], 0).unwrap();
        Some(Self(Rc::new(RefCell::new(pipes))))
    }

    /// Uploads words.
    pub(crate) fn words(&self, words: &[u32]) -> ShimBuffer {
        self.upload(&words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>()).unwrap()
    }

    /// Writes over all of a buffer.
    pub(crate) fn overwrite(&self, buffer: &ShimBuffer, bytes: &[u8]) {
        self.write(buffer, 0, bytes).unwrap();
    }

    /// Ends the process, as a GPU that falls off the bus.
    pub(crate) fn kill(&self) {
        let mut pipes = self.0.borrow_mut();
        pipes.child.kill().unwrap();
        pipes.child.wait().unwrap();
    }

    /// Downloads the first `count` words.
    pub(crate) fn read_words(&self, buffer: &ShimBuffer, count: usize) -> Vec<u32> {
        let bytes = self.download(buffer, 0..4 * count).unwrap();
        bytes.chunks(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect()
    }
}

impl Device for Shim {
    type Buffer = ShimBuffer;

    fn alloc(&self, bytes: usize) -> Result<ShimBuffer, DeviceError> {
        let answer = self.0.borrow_mut().ask(&[&1u32.to_le_bytes(), &(bytes as u64).to_le_bytes()], 4)?;
        Ok(ShimBuffer { id: u32::from_le_bytes(answer.try_into().unwrap()), shim: Rc::clone(&self.0) })
    }

    fn write(&self, buffer: &ShimBuffer, at: usize, bytes: &[u8]) -> Result<(), DeviceError> {
        let (from, count) = (at as u64, bytes.len() as u64);
        let command: [&[u8]; 5] =
            [&2u32.to_le_bytes(), &buffer.id.to_le_bytes(), &from.to_le_bytes(), &count.to_le_bytes(), bytes];
        self.0.borrow_mut().ask(&command, 0).map(|_| ())
    }

    fn download(&self, buffer: &ShimBuffer, range: Range<usize>) -> Result<Vec<u8>, DeviceError> {
        let (from, bytes) = (range.start as u64, range.len() as u64);
        let command: [&[u8]; 4] =
            [&3u32.to_le_bytes(), &buffer.id.to_le_bytes(), &from.to_le_bytes(), &bytes.to_le_bytes()];
        self.0.borrow_mut().ask(&command, range.len())
    }

    fn memory_free(&self) -> Result<u64, DeviceError> {
        Ok(1 << 32)
    }

    fn launch(&self, launch: Launch, arguments: &[Argument<'_, ShimBuffer>]) -> Result<(), DeviceError> {
        let mut command = Vec::new();
        let mut word = |word: u32| command.extend_from_slice(&word.to_le_bytes());
        word(4);
        word(launch.kernel.len() as u32);
        command.extend_from_slice(launch.kernel.as_bytes());
        for word in [launch.grid, launch.block, launch.shared, arguments.len() as u32] {
            command.extend_from_slice(&word.to_le_bytes());
        }
        for argument in arguments {
            let (kind, value) = match argument {
                Argument::Buffer(buffer) => (1u32, buffer.id),
                Argument::Number(number) => (0, *number),
            };
            command.extend_from_slice(&kind.to_le_bytes());
            command.extend_from_slice(&u64::from(value).to_le_bytes());
        }
        self.0.borrow_mut().ask(&[&command], 4).map(|_| ())
    }
}

/// One dimension of `threads` threads in blocks of 64.
pub(crate) fn threads(kernel: &'static str, threads: usize) -> Launch {
    Launch { kernel, grid: threads.div_ceil(64) as u32, block: 64, shared: 0 }
}
