//! The commands that speak to a coordinator. The binary has them among its own; it opens batches and verifies results.

mod args;
mod text;
mod watch;

use std::future::Future;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;

pub use self::args::{CancelArgs, FetchArgs, RemoteArgs, StatusArgs, SubmitArgs, WatchArgs, WorkersArgs};
pub use self::watch::Ended;
use crate::client::{Client, Listing, Wishes};
use crate::download::Download;
use crate::error::ClientError;
use crate::wire;

/// Longest wait for the receipts of a batch that has just ended.
const RECEIPTS_TIME: Duration = Duration::from_secs(10);
/// Name of their file.
pub const RECEIPTS: &str = "receipts.json";

/// Runs a command's future on this thread.
///
/// # Errors
/// [`ClientError::Setup`] if the system gives no runtime; what the command says.
pub fn block_on<T, E: From<ClientError>>(work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| ClientError::Setup { reason: error.to_string() })?;
    runtime.block_on(work)
}

/// `assay submit`: submits `batch`, the bytes of a batch file. With `--watch` it says how the batch ended.
///
/// # Errors
/// [`ClientError`].
pub async fn submit(
    args: &SubmitArgs,
    batch: Vec<u8>,
    out: &mut (dyn Write + Send + '_),
) -> Result<Option<Ended>, ClientError> {
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let now_ms = u64::try_from(now_ms).unwrap_or(u64::MAX);
    let deadline_ms = args.deadline.as_deref().map(|text| args::deadline(text, now_ms)).transpose()?;
    let wishes = Wishes {
        key: args.idempotency_key.clone(),
        priority: args.priority,
        deadline_ms,
        is_hard: args.hard,
        callback: args.callback.clone(),
    };
    let client = args.remote.client()?;
    let answer = client.submit(batch, &wishes).await?;
    let id = answer.value.id;
    if args.json {
        // One document in all: the events of `--watch` follow as lines.
        let mut json = answer.json;
        if let Some(deadline_ms) = deadline_ms {
            json["deadline_ms"] = json!(deadline_ms);
        }
        say(out, &json.to_string())?;
    } else {
        say(out, &text::submitted(&answer.value, deadline_ms))?;
    }
    if !args.watch {
        return Ok(None);
    }
    watch::follow(&client, id, args.patience, args.json, out).await.map(Some)
}

/// `assay status`: one batch, or the newest ones.
///
/// # Errors
/// [`ClientError`].
pub async fn status(args: &StatusArgs, out: &mut (dyn Write + Send + '_)) -> Result<(), ClientError> {
    let client = args.remote.client()?;
    let (text, json) = match args.id {
        Some(id) => {
            let answer = client.batch(id).await?;
            (text::detail(&answer.value), answer.json)
        }
        None => {
            let listing = Listing { limit: args.limit, before: args.before, phase: args.phase.clone() };
            let answer = client.batches(&listing).await?;
            (text::list(&answer.value), answer.json)
        }
    };
    say(out, if args.json { pretty(&json) } else { text }.trim_end())
}

/// `assay watch`: follows a batch to its end.
///
/// # Errors
/// [`ClientError`].
pub async fn watch(args: &WatchArgs, out: &mut (dyn Write + Send + '_)) -> Result<Ended, ClientError> {
    watch::follow(&args.remote.client()?, args.id, args.patience, args.json, out).await
}

/// `assay workers`.
///
/// # Errors
/// [`ClientError`].
pub async fn workers(args: &WorkersArgs, out: &mut (dyn Write + Send + '_)) -> Result<(), ClientError> {
    let answer = args.remote.client()?.workers().await?;
    let text = if args.json { pretty(&answer.json) } else { text::workers(&answer.value) };
    say(out, text.trim_end())
}

/// `assay cancel`.
///
/// # Errors
/// [`ClientError`].
pub async fn cancel(args: &CancelArgs, out: &mut (dyn Write + Send + '_)) -> Result<(), ClientError> {
    let id = args.id;
    args.remote.client()?.cancel(id).await?;
    say(
        out,
        &if args.json {
            json!({ "id": id, "cancelled": true }).to_string()
        } else {
            format!("batch {id} is cancelled")
        },
    )
}

/// `assay fetch`: downloads a result beside `target`, for the caller to check and keep.
///
/// Receipts are made a file a moment after the batch has ended; they are waited for.
///
/// # Errors
/// [`ClientError`].
pub async fn fetch(args: &FetchArgs, target: &Path) -> Result<Download, ClientError> {
    let client = args.remote.client()?;
    let begun = tokio::time::Instant::now();
    loop {
        let detail = client.batch(args.id).await?.value;
        let has_receipts = detail.files.iter().any(|file| file.name == RECEIPTS);
        if detail.batch.phase != wire::SETTLED || has_receipts || begun.elapsed() >= RECEIPTS_TIME {
            return Download::fetch(&client, &detail, target).await;
        }
        tokio::time::sleep(RECEIPTS_TIME / 20).await;
    }
}

impl RemoteArgs {
    /// A client for this coordinator and key.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn client(&self) -> Result<Client, ClientError> {
        if crate::client::is_exposed(&self.url) {
            warn("warning: http:// to another machine: the API key travels in the clear; use https://, or a closed network");
        }
        Client::new(&self.remote()?)
    }
}

/// Writes a line to standard output; who closes it has seen enough, which is no error.
fn say(out: &mut (dyn Write + Send + '_), text: &str) -> Result<(), ClientError> {
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(ClientError::Output(error)),
        _ => Ok(()),
    }
}

/// Writes a line to standard error, if that can be written to.
fn warn(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn pretty(json: &serde_json::Value) -> String {
    format!("{json:#}")
}
