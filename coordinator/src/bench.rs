//! What `assay bench` measures: the parts of a batch's way, one after the other, and what the GPU did meanwhile.
//!
//! [`crate::shell::bench`] runs them; here is what they give, and how it is shown.

use assay_worker::stages::{CheckOutcome, ReferenceOutcome};
use serde::{Deserialize, Serialize};

use crate::machine::Machine;
use crate::progress::bytes_text;
use crate::statement::BatchSummary;

mod gpu;

pub use gpu::{visible_gpus, GpuUse, Sampler};

/// Version of [`Figures`] as JSON. 2: checks, the zkVM's own prover, batches in flight.
pub const VERSION: u32 = 2;
/// What stands where there is no figure.
const NOT_MEASURED: &str = "not measured";

/// All that was measured on one machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Figures {
    /// Version of this format.
    pub version: u32,
    /// Seconds since 1970 when it was begun.
    pub unix_seconds: u64,
    /// Version of this program and of the zkVM.
    pub versions: [String; 2],
    /// Whether this build can use GPUs.
    pub cuda: bool,
    /// The machine.
    pub machine: Machine,
    /// GPUs that could be used, by name.
    pub gpus: Vec<String>,
    /// What was tried first: small proofs, verified.
    pub check: CheckOutcome,
    /// A line for each batch.
    pub batches: Vec<BatchFigures>,
    /// Several batches at the same time; empty if that was not measured.
    pub in_flight: Vec<InFlight>,
}

/// Batches of the sample rollup that a coordinator with an embedded queue had proved, always as many at the same time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InFlight {
    /// Batches in flight at the same time.
    pub at_once: u32,
    /// Batches proved while as many were in flight: submission to verified Groth16 proof.
    pub proved: u32,
    /// Time in which as many were in flight, from the first submission on.
    pub seconds: f64,
    /// What the GPUs did in that time; absent without GPU.
    pub gpu: Option<GpuUse>,
}

/// One batch. Seconds are wall-clock and leave out the start of the prover's process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchFigures {
    /// The batch.
    pub batch: BatchSummary,
    /// Guest cycles of its block programs.
    pub cycles: u64,
    /// Shards of their proofs.
    pub shards: u32,
    /// Start of the prover: recursion programs compiled, keys ready.
    pub start_seconds: f64,
    /// All shards of all runs, without recursion.
    pub core_seconds: f64,
    /// All runs to one recursion proof each, from the beginning.
    pub compressed_seconds: f64,
    /// The fold proof; absent if the batch is not linked to a history.
    pub fold_seconds: Option<f64>,
    /// Shrink and wrap of the fold proof.
    pub wrap_seconds: Option<f64>,
    /// The Groth16 proof, verified.
    pub groth16_seconds: Option<f64>,
    /// Highest resident memory of a prover, in bytes.
    pub peak_memory_bytes: u64,
    /// What the GPU did from the first to the last proof; absent without GPU or `nvidia-smi`.
    pub gpu: Option<GpuUse>,
    /// The zkVM's own prover on the same runs in the same run of the program; absent where it was not run.
    pub reference: Option<ReferenceOutcome>,
}

impl BatchFigures {
    /// Guest cycles per second of proving shards, in millions.
    pub fn core_mhz(&self) -> f64 {
        self.cycles as f64 / self.core_seconds.max(1e-3) / 1e6
    }

    /// How much longer than the zkVM's own prover all runs took to one recursion proof each, in percent; negative: shorter.
    pub fn compressed_excess_percent(&self) -> Option<f64> {
        let theirs = self.reference?.compressed_ms.max(1) as f64 / 1e3;
        Some((self.compressed_seconds / theirs - 1.0) * 100.0)
    }

    /// Seconds from the first run to the Groth16 proof; absent if it was not made.
    pub fn batch_seconds(&self) -> Option<f64> {
        Some(self.compressed_seconds + self.fold_seconds? + self.wrap_seconds? + self.groth16_seconds?)
    }
}

impl Figures {
    /// A table that `bench/RESULTS.md` can take as it is.
    pub fn markdown(&self) -> String {
        let Machine { cpu, cores, memory_bytes, os, .. } = &self.machine;
        let gpus = match (self.gpus.as_slice(), self.cuda) {
            (_, false) => "this build has no CUDA".to_owned(),
            ([], true) => "no GPU".to_owned(),
            (gpus, true) => gpus.join(", "),
        };
        let mut text = format!(
            "{cpu}, {cores} cores, {}, {os}; {gpus}; assay {}, {}\n\n",
            bytes_text(*memory_bytes),
            self.versions[0],
            self.versions[1]
        );
        let CheckOutcome { zkvm_device, cycles, groth16_device, constraints, .. } = &self.check;
        text += &format!(
            "Checked first: a proof of {cycles} cycles on {zkvm_device} and a Groth16 proof of {constraints} constraints on \
             {groth16_device}, both verified.\n\n"
        );
        text += "| | ";
        text += &self.batches.iter().map(|one| one.batch.id.clone()).collect::<Vec<_>>().join(" | ");
        text += " |\n|---|";
        text += &"---:|".repeat(self.batches.len());
        text += "\n";
        for (name, value) in ROWS {
            let values: Vec<_> = self.batches.iter().map(value).collect();
            text += &format!("| {name} | {} |\n", values.join(" | "));
        }
        text + "\n" + &self.in_flight_markdown()
    }

    fn in_flight_markdown(&self) -> String {
        if self.in_flight.is_empty() {
            return format!("Two batches in flight: {NOT_MEASURED}\n");
        }
        let mut text =
            "| batches in flight | proved | a batch, s | GPU: idle, memory | GPU: energy, kJ |\n".to_owned();
        text += "|---:|---:|---:|---:|---:|\n";
        for InFlight { at_once, proved, seconds, gpu } in &self.in_flight {
            let each = seconds / f64::from((*proved).max(1));
            let (idle, energy) = (cell(gpu.as_ref(), idle), cell(gpu.as_ref(), energy));
            text += &format!("| {at_once} | {proved} | {each:.1} | {idle} | {energy} |\n");
        }
        text
    }
}

const ROWS: [Row; 16] = [
    ("guest cycles", |b| b.cycles.to_string()),
    ("shards", |b| b.shards.to_string()),
    ("core proving, MHz", |b| format!("{:.4}", b.core_mhz())),
    ("start of the prover, s", |b| number(Some(b.start_seconds))),
    ("core, s", |b| number(Some(b.core_seconds))),
    ("compressed, s", |b| number(Some(b.compressed_seconds))),
    ("SP1's own prover: core, s", |b| number(b.reference.map(|theirs| theirs.core_ms as f64 / 1e3))),
    ("SP1's own prover: compressed, s", |b| {
        number(b.reference.map(|theirs| theirs.compressed_ms as f64 / 1e3))
    }),
    ("ours against it, compressed", |b| {
        b.compressed_excess_percent().map_or(NOT_MEASURED.to_owned(), |percent| format!("{percent:+.1} %"))
    }),
    ("fold, s", |b| number(b.fold_seconds)),
    ("shrink and wrap, s", |b| number(b.wrap_seconds)),
    ("Groth16, s", |b| number(b.groth16_seconds)),
    ("whole batch, s", |b| number(b.batch_seconds())),
    ("peak memory", |b| bytes_text(b.peak_memory_bytes)),
    ("GPU: idle, memory", |b| cell(b.gpu.as_ref(), idle)),
    ("GPU: energy, kJ", |b| cell(b.gpu.as_ref(), energy)),
];

/// A row of the table: its name, and a batch's cell in it.
type Row = (&'static str, fn(&BatchFigures) -> String);

fn number(seconds: Option<f64>) -> String {
    seconds.map_or(NOT_MEASURED.to_owned(), |seconds| format!("{seconds:.1}"))
}

fn cell(gpu: Option<&GpuUse>, text: fn(&GpuUse) -> String) -> String {
    gpu.map_or(NOT_MEASURED.to_owned(), text)
}

fn idle(gpu: &GpuUse) -> String {
    format!("{:.0} %, {}", gpu.idle_percent(), bytes_text(gpu.memory_bytes))
}

fn energy(gpu: &GpuUse) -> String {
    gpu.energy_joules.map_or(NOT_MEASURED.to_owned(), |joules| format!("{:.1}", joules / 1e3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures() -> Figures {
        let batch = BatchSummary {
            id: "1-4-aa".to_owned(),
            chain_id: 1,
            first_block: 1,
            last_block: 4,
            transactions: 8,
            gas: 1,
            genesis_commitment: None,
        };
        let one = BatchFigures {
            batch,
            cycles: 3_000_000,
            shards: 4,
            start_seconds: 20.0,
            core_seconds: 1.5,
            compressed_seconds: 2.5,
            fold_seconds: Some(1.0),
            wrap_seconds: Some(2.0),
            groth16_seconds: None,
            peak_memory_bytes: 1 << 30,
            gpu: None,
            reference: None,
        };
        Figures {
            version: VERSION,
            unix_seconds: 0,
            versions: ["1".to_owned(), "sp1".to_owned()],
            cuda: false,
            machine: Machine::here(),
            gpus: Vec::new(),
            check: CheckOutcome {
                zkvm_device: "CPU".to_owned(),
                cycles: 20_000,
                groth16_device: "CPU".to_owned(),
                constraints: 4094,
                elapsed_ms: 1,
            },
            batches: vec![one],
            in_flight: Vec::new(),
        }
    }

    #[test]
    fn what_was_not_measured_is_not_made_up() {
        let mut figures = figures();
        let text = figures.markdown();
        for line in [
            "| core proving, MHz | 2.0000 |",
            "| Groth16, s | not measured |",
            "| whole batch, s | not measured |",
            "| SP1's own prover: compressed, s | not measured |",
            "| ours against it, compressed | not measured |",
            "| GPU: idle, memory | not measured |",
            "Two batches in flight: not measured",
            "Checked first: a proof of 20000 cycles on CPU and a Groth16 proof of 4094 constraints on CPU, both verified.",
            "this build has no CUDA",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        figures.batches[0].groth16_seconds = Some(0.5);
        assert!(figures.markdown().contains("| whole batch, s | 6.0 |"), "{}", figures.markdown());
    }

    #[test]
    fn what_was_measured_stands_in_the_tables() {
        let mut figures = figures();
        let gpu =
            GpuUse { busy_percent: 88.0, memory_bytes: 1 << 30, energy_joules: Some(1500.0), samples: 9 };
        figures.batches[0].reference =
            Some(ReferenceOutcome { start_ms: 1, core_ms: 1600, compressed_ms: 2000 });
        figures.in_flight = vec![
            InFlight { at_once: 1, proved: 1, seconds: 30.0, gpu: None },
            InFlight { at_once: 2, proved: 2, seconds: 42.0, gpu: Some(gpu) },
        ];
        let text = figures.markdown();
        for line in [
            "| SP1's own prover: core, s | 1.6 |",
            "| SP1's own prover: compressed, s | 2.0 |",
            "| ours against it, compressed | +25.0 % |",
            "| 1 | 1 | 30.0 | not measured | not measured |",
            &format!("| 2 | 2 | 21.0 | 12 %, {} | 1.5 |", bytes_text(1 << 30)),
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }

    #[test]
    fn figures_are_read_back_as_they_were_written() {
        let figures = figures();
        let text = serde_json::to_string(&figures).unwrap();
        assert_eq!(serde_json::from_str::<Figures>(&text).unwrap(), figures);
    }
}
