//! Which chains of claims a deployment continues.
//!
//! The result folder holds them, with the operator's keys (`rollups/`), and all coordinators of a deployment share it. Its id
//! in `rollups/ledger.json`, drawn when the folder is first used, tells it from another one: the first coordinator to lead
//! writes it into the queue's state, and one that has another folder, or an empty one, does not take over (`assay-service`).

use std::io::{self, Write};
use std::path::Path;

use assay_schedule::Hash;
use assay_service::work::Ledger;
use serde::{Deserialize, Serialize};

use super::ClusterError;
use crate::fsio::{self, io_error};
use crate::statement::json_text;

const FILE: &str = "ledger.json";
const FILE_BYTES_MAX: u64 = 4096;
const VERSION: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    version: u32,
    /// 64 hex digits.
    id: Hash,
}

/// The ledger in a result folder; begins one where there is none. `host`: this machine's name, for messages.
///
/// # Errors
/// [`ClusterError::File`], [`ClusterError::Ledger`] for a file that is none.
pub fn open(out: &Path, host: &str) -> Result<Ledger, ClusterError> {
    let folder = out.join("rollups");
    std::fs::create_dir_all(&folder).map_err(io_error("create", &folder))?;
    let path = folder.join(FILE);
    if !path.exists() {
        begin(&folder, &path).map_err(io_error("create", &path))?;
    }
    let bytes = fsio::read_limited(&path, FILE_BYTES_MAX)?;
    let damaged = |reason: String| ClusterError::Ledger { path: path.clone(), reason };
    let content: Content = serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
    if content.version != VERSION {
        return Err(damaged(format!("version {}, expected {VERSION}", content.version)));
    }
    let out = out.canonicalize().map_err(io_error("look for", out))?;
    Ok(Ledger { id: content.id, place: format!("{} on {host}", out.display()) })
}

/// Writes the file, whole or not at all; one that another coordinator writes at the same time wins.
fn begin(folder: &Path, path: &Path) -> io::Result<()> {
    // From the same source as API keys.
    let (secret, _) = assay_service::keys::new_key();
    let id = Hash(*blake3::hash(secret.as_bytes()).as_bytes());
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(json_text(&Content { version: VERSION, id }).as_bytes())?;
    file.as_file().sync_all()?;
    match file.persist_noclobber(path) {
        Err(refused) if refused.error.kind() != io::ErrorKind::AlreadyExists => return Err(refused.error),
        _ => {}
    }
    std::fs::File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_keeps_its_id_and_no_two_have_the_same() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let first = open(one.path(), "host-a").unwrap();
        assert!(first.place.contains(one.path().to_str().unwrap()) && first.place.ends_with("on host-a"));
        let again = open(one.path(), "host-b").unwrap();
        assert_eq!(first.id, again.id, "another machine that shares the folder");
        assert_ne!(first.id, open(two.path(), "host-a").unwrap().id);
        assert_eq!(std::fs::read_dir(one.path().join("rollups")).unwrap().count(), 1, "nothing is left over");
    }

    #[test]
    fn coordinators_that_begin_at_the_same_time_agree() {
        let dir = tempfile::tempdir().unwrap();
        let open = || open(dir.path(), "host").unwrap().id;
        let ids: Vec<Hash> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(open)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    }

    #[test]
    fn a_damaged_file_is_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        open(dir.path(), "host").unwrap();
        let path = dir.path().join("rollups").join(FILE);
        let id = "0".repeat(64);
        for text in
            ["", "{}", &format!("{{\"version\": 2, \"id\": \"{id}\"}}"), "{\"version\": 1, \"id\": \"00\"}"]
        {
            std::fs::write(&path, text).unwrap();
            let error = open(dir.path(), "host").unwrap_err();
            assert!(matches!(error, ClusterError::Ledger { .. }), "{error}");
            assert!(error.to_string().contains("backup"), "{error}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
    }
}
