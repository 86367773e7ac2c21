//! `assay verify`.

use super::args::VerifyArgs;
use super::print;
use crate::error::Error;
use crate::statement::json_text;
use crate::verify::{verify_folder, Accepted, Pins};

pub(super) fn run(arguments: &VerifyArgs) -> Result<(), Error> {
    let pins = arguments.vk_hash.clone().zip(arguments.code_root.clone());
    let pins = pins.map(|(verifying_key_blake3, code_root)| Pins { verifying_key_blake3, code_root });
    let accepted = verify_folder(&arguments.folder, pins.as_ref())?;
    print(if arguments.json { json_text(&accepted) } else { text(&accepted) }.trim_end())?;
    Ok(())
}

pub(super) fn text(accepted: &Accepted) -> String {
    let statement = &accepted.statement;
    let checks: Vec<_> = accepted.checks.iter().map(ToString::to_string).collect();
    let mut text = format!(
        "accepted: {}\n  state before   {}\n  state after    {}\n  batch hash     {}\n  code root      {}\n  digest         {}\n  \
         verifying key  {}\n",
        checks.join(", "),
        statement.prev_commitment,
        statement.new_commitment,
        statement.batch_hash,
        statement.code_root,
        statement.digest,
        accepted.verifying_key_blake3
    );
    if let Some(txid) = &accepted.claim_txid {
        text += &format!("  claim          {txid} (ask a node whether Bitcoin has it)\n");
    }
    if let Some(note) = &accepted.insecure {
        text += &format!("  {note}\n");
    }
    if !accepted.trusted {
        text += "  NOT compared with values you trust: verifying key and code root. Anybody can make a folder that is accepted \
                 under a key of his own: compare both, or give them as --vk-hash and --code-root.\n";
    }
    text
}
