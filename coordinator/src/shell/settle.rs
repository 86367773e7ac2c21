//! Verification and settlement.

use serde_json::json;

use super::{Fault, Shell};
use crate::cache::Entry;
use crate::pipeline::Stage;
use crate::proved::Proved;
use crate::settle::{ClaimRequest, Venue};
use crate::statement::Settlement;
use crate::verify::{self, Files};

impl Shell<'_> {
    /// Checks the proof exactly as `assay verify` will, before anything is written or settled.
    pub(super) fn verify(&mut self) -> Result<Entry, Fault> {
        let proved = self.proved()?;
        let files = self.files(&proved, None)?;
        let accepted = verify::verify_files(&files, None)?;
        let outcome =
            json!({ "checks": accepted.checks, "verifying_key_blake3": accepted.verifying_key_blake3 });
        Ok(Entry { stage: "verify".into(), outcome, blobs: Default::default(), millis: 0, peak_bytes: 0 })
    }

    /// Posts the claim. The trunk is its own record: settling the same claim twice gives the same receipt.
    pub(super) fn settle(&mut self) -> Result<Entry, Fault> {
        let proved = self.proved()?;
        let history =
            self.request.history.as_ref().ok_or_else(|| Fault::Failed("no history to settle".into()))?;
        let request = ClaimRequest {
            proved: &proved,
            genesis: Some(history.genesis_commitment),
            data: &self.request.job.data,
        };
        let view = &self.view;
        let settled = Venue::of_one_machine(self.config)?.settle(&request, &mut |text| view.note(text))?;
        let outcome = serde_json::to_value(settled.settlement)?;
        Ok(Entry { stage: "settle".into(), outcome, blobs: Default::default(), millis: 0, peak_bytes: 0 })
    }

    /// Reads the Groth16 result back from the cache.
    pub(super) fn proved(&self) -> Result<Proved, Fault> {
        let read =
            |name| -> Result<Vec<u8>, Fault> { Ok(std::fs::read(self.input(Stage::Groth16, name)?.path)?) };
        let insecure = self.result(Stage::Groth16)?.outcome["insecure"].as_bool().unwrap_or(true);
        Ok(Proved::new(&read("proof")?, &read("vk")?, self.public_values()?, insecure)?)
    }

    /// Renders the files of the result folder.
    pub(super) fn files(&self, proved: &Proved, settlement: Option<Settlement>) -> Result<Files, Fault> {
        Ok(proved.files(self.summary(), settlement)?)
    }
}
