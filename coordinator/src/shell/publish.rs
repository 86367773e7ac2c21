//! Writes the result folder: whole, and only after everything in it has been verified.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::{json, Value};

use super::{Fault, Finished, Shell};
use crate::cache::Entry;
use crate::fsio::{self, io_error, FileError};
use crate::input::elf_hashes;
use crate::l1_batches::hand_over;
use crate::machine::Machine;
use crate::pipeline::{Origin, Stage, Until};
use crate::report::{Report, StageReport, Versions, ZKVM_VERSION};
use crate::statement::{self, json_text, BatchSummary, Settlement};
use crate::verify;

impl Shell<'_> {
    /// Verifies what is to be written once more, with the settlement in it, and writes it.
    pub(super) fn publish(&mut self) -> Result<(Entry, Finished), Fault> {
        let mut files: Vec<(&'static str, Vec<u8>)> = Vec::new();
        let mut statement = None;
        let mut insecure = None;
        if self.request.until >= Until::Groth16 {
            let settlement = match self.result(Stage::Settle) {
                Ok(entry) => Some(serde_json::from_value::<Settlement>(entry.outcome.clone())?),
                Err(_) => None,
            };
            let proved = self.proved()?;
            let rendered = self.files(&proved, settlement)?;
            verify::verify_files(&rendered, None)?;
            if let Some(folder) = &self.config.l1_batches {
                hand_over(folder, &proved, &self.request.job.data)?;
            }
            files.extend(rendered.named().map(|(name, bytes)| (name, bytes.to_vec())));
            statement = Some(proved.statement);
            insecure = proved.insecure.then(|| statement::INSECURE_NOTE.to_owned());
        } else if self.request.until >= Until::Fold {
            statement = Some(statement::Statement::new(&self.public_values()?));
        }
        let report = self.report(statement, insecure);
        let report_text = json_text(&report).into_bytes();
        let folder = verify::result_folder(&self.config.out, &self.request.job.summary.id);
        if files.is_empty() && folder.join("proof.bin").exists() {
            // A shorter run over a finished result: the result stays.
            fsio::write_atomic(&folder.join(PARTIAL_REPORT), &report_text)?;
        } else {
            files.push((REPORT, report_text));
            replace_folder(&folder, &files)?;
        }
        let outcome = json!({ "folder": folder });
        let entry =
            Entry { stage: "publish".into(), outcome, blobs: Default::default(), millis: 0, peak_bytes: 0 };
        Ok((entry, Finished { folder, report }))
    }

    /// The batch with the genesis of its history.
    pub(super) fn summary(&self) -> BatchSummary {
        let mut summary = self.request.job.summary.clone();
        summary.genesis_commitment =
            self.request.history.as_ref().map(|history| hex::encode(history.genesis_commitment));
        summary
    }

    fn report(&self, statement: Option<statement::Statement>, insecure: Option<String>) -> Report {
        let mut stages: Vec<_> = self.results.iter().map(|(stage, entry)| (*stage, entry)).collect();
        let order = self.request_plan();
        stages.sort_by_key(|(stage, _)| order.iter().position(|s| s == stage));
        let stages: Vec<_> =
            stages.into_iter().map(|(stage, entry)| self.stage_report(stage, entry)).collect();
        let outcome = |stage, field: &str| {
            self.result(stage).ok().and_then(|entry| entry.outcome.get(field).and_then(Value::as_u64))
        };
        let (block, fold) = elf_hashes();
        Report {
            version: 1,
            batch: self.summary(),
            until: self.request.until,
            insecure,
            statement,
            wall_seconds: seconds(self.started.elapsed()),
            compute_seconds: stages.iter().map(|stage| stage.seconds).sum(),
            peak_memory_bytes: stages.iter().map(|stage| stage.peak_memory_bytes).max().unwrap_or(0),
            cycles: outcome(Stage::Execute, "cycles").unwrap_or(0),
            constraints: outcome(Stage::Groth16, "constraints"),
            stages,
            enforcement: assay_l1::enforcement_summary().to_owned(),
            machine: Machine::here(),
            versions: Versions {
                assay: env!("CARGO_PKG_VERSION").to_owned(),
                zkvm: ZKVM_VERSION.to_owned(),
                block_elf_sha256: hex::encode(block),
                fold_elf_sha256: hex::encode(fold),
            },
        }
    }

    fn stage_report(&self, stage: Stage, entry: &Entry) -> StageReport {
        let origin = self.origins.iter().find(|(s, _)| *s == stage).map_or(Origin::Computed, |(_, o)| *o);
        StageReport {
            stage: stage.to_string(),
            seconds: seconds(Duration::from_millis(entry.millis)),
            origin,
            peak_memory_bytes: entry.peak_bytes,
            details: without_files(&entry.outcome),
        }
    }
}

fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1000.0).round() / 1000.0
}

/// An outcome without references to files of this machine's cache.
fn without_files(outcome: &Value) -> Value {
    match outcome {
        Value::Object(fields) => fields
            .iter()
            .filter(|(_, value)| value.get("path").is_none())
            .map(|(name, value)| (name.clone(), without_files(value)))
            .collect(),
        Value::Array(items) => items.iter().map(without_files).collect(),
        other => other.clone(),
    }
}

const REPORT: &str = "report.json";
/// The report of a shorter run over a finished result.
const PARTIAL_REPORT: &str = "report-partial.json";

/// Moves what is not ours from a replaced result folder to the new one, and removes the rest.
fn retire(old: &Path, folder: &Path) -> Result<(), FileError> {
    for entry in fs::read_dir(old).map_err(io_error("read", old))? {
        let name = entry.map_err(io_error("read", old))?.file_name();
        let ours = verify::FILES.iter().chain([&REPORT, &PARTIAL_REPORT]).any(|file| name == **file);
        let target = folder.join(&name);
        if !ours && !target.exists() {
            fs::rename(old.join(&name), &target).map_err(io_error("move", &target))?;
        }
    }
    fsio::remove_if_present(old)
}

/// Writes a folder beside its place and moves it there, so that a reader sees the old one, none, or the whole new one.
/// Files of others in the old folder are kept.
fn replace_folder(folder: &Path, files: &[(&str, Vec<u8>)]) -> Result<(), FileError> {
    let parent = folder.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(io_error("create", parent))?;
    let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let beside = |prefix: &str| parent.join(format!(".{prefix}-{name}"));
    let (partial, old) = (beside("partial"), beside("old"));
    fsio::remove_if_present(&partial)?;
    // Left by a run that was killed between the moves below.
    match (old.exists(), folder.exists()) {
        (true, true) => retire(&old, folder)?,
        (true, false) => fs::rename(&old, folder).map_err(io_error("move", &old))?,
        _ => {}
    }
    if folder.exists() && !folder.is_dir() {
        return Err(io_error("replace", folder)(std::io::ErrorKind::NotADirectory.into()));
    }
    for (name, bytes) in files {
        fsio::write_atomic(&partial.join(name), bytes)?;
    }
    if folder.exists() {
        fs::rename(folder, &old).map_err(io_error("move", folder))?;
    }
    fs::rename(&partial, folder).map_err(io_error("move", &partial))?;
    fsio::sync_folder(parent)?;
    if old.exists() {
        retire(&old, folder)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_folder_is_replaced_as_a_whole() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("out/1-2-ab");
        replace_folder(&folder, &[(REPORT, b"1".to_vec()), ("proof.bin", b"2".to_vec())]).unwrap();
        fs::write(folder.join("notes.txt"), b"of somebody else").unwrap();
        fs::write(folder.join(PARTIAL_REPORT), b"of a run before").unwrap();
        replace_folder(&folder, &[(REPORT, b"3".to_vec())]).unwrap();
        assert_eq!(fs::read(folder.join(REPORT)).unwrap(), b"3");
        assert_eq!(fs::read(folder.join("notes.txt")).unwrap(), b"of somebody else");
        assert!(!folder.join("proof.bin").exists() && !folder.join(PARTIAL_REPORT).exists());
        assert_eq!(fs::read_dir(folder.parent().unwrap()).unwrap().count(), 1);
        // Killed after the first move: the old folder is put back, then replaced.
        fs::rename(&folder, folder.with_file_name(".old-1-2-ab")).unwrap();
        replace_folder(&folder, &[(REPORT, b"4".to_vec())]).unwrap();
        assert_eq!(fs::read(folder.join("notes.txt")).unwrap(), b"of somebody else");
        // A file in the folder's place is not ours to delete.
        let file = dir.path().join("out/file");
        fs::write(&file, b"x").unwrap();
        replace_folder(&file, &[(REPORT, b"5".to_vec())]).unwrap_err();
        assert_eq!(fs::read(&file).unwrap(), b"x");
    }

    #[test]
    fn reports_name_no_files_of_the_cache() {
        let outcome = json!({"cycles": 1, "proof": {"path": "/x", "bytes": 2}, "runs": [{"run": {"path": "/y"}, "n": 3}]});
        assert_eq!(without_files(&outcome), json!({"cycles": 1, "runs": [{"n": 3}]}));
    }
}
