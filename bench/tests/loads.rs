//! The four loads, for a moment each, against a real broker: what they count is what came.
//!
//! ```text
//!   klamm-bench LOAD --json  -->  figures, read back
//! ```
//!
//! The broker is `KLAMM_BIN` where that is set, else what cargo makes of it with this
//! test's own profile.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use std::{env, fs, thread};

fn klamm() -> &'static Path {
    static KLAMM: OnceLock<PathBuf> = OnceLock::new();
    KLAMM.get_or_init(|| {
        if let Some(path) = env::var_os("KLAMM_BIN") {
            return path.into();
        }
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut build = Command::new(cargo);
        build.args(["build", "--quiet", "-p", "klamm"]);
        if !cfg!(debug_assertions) {
            build.arg("--release");
        }
        let built = build.current_dir(env!("CARGO_MANIFEST_DIR")).status();
        assert!(built.expect("cargo").success(), "the broker can't be built");
        Path::new(env!("CARGO_BIN_EXE_klamm-bench")).with_file_name("klamm")
    })
}

fn bench(name: &str, args: &[&str]) -> Output {
    let data = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("loads-{name}"));
    Command::new(env!("CARGO_BIN_EXE_klamm-bench"))
        .args(args)
        // What the machine does by itself is not what is tested here.
        .args(["--floor-mib", "0", "--json", "--klamm"])
        .arg(klamm())
        .arg("--data")
        .arg(data)
        .output()
        .expect("klamm-bench")
}

/// A figure by its name.
fn measured(name: &str, args: &[&str]) -> impl Fn(&str) -> f64 {
    let output = bench(name, args);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {errors}");
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    move |id| {
        let figures = report["figures"].as_array().expect("figures");
        let figure = figures.iter().find(|figure| figure["figure"] == id);
        let value = figure.and_then(|figure| figure["value"].as_f64());
        value.unwrap_or_else(|| panic!("no figure {id} in {report}"))
    }
}

#[test]
fn produce_into_many_partitions_at_once() {
    let args = [
        "produce",
        "--seconds",
        "0.5",
        "--warm-up",
        "0.1",
        "--topics",
        "2",
        "--partitions",
        "5",
        "--connections",
        "3",
        "--batches",
        "2",
        "--batch-size",
        "4096",
        "--record-size",
        "100",
        "--compression",
        "lz4",
        "--keys",
        "7",
    ];
    let figure = measured("many", &args);
    assert!(figure("rate") > 0.0 && figure("p50") > 0.0 && figure("server_memory") > 0.0);
    // Two batches of some 35 records in each.
    let each = figure("records") / figure("requests");
    assert!((50.0..80.0).contains(&each), "{each} records a request");
}

#[test]
fn produce_at_a_rate_without_acks() {
    let args = [
        "produce",
        "--seconds",
        "1",
        "--warm-up",
        "0",
        "--acks",
        "0",
        "--rate",
        "2000",
        "--batch-size",
        "1",
        "--record-size",
        "100",
    ];
    let rate = measured("acks-0", &args)("records");
    // A busy machine may be behind, but never ahead.
    assert!(rate > 0.0 && rate <= 2100.0, "{rate} records/s");
}

#[test]
fn consume_all_that_is_there_once() {
    let args = [
        "consume",
        "--once",
        "--check",
        "--fill-mib",
        "20",
        "--partitions",
        "3",
        "--consumers",
        "2",
        "--batch-size",
        "100000",
        "--warm-up",
        "0",
        "--seconds",
        "60",
    ];
    let figure = measured("once", &args);
    // Whole batches come to a little more than what was asked for.
    let per_record = 1e6 * figure("rate") / figure("records");
    assert!(
        (1024.0..1060.0).contains(&per_record),
        "{per_record} bytes a record"
    );
    assert!(figure("requests") > 0.0);
}

#[test]
fn a_record_is_read_after_it_was_due() {
    let args = [
        "tail",
        "--seconds",
        "1",
        "--warm-up",
        "0.2",
        "--rate",
        "500",
        "--partitions",
        "4",
        "--connections",
        "2",
        "--batch-size",
        "1",
    ];
    let figure = measured("tail", &args);
    assert!(figure("end_to_end_p50") > 0.0 && figure("producers_p50") > 0.0);
    let rate = figure("producers_records");
    assert!(rate > 0.0 && rate <= 510.0, "{rate} records/s");
}

#[test]
fn producers_and_consumers_at_once() {
    let args = [
        "mixed",
        "--seconds",
        "0.5",
        "--warm-up",
        "0.1",
        "--connections",
        "2",
        "--consumers",
        "1",
        "--batch-size",
        "20000",
    ];
    let figure = measured("mixed", &args);
    assert!(figure("producers_rate") > 0.0 && figure("consumers_rate") > 0.0);
}

#[test]
fn a_request_to_the_partitions_core_beside_one_to_another() {
    let data = Path::new(env!("CARGO_TARGET_TMPDIR")).join("loads-hop");
    let output = Command::new(env!("CARGO_BIN_EXE_klamm-bench"))
        .args(["hop", "--rounds", "1", "--seconds", "0.1", "--json"])
        .arg("--klamm")
        .arg(klamm())
        .arg("--data")
        .arg(data)
        .output()
        .expect("klamm-bench");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let figures = report["figures"].as_array().expect("figures");
    // The server's CPU is counted in ticks of 10 ms: too coarse for so short a round.
    for id in [
        "produce_small_p50",
        "produce_small_unsynced_p99",
        "fetch_small_rate",
        "produce_large_rate",
        "fetch_large_rate",
    ] {
        let figure = figures.iter().find(|figure| figure["figure"] == id);
        let figure = figure.unwrap_or_else(|| panic!("no figure {id} in {report}"));
        assert!(figure["value"].as_f64() > Some(0.0), "{figure}");
        assert!(figure["beside"]["value"].as_f64() > Some(0.0), "{figure}");
    }
}

#[test]
fn a_topic_that_is_not_there_is_an_error_with_a_remedy() {
    let output = bench("nowhere", &["produce", "--topic", "nowhere"]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(
        errors.contains("topic nowhere") && errors.contains("--topic"),
        "{errors}"
    );
}

/// Running, and not only waiting for its end to be seen.
fn runs(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").map(|(_, rest)| &rest[..1]);
    !matches!(state, None | Some("Z" | "X"))
}

fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn what_is_broken_off_leaves_no_broker_and_no_data() {
    let data = Path::new(env!("CARGO_TARGET_TMPDIR")).join("loads-broken-off");
    let mut bench = Command::new(env!("CARGO_BIN_EXE_klamm-bench"))
        .args(["produce", "--seconds", "600", "--floor-mib", "0", "--klamm"])
        .arg(klamm())
        .arg("--data")
        .arg(&data)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("klamm-bench");
    let children = format!("/proc/{0}/task/{0}/children", bench.id());
    let broker = until("no broker was started", || {
        let text = fs::read_to_string(&children).unwrap_or_default();
        text.split_whitespace().next().map(str::to_owned)
    });
    assert!(runs(&broker) && data.exists());
    let pid = bench.id().to_string();
    let told = Command::new("kill").args(["-TERM", &pid]).status();
    assert!(told.expect("kill").success());
    let ended = bench.wait().expect("an exit status");
    assert_eq!(ended.code(), Some(128 + 15));
    until("the broker stays", || (!runs(&broker)).then_some(()));
    assert!(!data.exists(), "the data stays");
}

#[test]
fn a_reader_of_the_report_may_have_read_enough() {
    let data = Path::new(env!("CARGO_TARGET_TMPDIR")).join("loads-enough");
    let mut bench = Command::new(env!("CARGO_BIN_EXE_klamm-bench"))
        .args(["floors", "--mib", "1", "--data"])
        .arg(&data)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("klamm-bench");
    drop(bench.stdout.take());
    let output = bench.wait_with_output().expect("an exit status");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && errors.is_empty(), "{errors}");
}
