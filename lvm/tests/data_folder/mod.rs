//! Where the test data of others lies, and what to say where it does not.

use std::io::Write as _;
use std::path::{Path, PathBuf};

/// The folder `name` in `../shared/data`, seen from the repository's root; says so and yields none where it is absent.
pub(crate) fn data(name: &str) -> Option<PathBuf> {
    // Tests run in their package's folder; a path of build time may be one of another clone.
    let path = Path::new("../../shared/data").join(name);
    if path.exists() {
        return Some(path);
    }
    // Past the capture of passing tests' output.
    let note =
        format!("SKIPPED: {} is absent (test data that is not part of this repository)", path.display());
    let _ = writeln!(std::io::stderr(), "{note}");
    None
}

/// All JSON files below `folder`, sorted.
pub(crate) fn json_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("folder can be listed") {
            let path = entry.expect("entry can be read").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "json") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}
