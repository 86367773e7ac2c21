//! A live view of a trunk: read-only, from a node and the epochs' files; nothing on disk.

mod snapshot;
mod text;

use std::io::{IsTerminal, Write};
use std::str::FromStr;
use std::sync::Arc;

use assay_l1::{BackendError, BitcoinBackend, Class};
use bitcoin::address::NetworkUnchecked;
use bitcoin::Address;
use clap::Args;

pub(super) use self::text::stage as stage_text;

pub use self::snapshot::{ClaimState, EpochState, Snapshot, Stage, Wait, WalletState};
use super::args::TrunkArgs;
use super::epochs::EpochDir;
use super::error::ServiceError;
use super::reading::{Moved, Reading};
use super::runner::{Trunk, REWIND_BLOCKS};
use super::stop::Stop;
use crate::view::View;

/// Clears a terminal and goes to its first line.
const CLEAR: &str = "\x1b[2J\x1b[H";

/// `assay l1 watch`: a trunk's epochs and claims, live.
#[derive(Debug, Clone, Args)]
pub struct WatchArgs {
    #[command(flatten)]
    #[allow(missing_docs, reason = "documented by its type")]
    pub trunk: TrunkArgs,
    /// A wallet whose coins are shown, with a name: fees=bcrt1p...; any number
    #[arg(long, value_name = "NAME=ADDRESS")]
    pub wallet: Vec<WalletName>,
    /// Print once how things stand, and end
    #[arg(long)]
    pub once: bool,
    /// Print JSON, one line for each change
    #[arg(long)]
    pub json: bool,
}

/// A wallet by its name and address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalletName {
    /// What it is called.
    pub name: String,
    /// Where its coins lie; of whatever network.
    pub address: Address<NetworkUnchecked>,
}

impl FromStr for WalletName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, address) = text.split_once('=').ok_or("expected NAME=ADDRESS")?;
        let address = address.parse::<Address<NetworkUnchecked>>().map_err(|error| error.to_string())?;
        Ok(Self { name: name.to_owned(), address })
    }
}

/// Watches until `stop`, or once.
///
/// # Errors
/// What is wrong with arguments and files; the node's, if it does not answer at the start or with `--once`.
pub fn run(args: &WatchArgs, out: &mut dyn Write, stop: &Stop) -> Result<(), ServiceError> {
    let mut watch = Watch::open(args, args.trunk.node.open()?)?;
    let is_page = !args.json && (args.once || std::io::stdout().is_terminal());
    let mut shown: Option<Snapshot> = None;
    while !stop.is_stopped() {
        let passed = watch.pass(stop);
        match passed {
            Err(error) if !args.once && is_passing(&error) => tracing::warn!("{error}; trying again"),
            other => other?,
        }
        if stop.is_stopped() {
            break;
        }
        let now = watch.snapshot();
        if shown.as_ref() != Some(&now) {
            let text = if args.json {
                serde_json::to_string(&now).map(|line| line + "\n").map_err(std::io::Error::from)?
            } else if is_page {
                let clear = if args.once { "" } else { CLEAR };
                format!("{clear}{}", text::page(&now))
            } else {
                text::changes(shown.as_ref(), &now)
            };
            match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
                // Nobody reads on.
                Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(()),
                other => other?,
            }
            shown = Some(now);
        }
        if args.once {
            return Ok(());
        }
        stop.sleep(args.trunk.poll());
    }
    Ok(())
}

/// True for what goes away by itself: a node that does not answer, a reorganisation between two questions.
fn is_passing(error: &ServiceError) -> bool {
    error.class() == Class::Transient || matches!(error, ServiceError::Backend(BackendError::NotFound { .. }))
}

/// What is known of a trunk, for callers with a loop of their own.
pub struct Watch {
    epochs: EpochDir,
    reading: Reading,
    wallets: Vec<(String, View)>,
    complaints: Vec<String>,
}

impl Watch {
    /// Stands before the first block.
    ///
    /// # Errors
    /// What is wrong with arguments and files; the node's.
    pub fn open(args: &WatchArgs, backend: Arc<dyn BitcoinBackend>) -> Result<Self, ServiceError> {
        let Trunk { epochs, contract, .. } = Trunk::load(args.trunk.epoch_dir()?)?;
        let network = backend.network();
        let reading = Reading::open(backend, contract, (args.trunk.start_height, args.trunk.finality))?;
        let mut wallets = Vec::new();
        for WalletName { name, address } in &args.wallet {
            let address = address.clone().require_network(network);
            let address = address.map_err(|error| ServiceError::Argument {
                name: "--wallet",
                detail: format!("{name}: {error}"),
            })?;
            wallets.push((name.clone(), reading.wallet(address.script_pubkey())));
        }
        Ok(Self { epochs, reading, wallets, complaints: Vec::new() })
    }

    /// Takes up new epochs and blocks.
    ///
    /// # Errors
    /// The node's.
    pub fn pass(&mut self, stop: &Stop) -> Result<(), ServiceError> {
        self.learn();
        while !stop.is_stopped() {
            let Some(moved) = self.reading.next()? else { break };
            self.count(&moved);
        }
        Ok(())
    }

    /// How things stand.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let wallets = self.wallets.iter().map(|(name, view)| (name.as_str(), view));
        let mut now = Snapshot::new(&self.reading.contract, self.reading.view(), wallets);
        now.alarms.extend(self.complaints.iter().cloned());
        now
    }

    /// Takes the reading's step with the wallets.
    fn count(&mut self, moved: &Moved) {
        for (_, view) in &mut self.wallets {
            match moved {
                Moved::Up(block) => view.connect(&self.reading.contract, block),
                Moved::Down(height) => view.disconnect(*height),
                Moved::Over => *view = self.reading.wallet(view.wallet().clone()),
            }
        }
    }

    /// Takes up epochs whose files have come since, and reads the last blocks again for them.
    fn learn(&mut self) {
        let taken = self.epochs.take_up(&mut self.reading.contract);
        self.complaints = match &taken {
            Ok(_) => self.epochs.complaints(),
            Err(error) => vec![error.to_string()],
        };
        if taken.is_ok_and(|taken| !taken.is_empty()) {
            for _ in 0..REWIND_BLOCKS {
                let Some(height) = self.reading.back() else { break };
                self.count(&Moved::Down(height));
            }
        }
    }
}
