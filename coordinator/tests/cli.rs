//! The command line as a user meets it: exit codes, messages, and that bad input writes nothing.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::path::Path;
use std::process::{Command, Output};

struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn assay(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_assay"))
            .args(arguments)
            .current_dir(self.path())
            .env("HOME", self.path())
            .env("ASSAY_CACHE", self.path().join("cache"))
            .output()
            .unwrap()
    }

    /// Names of everything in the folder.
    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = std::fs::read_dir(self.path())
            .unwrap()
            .map(|item| item.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Bad input: exit code 2, the item is named, and the folder is as it was.
fn refused(place: &Place, arguments: &[&str], words: &[&str]) {
    let before = place.names();
    let output = place.assay(arguments);
    let message = stderr(&output);
    assert_eq!(code(&output), 2, "{arguments:?}: {message}");
    for word in words {
        assert!(message.contains(word), "{arguments:?} does not say {word:?}: {message}");
    }
    assert_eq!(place.names(), before, "{arguments:?} wrote something");
}

#[test]
fn help_documents_the_exit_codes_and_shows_examples() {
    let place = Place::new();
    let output = place.assay(&["--help"]);
    assert_eq!(code(&output), 0);
    let text = stdout(&output);
    for word in [
        "Exit codes",
        "Examples",
        "prove",
        "verify",
        "setup",
        "batch",
        "cache",
        "coordinator",
        "submit",
        "fetch",
    ] {
        assert!(text.contains(word), "{word}");
    }
    assert!(!text.contains("stage  "), "the child's subcommand is hidden");
}

#[test]
fn unusable_arguments_and_settings_are_refused_by_name() {
    let place = Place::new();
    refused(&place, &["prove", "sample", "--until", "tomorrow"], &["tomorrow"]);
    refused(&place, &["fly"], &["fly"]);
    refused(&place, &["prove", "sample:0"], &["sample:0"]);
    refused(&place, &["prove", "sample:x"], &["sample:x"]);
    refused(&place, &["prove", "no/such.batch"], &["no/such.batch"]);
    refused(&place, &["prove", "sample", "--bitcoind", "nonsense"], &["bitcoind"]);
    refused(&place, &["prove", "sample", "--config", "no.toml"], &["no.toml"]);
    refused(&place, &["verify", "no/such/folder"], &["no/such/folder"]);
    std::fs::write(place.path().join("assay.toml"), "colour = 1\n").unwrap();
    refused(&place, &["prove", "sample"], &["colour"]);
}

#[test]
fn a_batch_that_continues_an_unknown_history_is_refused() {
    let place = Place::new();
    refused(&place, &["prove", "sample:2"], &["no fold proof", "after block 2", "--genesis"]);
}

#[test]
fn every_damaged_batch_file_is_refused() {
    let place = Place::new();
    let output = place.assay(&["batch", "sample", "--index", "2", "-o", "good.batch"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let good = std::fs::read(place.path().join("good.batch")).unwrap();
    let bad = place.path().join("bad.batch");
    let prove = ["prove", "bad.batch", "--until", "execute"];

    for length in [0, 7, good.len() / 2, good.len() - 1] {
        std::fs::write(&bad, &good[..length]).unwrap();
        refused(&place, &prove, &["bad.batch"]);
    }
    std::fs::write(&bad, [good.as_slice(), b"x"].concat()).unwrap();
    refused(&place, &prove, &["bad.batch"]);
    // A changed byte anywhere: in the parent state, in a transaction, in the witness.
    for at in (0..good.len()).step_by(good.len() / 24) {
        let mut bytes = good.clone();
        bytes[at] ^= 0x20;
        std::fs::write(&bad, bytes).unwrap();
        refused(&place, &prove, &["bad.batch"]);
    }
}

#[test]
fn a_batch_can_be_written_and_shown() {
    let place = Place::new();
    assert_eq!(code(&place.assay(&["batch", "sample", "-o", "one.batch"])), 0);
    let shown = place.assay(&["batch", "show", "one.batch", "--json"]);
    assert_eq!(code(&shown), 0, "{}", stderr(&shown));
    let shown: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
    let sample = place.assay(&["batch", "show", "sample:1", "--json"]);
    assert_eq!(shown, serde_json::from_slice::<serde_json::Value>(&sample.stdout).unwrap());
    assert_eq!(shown["can_be_folded"], true);
    assert_eq!(shown["blocks"][0]["number"], 1);
    let text = stdout(&place.assay(&["batch", "show", "sample"]));
    assert!(text.contains(shown["batch_hash"].as_str().unwrap()));
}

#[test]
fn a_wrong_description_is_refused_by_item() {
    let place = Place::new();
    let write = |text: &str| std::fs::write(place.path().join("d.json"), text).unwrap();
    let build = ["batch", "build", "--from", "d.json", "-o", "d.batch"];
    write("{\"genesis\": \"sample\", \"blocks\": [], \"colour\": 1}");
    refused(&place, &build, &["d.json", "colour"]);
    write(
        "{\"genesis\": \"sample\", \"blocks\": [{\"timestamp\": 1760000012, \"transactions\": [\"0x00\"]}]}",
    );
    refused(&place, &build, &["blocks[0].transactions[0]"]);
    write("{\"header\": {}}");
    refused(&place, &build, &["chain_id"]);
    write("not json");
    refused(&place, &build, &["d.json"]);
}

#[test]
fn a_coordinator_that_cannot_run_says_why_and_writes_nothing() {
    let place = Place::new();
    refused(&place, &["coordinator"], &["assay setup", "--vk-hash"]);
    refused(&place, &["coordinator", "--listen", "8080"], &["coordinator.listen"]);
    refused(&place, &["coordinator", "--redis", "redis://h"], &["store.url"]);
    refused(&place, &["coordinator", "--vk-hash", "00"], &["vk_hash"]);
}

#[test]
fn a_coordinator_that_is_not_there_is_another_exit_code_than_a_bad_command() {
    let place = Place::new();
    refused(&place, &["status"], &["no API key", "ASSAY_KEY"]);
    refused(&place, &["submit", "no/such.batch", "--key", "k"], &["no/such.batch"]);
    refused(&place, &["status", "--key", "k", "--url", "ftp://h"], &["https"]);
    // Bound and dropped: nobody listens there.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("http://127.0.0.1:{port}");
    for command in [&["submit", "sample"][..], &["status"], &["workers"], &["cancel", "1"], &["fetch", "1"]] {
        let output = place.assay(&[command, &["--key", "assay_s3cr3t", "--url", &url]].concat());
        assert_eq!(code(&output), 3, "{command:?}: {}", stderr(&output));
        assert!(!stderr(&output).contains("s3cr3t"), "{}", stderr(&output));
    }
    let output = place.assay(&["watch", "1", "--patience", "0", "--key", "k", "--url", &url]);
    assert_eq!(code(&output), 3, "{}", stderr(&output));
}

#[test]
fn an_empty_cache_lists_nothing_and_prunes_nothing() {
    let place = Place::new();
    let listed = place.assay(&["cache", "list", "--json"]);
    assert_eq!((code(&listed), stdout(&listed).trim()), (0, "[]"));
    assert_eq!(code(&place.assay(&["cache", "prune", "--days", "0"])), 0);
}
