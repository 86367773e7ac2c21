//! Reads batches: decodes, executes and checks each submission on this host.

use assay_l1_parties::service::batches::DATA_BYTES_MAX;
use assay_lvm::vm::{Evm, VirtualMachine};
use assay_lvm::{Batch, RunLimits};
use assay_schedule::{ChainId, Limits};
use assay_service::work::{BatchFacts, BatchReader, BatchRefusal};

use crate::shell::one_line;

/// Batches of EVM blocks.
#[derive(Clone, Copy, Debug)]
pub struct EvmReader {
    version: u32,
    limits: RunLimits,
    runs_max: u32,
    data_bytes_max: usize,
}

impl EvmReader {
    /// A reader; `version` is that of the programs and keys that prove its batches, `limits` how they are cut into runs,
    /// `schedule` says how many runs a batch may have.
    pub fn new(version: u32, limits: RunLimits, schedule: &Limits) -> Self {
        Self { version, limits, runs_max: schedule.runs_max, data_bytes_max: DATA_BYTES_MAX }
    }
}

impl BatchReader for EvmReader {
    fn read(&self, bytes: &[u8]) -> Result<BatchFacts, BatchRefusal> {
        let refused = |error: assay_lvm::BatchError| BatchRefusal { reason: one_line(&error) };
        let batch = Batch::decode(bytes).map_err(refused)?;
        if !batch.is_linked() {
            let reason = "the batch assumes its parent's state instead of proving it from the parent's header, so it can \
                          neither be folded nor settled";
            return Err(BatchRefusal { reason: reason.into() });
        }
        let runs = batch.count_runs(self.limits).map_err(refused)?;
        if u32::try_from(runs).map_or(true, |runs| runs > self.runs_max) {
            let reason = format!(
                "the batch makes {runs} runs of at most {} gas, and {} are allowed: cut it into smaller batches",
                self.limits.gas_max, self.runs_max
            );
            return Err(BatchRefusal { reason });
        }
        let validated = Evm.validate(&batch).map_err(refused)?;
        if validated.data.len() > self.data_bytes_max {
            let reason = format!(
                "the batch has {} bytes of data, of which {} can be published on Bitcoin: cut it into smaller batches",
                validated.data.len(),
                self.data_bytes_max
            );
            return Err(BatchRefusal { reason });
        }
        Ok(BatchFacts {
            chain: ChainId(validated.from.chain_id),
            from: validated.from.commitment(),
            to: validated.to.commitment(),
            // An empty batch is work too.
            units: validated.work.max(1),
            version: self.version,
        })
    }
}

#[cfg(test)]
mod tests {
    use assay_lvm::sample;

    use super::*;

    fn reader(limits: &Limits) -> EvmReader {
        EvmReader::new(7, RunLimits::default(), limits)
    }

    #[test]
    fn the_facts_of_a_batch_are_those_that_its_proof_will_state() {
        let reader = reader(&Limits::default());
        let first = reader.read(&sample::batch(1).unwrap().encode()).unwrap();
        let second = reader.read(&sample::batch(2).unwrap().encode()).unwrap();
        assert_eq!(first.to, second.from);
        assert_eq!((first.chain, first.version, second.version), (second.chain, 7, 7));
        assert!(first.units > 1 && first.from != first.to);
    }

    #[test]
    fn a_batch_of_more_runs_than_a_worker_may_return_is_refused_here() {
        let limits = RunLimits { blocks_max: 1, ..RunLimits::default() };
        let batch = sample::batch(1).unwrap();
        let runs = u32::try_from(batch.split_runs(limits).unwrap().len()).unwrap();
        assert!(runs > 1);
        let read = |runs_max| {
            EvmReader::new(7, limits, &Limits { runs_max, ..Limits::default() }).read(&batch.encode())
        };
        read(runs).unwrap();
        assert!(read(runs - 1).unwrap_err().reason.contains("smaller batches"));
    }

    #[test]
    fn a_batch_whose_data_cannot_be_published_is_refused_here() {
        let bytes = sample::batch(1).unwrap().encode();
        let data_bytes = Evm.validate(&Batch::decode(&bytes).unwrap()).unwrap().data.len();
        let read = |data_bytes_max| EvmReader { data_bytes_max, ..reader(&Limits::default()) }.read(&bytes);
        read(data_bytes).unwrap();
        let refusal = read(data_bytes - 1).unwrap_err();
        assert!(refusal.reason.contains("smaller batches"), "{refusal}");
    }

    #[test]
    fn damaged_batches_are_refused_with_a_reason() {
        let reader = reader(&Limits::default());
        let good = sample::batch(1).unwrap().encode();
        let mut cases = vec![
            Vec::new(),
            b"junk".to_vec(),
            good[..good.len() - 1].to_vec(),
            [good.as_slice(), b"x"].concat(),
        ];
        for at in (0..good.len()).step_by(good.len() / 16) {
            let mut bytes = good.clone();
            bytes[at] ^= 0x20;
            cases.push(bytes);
        }
        for bytes in cases {
            let refusal = reader.read(&bytes).unwrap_err();
            assert!(!refusal.reason.is_empty() && !refusal.reason.contains('\n'));
        }
    }
}
