//! The arguments and their help.

use std::path::PathBuf;

use clap::Args;

use crate::client::Remote;
use crate::error::ClientError;

/// Largest file with a key, in bytes.
const KEY_FILE_BYTES_MAX: u64 = 4096;

/// Which coordinator, and who asks.
#[derive(Clone, Args)]
#[command(next_help_heading = "Coordinator")]
pub struct RemoteArgs {
    /// URL of the coordinator, or of the proxy in front of it
    #[arg(long, value_name = "URL", env = "ASSAY_URL", default_value = "http://127.0.0.1:8080")]
    pub url: String,
    /// API key; one on the command line shows in the process list
    #[arg(long, value_name = "KEY", env = "ASSAY_KEY", hide_env_values = true)]
    pub key: Option<String>,
    /// File with the API key, instead of --key
    #[arg(long, value_name = "FILE", env = "ASSAY_KEY_FILE")]
    pub key_file: Option<PathBuf>,
    /// PEM file with certificates to trust besides the usual ones
    #[arg(long, value_name = "FILE", env = "ASSAY_CA_FILE")]
    pub ca_file: Option<PathBuf>,
}

impl std::fmt::Debug for RemoteArgs {
    /// Without the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RemoteArgs")
            .field("url", &self.url)
            .field("key_file", &self.key_file)
            .finish_non_exhaustive()
    }
}

impl RemoteArgs {
    pub(super) fn remote(&self) -> Result<Remote, ClientError> {
        let key = match (&self.key, &self.key_file) {
            (Some(key), _) => key.clone(),
            (None, Some(path)) => key_of(path)?,
            (None, None) => String::new(),
        };
        Ok(Remote { url: self.url.clone(), key, ca_file: self.ca_file.clone() })
    }
}

fn key_of(path: &std::path::Path) -> Result<String, ClientError> {
    use std::io::Read;
    let mut text = String::new();
    let read =
        std::fs::File::open(path).and_then(|file| file.take(KEY_FILE_BYTES_MAX).read_to_string(&mut text));
    read.map_err(|source| ClientError::File { what: "read", path: path.to_owned(), source })?;
    Ok(text.trim().to_owned())
}

/// `assay submit`.
#[derive(Clone, Debug, Args)]
#[command(after_long_help = "\
The batch is checked here first, then by the coordinator, and stored before the answer comes. Submissions are idempotent: the
same batch under the same --idempotency-key (by default its hash) is one batch, however often it is submitted, so after any
error run the same command again. Batches of a rollup are submitted in order; each may be submitted while the one before it
is still being proved.

Examples:
  assay submit sample
  assay submit my.batch --idempotency-key 2026-11-21/7 --priority 200
  assay submit my.batch --deadline 15m --hard             worthless after 15 minutes: it fails as soon as that is certain
  assay submit my.batch --callback https://example.com/proved
  assay submit my.batch --watch && assay fetch 7

Exit codes: 0 taken (with --watch: settled), 1 it failed (--watch), 2 refused, 3 nobody answers or the service is full: try again.")]
pub struct SubmitArgs {
    /// A batch file, `sample`, or `sample:N`
    pub batch: String,
    /// Name of this submission, 1 to 256 visible ASCII characters [default: the batch file's hash]
    #[arg(long, value_name = "KEY")]
    pub idempotency_key: Option<String>,
    /// 0 to 255, higher goes first [default: 100]
    #[arg(long, value_name = "N")]
    pub priority: Option<u8>,
    /// When the proof is wanted: in 90s, 15m or 2h, or at milliseconds since the Unix epoch
    #[arg(long, value_name = "TIME")]
    pub deadline: Option<String>,
    /// The batch is worthless after --deadline: it fails as soon as it is certain to be late
    #[arg(long, requires = "deadline")]
    pub hard: bool,
    /// URL that gets a signed POST when the batch has ended
    #[arg(long, value_name = "URL")]
    pub callback: Option<String>,
    /// Follow the batch to its end, as `assay watch` does
    #[arg(long)]
    pub watch: bool,
    /// With --watch: how long to wait for a coordinator that does not answer, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    pub patience: u64,
    /// Print the answer as JSON
    #[arg(long)]
    pub json: bool,
    /// Which coordinator.
    #[command(flatten)]
    pub remote: RemoteArgs,
}

/// `assay status`.
#[derive(Clone, Debug, Args)]
#[command(after_long_help = "\
With an ID: phase, expected end, what is done, the reason why each waiting task waits, files of the result. Without: your
batches, newest first.

Examples:
  assay status
  assay status --phase proving --limit 10
  assay status 7
  assay status 7 --json | jq .eta_ms

Exit codes: 0 done, 2 no such batch or key, 3 nobody answers: try again.")]
pub struct StatusArgs {
    /// Number of the batch; all of them without
    pub id: Option<u64>,
    /// List at most so many, 1 to 200 [default: 50]
    #[arg(long, value_name = "N", conflicts_with = "id")]
    pub limit: Option<u32>,
    /// List only batches before this number
    #[arg(long, value_name = "ID", conflicts_with = "id")]
    pub before: Option<u64>,
    /// List only batches in this phase: proving, checking, proved, settling, refolding, settled, failed, cancelled
    #[arg(long, value_name = "PHASE", conflicts_with = "id")]
    pub phase: Option<String>,
    /// Print the coordinator's JSON
    #[arg(long)]
    pub json: bool,
    /// Which coordinator.
    #[command(flatten)]
    pub remote: RemoteArgs,
}

/// `assay watch`.
#[derive(Clone, Debug, Args)]
#[command(after_long_help = "\
Shows the batch live on a terminal; anywhere else one line for each event, and every 10 s at most one that says how far it
is. It ends with the batch. A coordinator that goes away is waited for, also when another one takes over: no event is lost
and none is shown twice.

Examples:
  assay watch 7
  assay watch 7 --json | jq -r 'select(.event == \"phase\").phase'
  assay watch 7 && assay fetch 7

Exit codes: 0 settled, 1 failed or cancelled, 2 no such batch or key, 3 the coordinator did not come back within --patience.")]
pub struct WatchArgs {
    /// Number of the batch
    pub id: u64,
    /// How long to wait for a coordinator that does not answer, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    pub patience: u64,
    /// Print each event as a line of JSON
    #[arg(long)]
    pub json: bool,
    /// Which coordinator.
    #[command(flatten)]
    pub remote: RemoteArgs,
}

/// `assay workers`.
#[derive(Clone, Debug, Args)]
#[command(after_long_help = "\
Who is here, on what devices, how fast, and who is quarantined because results of his did not verify. All tenants share the
workers. A worker joins by being started (`assay-worker --help`); there is nothing to be done here.

Examples:
  assay workers
  assay workers --json | jq '.workers[] | select(.present | not) | .name'

Exit codes: 0 done, 2 no such key, 3 nobody answers: try again.")]
pub struct WorkersArgs {
    /// Print the coordinator's JSON
    #[arg(long)]
    pub json: bool,
    /// Which coordinator.
    #[command(flatten)]
    pub remote: RemoteArgs,
}

/// `assay cancel`.
#[derive(Clone, Debug, Args)]
#[command(after_long_help = "\
Ends a batch: its tasks are stopped and its data deleted. Batches after it in the same rollup fail, because they build on it.
A batch that is being settled on Bitcoin, or has ended, cannot be cancelled.

Example:
  assay cancel 7

Exit codes: 0 cancelled, 2 it cannot be cancelled or is not there, 3 nobody answers: try again.")]
pub struct CancelArgs {
    /// Number of the batch
    pub id: u64,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Which coordinator.
    #[command(flatten)]
    pub remote: RemoteArgs,
}

/// `assay fetch`.
#[derive(Clone, Debug, Args)]
#[command(after_long_help = "\
Downloads the result of a settled batch: proof.json, vk.json, proof.bin, public.json, claim.json, report.json, and receipts.json
with the workers' signed receipts. Every file is checked against the hash that the coordinator names, the folder is verified
exactly as `assay verify` does, the receipts' signatures are checked and added up, and only then is the folder kept.

Which verifying key and which programs to trust is yours to say, here as there: pin both.

Examples:
  assay fetch 7
  assay fetch 7 --output proofs/7 --vk-hash 5f0c... --code-root 9a1b...
  assay watch 7 && assay fetch 7 --json > result.json

Exit codes: 0 verified and kept, 1 there is no result or it does not verify, 2 no such batch or key, 3 nobody answers: try again.")]
pub struct FetchArgs {
    /// Number of the batch
    pub id: u64,
    /// Folder for the result, which must not be there yet [default: out/batch-ID]
    #[arg(short, long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Accept this verifying key only (BLAKE3 of its compressed encoding, hex)
    #[arg(long, value_name = "HEX", requires = "code_root")]
    pub vk_hash: Option<String>,
    /// Accept this code root only (hex)
    #[arg(long, value_name = "HEX", requires = "vk_hash")]
    pub code_root: Option<String>,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
    /// Which coordinator.
    #[command(flatten)]
    pub remote: RemoteArgs,
}

/// A moment: from now on (`90s`, `15m`, `2h`), or milliseconds since the Unix epoch.
pub(super) fn deadline(text: &str, now_ms: u64) -> Result<u64, ClientError> {
    let wrong = || ClientError::Value {
        name: "--deadline",
        expected: "a time from now such as 90s, 15m or 2h, or milliseconds since the Unix epoch",
        got: text.to_owned(),
    };
    let Some(unit) = text.chars().last().filter(|last| !last.is_ascii_digit()) else {
        return text.parse().map_err(|_| wrong());
    };
    let unit_ms: u64 = match unit {
        's' => 1000,
        'm' => 60_000,
        'h' => 3_600_000,
        _ => return Err(wrong()),
    };
    let number: u64 = text.strip_suffix(unit).unwrap_or_default().parse().map_err(|_| wrong())?;
    number.checked_mul(unit_ms).and_then(|ms| ms.checked_add(now_ms)).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;

    #[derive(Parser)]
    enum All {
        Submit(SubmitArgs),
        Status(StatusArgs),
        Watch(WatchArgs),
        Workers(WorkersArgs),
        Cancel(CancelArgs),
        Fetch(FetchArgs),
    }

    #[test]
    fn the_arguments_are_consistent_and_every_help_teaches() {
        All::command().debug_assert();
        for command in All::command().get_subcommands() {
            let help = command.clone().render_long_help().to_string();
            for word in ["Example", "Exit codes", "ASSAY_URL", "ASSAY_KEY", "--key-file", "--json"] {
                assert!(help.contains(word), "{} does not say {word}", command.get_name());
            }
        }
    }

    #[test]
    fn contradictions_are_refused() {
        let parse = |line: &str| All::try_parse_from(line.split_whitespace());
        for bad in [
            "assay submit b --hard",
            "assay submit b --priority 256",
            "assay status 7 --limit 3",
            "assay fetch 7 --vk-hash 00",
            "assay watch seven",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        let Ok(All::Fetch(args)) = parse("assay fetch 7 --vk-hash 00 --code-root 11 --key k --url http://h")
        else {
            panic!("a good line is refused")
        };
        assert_eq!((args.id, args.remote.remote().unwrap().key.as_str()), (7, "k"));
    }

    #[test]
    fn the_key_of_a_file_has_no_line_end() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "assay_1\n").unwrap();
        let args = RemoteArgs {
            url: "http://h".into(),
            key: None,
            key_file: Some(file.path().to_owned()),
            ca_file: None,
        };
        assert_eq!(args.remote().unwrap().key, "assay_1");
        let missing = RemoteArgs { key_file: Some("no/such/file".into()), ..args };
        assert!(matches!(missing.remote(), Err(ClientError::File { .. })));
    }

    #[test]
    fn deadlines_are_moments_or_times_from_now() {
        for (text, expected) in
            [("90s", 91_000), ("2m", 121_000), ("1h", 3_601_000), ("12345", 12_345), ("0s", 1000)]
        {
            assert_eq!(deadline(text, 1000).unwrap(), expected, "{text}");
        }
        for text in ["", "s", "-1s", "1.5h", "1d", "tomorrow", "18446744073709551615h", "1 h", "ü"] {
            assert!(deadline(text, 1000).is_err(), "{text}");
        }
    }
}
