//! The commands that speak to a coordinator: `assay-client`, with batches opened and results verified around it.

use std::io::stdout;
use std::path::{Path, PathBuf};

use assay_agent::bundle::{Bundle, BundleError, Totals};
use assay_client::cli::{
    self as client, CancelArgs, Ended, FetchArgs, StatusArgs, SubmitArgs, WatchArgs, WorkersArgs, RECEIPTS,
};
use assay_schedule::BatchId;
use serde::Serialize;

use super::{print, verify};
use crate::error::Error;
use crate::fsio;
use crate::input;
use crate::statement::json_text;
use crate::verify::{verify_folder, Accepted, Pins};

/// Largest file of receipts.
const RECEIPTS_BYTES_MAX: u64 = 512 << 20;

/// What `assay fetch --json` prints.
#[derive(Debug, Serialize)]
struct Fetched {
    folder: PathBuf,
    #[serde(flatten)]
    accepted: Accepted,
    /// What the batch has cost, as its workers have signed it; absent if the coordinator has no receipts.
    cost: Option<Cost>,
}

/// The sums of a batch's receipts.
#[derive(Debug, Serialize)]
struct Cost {
    /// Attempts whose results counted, but whose receipts are not there.
    missing: usize,
    #[serde(flatten)]
    totals: Totals,
}

pub(super) fn submit(arguments: &SubmitArgs) -> Result<(), Error> {
    let name = &arguments.batch;
    let refused = |source| Error::Batch { name: name.clone(), source: Box::new(source) };
    let batch = input::open_batch(name)?;
    if !batch.is_linked() {
        return Err(Error::NotLinked { name: name.clone() });
    }
    // The coordinator does the same; here it costs no upload.
    batch.validate().map_err(refused)?;
    let bytes = batch.encode();
    match client::block_on(client::submit(arguments, bytes, &mut stdout()))? {
        Some(ended) => end(&ended),
        None => Ok(()),
    }
}

pub(super) fn status(arguments: &StatusArgs) -> Result<(), Error> {
    Ok(client::block_on(client::status(arguments, &mut stdout()))?)
}

pub(super) fn watch(arguments: &WatchArgs) -> Result<(), Error> {
    end(&client::block_on(client::watch(arguments, &mut stdout()))?)
}

pub(super) fn workers(arguments: &WorkersArgs) -> Result<(), Error> {
    Ok(client::block_on(client::workers(arguments, &mut stdout()))?)
}

pub(super) fn cancel(arguments: &CancelArgs) -> Result<(), Error> {
    Ok(client::block_on(client::cancel(arguments, &mut stdout()))?)
}

pub(super) fn fetch(arguments: &FetchArgs) -> Result<(), Error> {
    let pins = arguments.vk_hash.clone().zip(arguments.code_root.clone());
    let pins = pins.map(|(verifying_key_blake3, code_root)| Pins { verifying_key_blake3, code_root });
    let target = arguments.output.clone();
    let target = target.unwrap_or_else(|| PathBuf::from("out").join(format!("batch-{}", arguments.id)));
    let download = client::block_on(client::fetch(arguments, &target))?;
    // What does not verify is removed again.
    let accepted = verify_folder(download.path(), pins.as_ref())?;
    let cost = cost(download.path(), arguments.id)?;
    let fetched = Fetched { folder: download.keep()?, accepted, cost };
    print(if arguments.json { json_text(&fetched) } else { text(&fetched) }.trim_end())?;
    Ok(())
}

fn end(ended: &Ended) -> Result<(), Error> {
    if ended.is_settled() {
        return Ok(());
    }
    let reason = ended.failure.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    Err(Error::BatchEnded { phase: ended.phase.clone(), reason })
}

/// Checks the receipts of a downloaded result, and adds them up.
fn cost(folder: &Path, id: u64) -> Result<Option<Cost>, Error> {
    let path = folder.join(RECEIPTS);
    if !path.exists() {
        return Ok(None);
    }
    let bundle = Bundle::from_file(&fsio::read_limited(&path, RECEIPTS_BYTES_MAX)?)?;
    if bundle.batch != BatchId(id) {
        let reason = format!("they are of batch {}", bundle.batch);
        return Err(Error::Receipts(BundleError::Malformed { reason }));
    }
    Ok(Some(Cost { missing: bundle.missing.len(), totals: bundle.totals }))
}

fn text(fetched: &Fetched) -> String {
    let mut text = format!("{}\n{}", fetched.folder.display(), verify::text(&fetched.accepted));
    match &fetched.cost {
        None => text += "  no receipts: the coordinator has none of this batch\n",
        Some(Cost { missing, totals }) => {
            let seconds = |ms: u64| (ms + 500) / 1000;
            text += &format!(
                "  cost           {} attempts ({} after another, {} of a finished task, {} wasted), {} CPU seconds, {} GPU \
                 seconds, {} bytes read, {} bytes published\n",
                totals.all.attempts,
                totals.retries,
                totals.repeated,
                totals.wasted.attempts,
                seconds(totals.all.cpu_ms),
                seconds(totals.all.gpu_ms),
                totals.all.fetched_bytes,
                totals.all.published_bytes
            );
            if *missing > 0 {
                text += &format!("  {missing} receipts are missing: the cost is higher\n");
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_settled_batch_is_a_success() {
        assert!(end(&Ended { phase: "settled".into(), failure: None }).is_ok());
        let failed = end(&Ended { phase: "failed".into(), failure: Some("too late".into()) }).unwrap_err();
        assert_eq!((failed.to_string().as_str(), failed.exit_code()), ("batch failed: too late", 1));
        assert!(end(&Ended { phase: "cancelled".into(), failure: None }).is_err());
    }

    #[test]
    fn receipts_of_another_batch_are_refused_and_none_are_no_error() {
        let dir = tempfile::tempdir().unwrap();
        assert!(cost(dir.path(), 7).unwrap().is_none());
        let write = |text: &str| std::fs::write(dir.path().join(RECEIPTS), text).unwrap();
        write(r#"{"batch":7,"accepted":[3],"receipts":[]}"#);
        let found = cost(dir.path(), 7).unwrap().unwrap();
        assert_eq!((found.missing, found.totals.all.attempts), (1, 0));
        assert!(matches!(cost(dir.path(), 8), Err(Error::Receipts(_))));
        write("{}");
        assert!(matches!(cost(dir.path(), 7), Err(Error::Receipts(_))));
    }
}
