//! What `assay bench` measures: the parts of a batch's way, one after the other, and what the GPU did meanwhile.
//!
//! [`crate::shell::bench`] runs them; here is what they give, and how it is shown.

use serde::{Deserialize, Serialize};

use crate::machine::Machine;
use crate::progress::bytes_text;
use crate::statement::BatchSummary;

mod gpu;

pub use gpu::{GpuUse, Sampler};

/// Version of [`Figures`] as JSON.
pub const VERSION: u32 = 1;
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
    /// GPUs that the driver lists, by name.
    pub gpus: Vec<String>,
    /// A line for each batch.
    pub batches: Vec<BatchFigures>,
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
    /// What the GPUs did from the first to the last proof; absent without `nvidia-smi`.
    pub gpu: Option<GpuUse>,
}

impl BatchFigures {
    /// Guest cycles per second of proving shards, in millions.
    pub fn core_mhz(&self) -> f64 {
        self.cycles as f64 / self.core_seconds.max(1e-3) / 1e6
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
        text += "| | ";
        text += &self.batches.iter().map(|one| one.batch.id.clone()).collect::<Vec<_>>().join(" | ");
        text += " |\n|---|";
        text += &"---:|".repeat(self.batches.len());
        text += "\n";
        let rows: [Row; 13] = [
            ("guest cycles", |b| b.cycles.to_string()),
            ("shards", |b| b.shards.to_string()),
            ("core proving, MHz", |b| format!("{:.4}", b.core_mhz())),
            ("start of the prover, s", |b| number(Some(b.start_seconds))),
            ("core, s", |b| number(Some(b.core_seconds))),
            ("compressed, s", |b| number(Some(b.compressed_seconds))),
            ("fold, s", |b| number(b.fold_seconds)),
            ("shrink and wrap, s", |b| number(b.wrap_seconds)),
            ("Groth16, s", |b| number(b.groth16_seconds)),
            ("whole batch, s", |b| number(b.batch_seconds())),
            ("peak memory", |b| bytes_text(b.peak_memory_bytes)),
            ("GPU: busy, memory", |b| {
                gpu(b, |gpu| format!("{:.0} %, {}", gpu.busy_percent, bytes_text(gpu.memory_bytes)))
            }),
            ("GPU: energy, kJ", |b| {
                gpu(b, |gpu| gpu.energy_joules.map_or(NOT_MEASURED.into(), |j| format!("{:.1}", j / 1e3)))
            }),
        ];
        for (name, value) in rows {
            let values: Vec<_> = self.batches.iter().map(value).collect();
            text += &format!("| {name} | {} |\n", values.join(" | "));
        }
        text
    }
}

/// A row of the table: its name, and a batch's cell in it.
type Row = (&'static str, fn(&BatchFigures) -> String);

fn number(seconds: Option<f64>) -> String {
    seconds.map_or(NOT_MEASURED.to_owned(), |seconds| format!("{seconds:.1}"))
}

fn gpu(batch: &BatchFigures, text: impl FnOnce(&GpuUse) -> String) -> String {
    batch.gpu.as_ref().map_or(NOT_MEASURED.to_owned(), text)
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
        };
        Figures {
            version: VERSION,
            unix_seconds: 0,
            versions: ["1".to_owned(), "sp1".to_owned()],
            cuda: false,
            machine: Machine::here(),
            gpus: Vec::new(),
            batches: vec![one],
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
            "| GPU: busy, memory | not measured |",
            "this build has no CUDA",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        figures.batches[0].groth16_seconds = Some(0.5);
        assert!(figures.markdown().contains("| whole batch, s | 6.0 |"), "{}", figures.markdown());
    }

    #[test]
    fn figures_are_read_back_as_they_were_written() {
        let figures = figures();
        let text = serde_json::to_string(&figures).unwrap();
        assert_eq!(serde_json::from_str::<Figures>(&text).unwrap(), figures);
    }
}
