//! `lanes demo` as a stranger runs it: the real binary, judged by what it prints.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use lanes::clock::within;
use serde_json::Value;
use tokio::task::spawn_blocking;

/// A demo that takes longer than this hangs.
const DEMO_MAX: Duration = Duration::from_secs(90);

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lanes"));
    command.arg("demo").args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn kill(signal: &str, pid: u32) {
    let killed = Command::new("kill").args([signal, &pid.to_string()]).status().expect("kill(1)");
    assert!(killed.success(), "kill {signal} {pid}");
}

/// Waits for `work` about the child `pid`, which does not outlive its time.
async fn in_time<T: Send + 'static>(pid: u32, work: impl FnOnce() -> T + Send + 'static) -> T {
    match within(DEMO_MAX, spawn_blocking(work)).await {
        Ok(done) => done.expect("no panic"),
        Err(late) => {
            kill("-KILL", pid);
            panic!("the demo hangs: {late}");
        }
    }
}

async fn demo(args: &[&str]) -> Output {
    let child = command(args).spawn().expect("the binary starts");
    in_time(child.id(), || child.wait_with_output().expect("its output")).await
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

fn number(json: &Value, key: &str) -> u64 {
    json[key].as_u64().unwrap_or_else(|| panic!("{key} in {json:#}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_demo_loses_nothing_and_calls_nothing_twice() {
    let ended = demo(&["--for", "8s", "--records", "600", "--requests-per-minute", "3000", "--json"]).await;
    let stderr = text(&ended.stderr);
    assert_eq!(ended.status.code(), Some(0), "{stderr}");
    let json: Value = serde_json::from_slice(&ended.stdout).expect("stdout is one JSON document");
    for none in ["lost", "called_twice", "unconfirmed", "unchecked_calls"] {
        assert_eq!(number(&json, none), 0, "{none} in {json:#}");
    }
    // its limits are announced: they are learnt, and kept
    assert!(number(&json, "rate_limited") * 100 <= number(&json, "calls"), "{json:#}");
    for some in ["succeeded", "retried_ok", "duplicates_dropped", "exhausted", "failed"] {
        assert!(number(&json, some) > 0, "{some} in {json:#}");
    }
    let places = ["succeeded", "duplicates_dropped", "exhausted", "failed", "still_waiting"];
    let sum: u64 = places.iter().map(|place| number(&json, place)).sum();
    assert_eq!(sum, number(&json, "published"), "every job is in exactly one place: {json:#}");
    let bulk = &json["lanes"][1];
    assert_eq!(number(bulk, "published"), 600 + 600 / 20 + 1, "{json:#}");
    assert!(json["realtime_latency"]["during_import"]["p50_ms"].as_f64().is_some_and(|ms| ms > 0.0), "{json:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_terminal_it_speaks_in_plain_lines_and_tidies_up() {
    let home = tempfile::tempdir().expect("a directory");
    let keep = home.path().join("kept");
    let ended = demo(&["--for", "3s", "--records", "100", "--keep", keep.to_str().expect("UTF-8")]).await;
    let (stdout, stderr) = (text(&ended.stdout), text(&ended.stderr));
    assert_eq!(ended.status.code(), Some(0), "{stderr}");
    assert!(!stdout.contains('\x1b') && !stderr.contains('\x1b'), "escape codes in {stderr}{stdout}");
    assert!(stderr.contains("/metrics\n"), "where the metrics are: {stderr}");
    let lines = stderr.lines().filter(|line| line.starts_with("00:0") && line.contains("realtime: ")).count();
    assert!((3..=6).contains(&lines), "about one line a second, not {lines}: {stderr}");
    assert!(stdout.contains("Nothing was lost, nothing was called twice."), "{stdout}");
    assert!(!stderr.contains("WARN") && !stderr.contains("INFO"), "the log goes to its file: {stderr}");
    for kept in ["lanes.db", "lanes.toml", "lanes.log"] {
        assert!(keep.join(kept).exists(), "{kept} is kept");
    }
    let again = demo(&["--for", "3s", "--keep", keep.to_str().expect("UTF-8")]).await;
    assert_eq!(again.status.code(), Some(2), "an earlier demo's jobs are not taken over");
    assert!(text(&again.stderr).contains("holds an earlier demo"), "{}", text(&again.stderr));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signal_ends_it_in_order_with_a_summary_and_leaves_no_files() {
    let temp = tempfile::tempdir().expect("a directory");
    let mut child = command(&["--for", "1h", "--records", "100", "--requests-per-minute", "300", "--json"])
        .env("TMPDIR", temp.path())
        .env("LANES_BROKER__URL", "amqp://nobody@127.0.0.1:1") // the demo is the same wherever it runs
        .spawn()
        .expect("the binary starts");
    let pid = child.id();
    let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines().map(|line| line.expect("UTF-8"));
    let mut lines = in_time(pid, move || {
        assert!(
            lines.any(|line| line.contains("bulk: ") && line.contains(" waiting")),
            "the import waits for its budget"
        );
        lines
    })
    .await;
    kill("-TERM", pid);
    let ended = in_time(pid, move || {
        // what it still says must find a reader
        lines.by_ref().for_each(drop);
        child.wait_with_output().expect("its output")
    })
    .await;
    assert_eq!(ended.status.code(), Some(0));
    let json: Value = serde_json::from_slice(&ended.stdout).expect("stdout is one JSON document");
    assert_eq!((number(&json, "lost"), number(&json, "called_twice")), (0, 0), "{json:#}");
    assert_eq!(std::fs::read_dir(temp.path()).expect("the directory").count(), 0, "its temporary directory is gone");
}
