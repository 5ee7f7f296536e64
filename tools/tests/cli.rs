//! The command as a script sees it: exit status, stdout, stderr. No broker is needed.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use klamm_engine::batch::BatchBuilder;
use klamm_engine::codec::Codec;
use klamm_engine::units::{Offset, TimestampMs};

fn klamm(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_klamm"))
        .env_remove("KLAMM_BOOTSTRAP")
        .args(args)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A port that nobody listens on: bound once, and let go.
fn nobody() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

#[test]
fn a_command_line_that_makes_no_sense_is_2() {
    for args in [
        &["topic"] as &[&str],
        &["topic", "create"],
        &["topic", "alter", "x"],
        &["topic", "create", "x", "-p", "0"],
        &["consume", "x", "-o", "yesterday"],
        &["consume", "x", "-f", "%q"],
        &["group", "reset", "g", "--to-latest"],
        &[
            "group",
            "reset",
            "g",
            "-t",
            "x",
            "--to-latest",
            "--to-earliest",
        ],
        &["produce", "x", "-z", "rar"],
        &["nonsense"],
    ] {
        let output = klamm(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty());
    }
}

#[test]
fn a_broker_that_is_not_there_is_1_and_said() {
    let address = nobody();
    let output = klamm(&["topic", "list", "-b", &address]);
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    let said = text(&output.stderr);
    assert!(
        said.contains(&address) && said.contains("--bootstrap"),
        "{said}"
    );

    let output = klamm(&["topic", "list", "--json", "-b", &address]);
    let error: serde_json::Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!(error["error"], "BROKER_UNREACHABLE");
    assert!(error["message"].as_str().unwrap().contains(&address));
}

#[test]
fn every_shell_gets_its_completions() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = klamm(&["completions", shell]);
        assert_eq!(output.status.code(), Some(0), "{shell}");
        assert!(text(&output.stdout).contains("consume"), "{shell}");
    }
}

fn write_segment(path: &Path, batches: i64) {
    let bytes: Vec<u8> = (0..batches)
        .flat_map(|base| {
            BatchBuilder::new(Codec::Zstd)
                .base_offset(Offset(base))
                .record(TimestampMs(1_000), Some(b"key"), Some(b"value"))
                .finish()
        })
        .collect();
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn inspect_shows_records_and_the_byte_that_is_wrong() {
    let data = tempfile::tempdir().unwrap();
    let folder = data.path().join("orders-0");
    std::fs::create_dir(&folder).unwrap();
    let path = folder.join("00000000000000000000.log");
    let name = path.to_str().unwrap();
    write_segment(&path, 3);
    let output = klamm(&["inspect", "--records", "--json", name]);
    assert_eq!(output.status.code(), Some(0));
    let record: serde_json::Value =
        serde_json::from_str(text(&output.stdout).lines().nth(1).unwrap()).unwrap();
    assert_eq!(record["type"], "record");
    assert_eq!(
        (&record["key"], &record["value"]),
        (&"key".into(), &"value".into())
    );

    let mut bytes = std::fs::read(&path).unwrap();
    let size = bytes.len() / 3;
    bytes[2 * size - 1] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let output = klamm(&["inspect", "--summary", "--json", name]);
    assert_eq!(output.status.code(), Some(1));
    let summary: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(summary["status"], "corrupt");
    assert_eq!(summary["bad_byte"], size);

    let output = klamm(&["inspect", data.path().to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).contains(&format!("byte {size}")));
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let data = tempfile::tempdir().unwrap();
    let folder = data.path().join("orders-0");
    std::fs::create_dir(&folder).unwrap();
    let path = folder.join("00000000000000000000.log");
    // More than a pipe holds.
    write_segment(&path, 5_000);
    let mut child = Command::new(env!("CARGO_BIN_EXE_klamm"))
        .args(["inspect", "--records", path.to_str().unwrap()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(text(&output.stderr), "");
}
