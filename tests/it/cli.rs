//! The program as people and scripts use it: the real binary, its output and its exit codes, on SQLite files.

mod dash;
mod incidents;
mod limits;
mod operators;
mod pausing;
mod watch;

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;

use bytes::Bytes;
use lanes::clock::Timestamp;
use lanes::job::LaneName;
use lanes::job::verdict::DeadReason;
use lanes::job::wire;
use lanes::message::{HeaderValue, Message, Properties};
use lanes::store::sqlite::SqliteStore;
use lanes::store::{Letter, LetterStore as _, Payload, RawLetter};
use serde_json::Value;
use tempfile::TempDir;
use uuid::Uuid;

/// Most time that a command may wait for the end of a job; far more than any needs.
const PATIENCE: &str = "60s";

/// A directory with a configuration, and the program in it.
pub struct Desk {
    dir: TempDir,
}

/// How a command ended.
#[derive(Debug)]
pub struct Ran {
    code: i32,
    pub out: String,
    pub err: String,
}

impl Ran {
    pub fn of(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("the program writes UTF-8");
        // a signal that nobody caught has no exit code
        let code = output.status.code().unwrap_or(-1);
        Self { code, out: text(output.stdout), err: text(output.stderr) }
    }

    #[track_caller]
    pub fn ends(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout: {}\nstderr: {}", self.out, self.err);
        self
    }

    #[track_caller]
    pub fn says(self, part: &str) -> Self {
        assert!(self.err.contains(part), "{part:?} is not in stderr: {}", self.err);
        self
    }

    #[track_caller]
    pub fn shows(self, part: &str) -> Self {
        assert!(self.out.contains(part), "{part:?} is not in stdout: {}", self.out);
        self
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}", self.out))
    }
}

impl Desk {
    /// A desk whose endpoint `crm` is at `url`; jobs are called once.
    pub fn new(url: &str) -> Self {
        let desk = Self { dir: tempfile::tempdir().expect("a temporary directory") };
        desk.write(
            "lanes.toml",
            &format!(
                "[lanes.bulk]\nretry = {{ max_attempts = 1 }}\n[lanes.realtime]\n[endpoints.crm]\nurl = \"{url}\"\n"
            ),
        );
        desk
    }

    /// A desk whose endpoint refuses connections.
    pub fn idle() -> Self {
        Self::new("http://127.0.0.1:1/contacts")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("a writable directory");
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lanes"));
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("LANES_")) {
            command.env_remove(name);
        }
        command.current_dir(self.dir.path()).stdin(Stdio::null()).args(args);
        command
    }

    pub fn lanes(&self, args: &[&str]) -> Ran {
        Ran::of(self.command(args).output().expect("the program starts"))
    }

    pub fn lanes_with(&self, args: &[&str], stdin: &str) -> Ran {
        let mut command = self.command(args);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
        child.stdin.take().expect("piped").write_all(stdin.as_bytes()).expect("it reads its input");
        Ran::of(child.wait_with_output().expect("it ends"))
    }

    /// A worker that consumes; it is killed when the test ends.
    pub fn worker(&self) -> Background {
        let mut worker = Background::start(self.command(&["worker", "--no-http", "--lane", "bulk"]));
        worker.until("consuming");
        worker
    }

    async fn store(&self) -> Arc<SqliteStore> {
        let url = format!("sqlite:{}", self.path("lanes.db").display());
        Arc::new(SqliteStore::new(lanes::db::open_sqlite(&url).await.expect("opens")))
    }
}

/// A command that runs beside the test.
pub struct Background {
    child: Child,
    err: BufReader<std::process::ChildStderr>,
    heard: String,
}

impl Background {
    pub fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
        let err = BufReader::new(child.stderr.take().expect("piped"));
        Self { child, err, heard: String::new() }
    }

    /// Reads its stderr until a line holds `part`.
    pub fn until(&mut self, part: &str) {
        let mut line = String::new();
        while !line.contains(part) {
            line.clear();
            let read = self.err.read_line(&mut line).expect("readable");
            self.heard.push_str(&line);
            assert!(read > 0, "it ended without saying {part:?}: {}", self.heard);
        }
    }

    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([name, &self.child.id().to_string()]).status().expect("kill is installed");
        assert!(sent.success(), "kill {name}");
    }

    pub fn end(mut self) -> Ran {
        let mut out = String::new();
        if let Some(mut stdout) = self.child.stdout.take() {
            stdout.read_to_string(&mut out).expect("readable");
        }
        self.err.read_to_string(&mut self.heard).expect("readable");
        let code = self.child.wait().expect("it ends").code().unwrap_or(-1);
        Ran { code, out, err: std::mem::take(&mut self.heard) }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // it may have ended already
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An endpoint that answers 200 to everything, for as long as the test binary lives.
pub fn endpoint() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}/contacts", listener.local_addr().expect("bound"));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            std::thread::spawn(move || {
                let mut reader = BufReader::new(stream.try_clone().expect("a socket"));
                loop {
                    let mut length = 0;
                    let mut line = String::new();
                    while reader.read_line(&mut line).is_ok_and(|read| read > 0) && line.trim() != "" {
                        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                            length = value.trim().parse().expect("a length");
                        }
                        line.clear();
                    }
                    if line.is_empty() || reader.read_exact(&mut vec![0; length]).is_err() {
                        return;
                    }
                    if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").is_err() {
                        return;
                    }
                }
            });
        }
    });
    url
}

/// Lines of jobs for `crm`.
pub fn jobs(count: usize) -> String {
    (0..count).fold(String::new(), |mut text, number| {
        let _ = writeln!(text, r#"{{"tenant":"t{}","body":{{"number":{number}}}}}"#, number % 5);
        text
    })
}

fn ready(desk: &Desk, lane: &str) -> u64 {
    let status = desk.lanes(&["status", "--json"]).json();
    let lanes = status["lanes"].as_array().expect("lanes").clone();
    let found = lanes.into_iter().find(|found| found["name"] == lane).expect("the lane");
    found["ready"].as_u64().expect("a number")
}

#[test]
fn help_shows_commands_and_examples() {
    let desk = Desk::idle();
    desk.lanes(&["--help"]).ends(0).shows("Examples:").shows("Exit codes:");
    desk.lanes(&[]).ends(2).says("Usage: lanes");
    desk.lanes(&["--version"]).ends(0).shows("lanes ");
    desk.lanes(&["publsh"]).ends(2).says("a similar subcommand exists: 'publish'");
    let refused = desk.lanes(&["--json", "publsh"]).ends(2);
    let error: Value = serde_json::from_str(&refused.err).expect("an error as JSON");
    assert_eq!(error["error"]["exit_code"], 2);
}

#[test]
fn completions_are_printed_for_every_shell() {
    let desk = Desk::idle();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        desk.lanes(&["completions", shell]).ends(0).shows("publish");
    }
    desk.lanes(&["completions", "csh"]).ends(2);
}

#[test]
fn the_configuration_is_checked_and_shown() {
    let desk = Desk::idle();
    desk.lanes(&["config", "check"]).ends(0).shows("lanes.toml: ok, 2 lanes, 1 endpoint");
    assert_eq!(desk.lanes(&["config", "check", "--json"]).ends(0).json()["valid"], true);
    desk.lanes(&["config", "show"]).ends(0).shows("[endpoints.crm]").shows("max_attempts = 1");
    let shown = desk.lanes(&["config", "show", "--json"]).ends(0).json();
    assert_eq!(shown["schema"], 1);
    assert_eq!(shown["source"], "lanes.toml");
}

#[test]
fn every_problem_of_the_configuration_is_told_before_anything_connects() {
    let desk = Desk::idle();
    desk.write(
        "bad.toml",
        "[broker]\nurl = \"amqp://127.0.0.1:1/%2f\"\n[lanes.bulk]\nconcurency = 3\n[endpoints.crm]\nurl = \"nonsense\"\n",
    );
    for command in [&["status"][..], &["config", "check"], &["worker"], &["publish", "bulk", "-e", "crm"], &["migrate"]]
    {
        let args: Vec<&str> = command.iter().chain(&["--config", "bad.toml"]).copied().collect();
        let ran = desk.lanes(&args).ends(2).says("concurency").says("did you mean").says("bad.toml:6");
        assert_eq!(ran.out, "");
    }
    let ran = desk.lanes(&["--json", "-c", "bad.toml", "status"]).ends(2);
    let error: Value = serde_json::from_str(&ran.err).expect("an error as JSON");
    assert_eq!(error["error"]["problems"].as_array().expect("problems").len(), 2);
    desk.lanes(&["-c", "missing.toml", "status"]).ends(2).says("missing.toml");
    let ran = desk.command(&["status"]).env("LANES_CONFIG", "missing.toml").output().expect("starts");
    Ran::of(ran).ends(2).says("LANES_CONFIG");
}

#[test]
fn a_job_is_published_and_described() {
    let desk = Desk::idle();
    let args = ["publish", "bulk", "-e", "crm", "-t", "acme", "--id", "a-1", "--data", r#"{"name":"Ada"}"#];
    desk.lanes(&args).ends(0).shows("to lane bulk (id a-1)");
    let json = desk.lanes(&[&args[..], &["--json"]].concat()).ends(0).json();
    assert_eq!(json["status"], "published");
    Uuid::parse_str(json["handle"].as_str().expect("a handle")).expect("a uuid");
    assert_eq!(ready(&desk, "bulk"), 2);
    let dry = desk.lanes(&[&args[..], &["--json", "--dry-run", "--delay", "5m"]].concat()).ends(0).json();
    assert_eq!((&dry["status"], &dry["tenant"], &dry["body_bytes"]), (&"dry_run".into(), &"acme".into(), &14.into()));
    assert!(dry["not_before"].is_string());
    assert_eq!(ready(&desk, "bulk"), 2, "a dry run sends nothing");
    desk.write("body.json", "[1]");
    desk.lanes(&["publish", "bulk", "-e", "crm", "--data", "@body.json"]).ends(0);
    desk.lanes_with(&["publish", "bulk", "-e", "crm", "--data", "-", "--content-type", "text/plain"], "hello").ends(0);
    assert_eq!(ready(&desk, "bulk"), 4);
}

#[test]
fn what_cannot_be_published_is_refused_and_nothing_is_sent() {
    let desk = Desk::idle();
    desk.lanes(&["publish", "bluk", "-e", "crm"])
        .ends(1)
        .says("did you mean \"bulk\"?")
        .says("configured lanes: bulk, realtime");
    desk.lanes(&["publish", "bulk", "-e", "crn"]).ends(1).says("did you mean \"crm\"?");
    desk.lanes(&["publish", "bulk"]).ends(2).says("--endpoint");
    desk.lanes(&["publish", "bulk", "-e", "crm", "--data", "hello"]).ends(2).says("--content-type");
    desk.lanes(&["publish", "bulk", "-e", "crm", "--data", "@missing"]).ends(1).says("missing");
    desk.lanes(&["publish", "bulk", "-e", "crm", "--delay", "5"]).ends(2).says("is not a duration");
    desk.lanes(&["publish", "bulk", "-e", "crm", "--not-before", "soon"]).ends(2).says("RFC 3339");
    desk.lanes(&["publish", "bulk", "-e", "crm", "--id", ""]).ends(2).says("job id");
    let big = format!("\"{}\"", "x".repeat(2 << 20));
    desk.lanes_with(&["publish", "bulk", "-e", "crm", "--data", "-"], &big).ends(1).says("max_message_bytes");
    let ran = desk.lanes(&["publish", "bluk", "-e", "crm", "--json"]).ends(1);
    let error: Value = serde_json::from_str(&ran.err).expect("an error as JSON");
    assert_eq!(error["error"]["exit_code"], 1);
    assert_eq!(ready(&desk, "bulk"), 0);
}

#[test]
fn an_unreachable_broker_and_store_are_named() {
    let desk = Desk::idle();
    let text = fs::read_to_string(desk.path("lanes.toml")).expect("written before");
    let servers = "[broker]\nurl = \"amqp://u:hidden@127.0.0.1:1/%2f\"\n[store]\nurl = \"postgres://u:hidden@127.0.0.1:1/lanes\"\n";
    desk.write("lanes.toml", &format!("{servers}{text}"));
    let ran = desk.lanes(&["publish", "bulk", "-e", "crm"]).ends(1).says("127.0.0.1:1");
    assert!(!ran.err.contains("hidden"), "a password is shown: {}", ran.err);
    let ran = desk.lanes(&["status", "--json"]).ends(3);
    let status = ran.json();
    assert_eq!((&status["broker"]["reachable"], &status["store"]["reachable"]), (&false.into(), &false.into()));
    assert_eq!(status["problems"].as_array().expect("problems").len(), 2);
    assert!(!ran.out.contains("hidden") && !ran.err.contains("hidden"), "a password is shown");
    desk.lanes(&["jobs", "list"]).ends(1).says("127.0.0.1:1");
    desk.lanes(&["migrate"]).ends(1).says("127.0.0.1:1");
}

#[test]
fn migrating_twice_is_harmless() {
    let desk = Desk::idle();
    desk.lanes(&["migrate"]).ends(0).shows("up to date");
    assert_eq!(desk.lanes(&["migrate", "--json"]).ends(0).json()["migrated"], true);
}

#[test]
fn processes_may_open_a_new_file_together() {
    let desk = Desk::idle();
    let publishers: Vec<Background> =
        (0..4).map(|_| Background::start(desk.command(&["publish", "bulk", "-e", "crm"]))).collect();
    for publisher in publishers {
        publisher.end().ends(0);
    }
    assert_eq!(ready(&desk, "bulk"), 4);
}

#[test]
fn a_lane_with_work_and_no_worker_is_unhealthy() {
    let desk = Desk::idle();
    desk.lanes(&["status"]).ends(0).shows("healthy");
    desk.lanes(&["publish", "bulk", "-e", "crm"]).ends(0);
    desk.lanes(&["status"]).ends(3).shows("lane bulk has 1 job and no live worker");
    let status = desk.lanes(&["status", "--json"]).ends(3).json();
    assert_eq!((&status["healthy"], &status["problems"][0]["kind"]), (&false.into(), &"no_worker".into()));
}

#[test]
fn a_job_is_followed_to_its_end_and_its_duplicate_is_recognised() {
    let desk = Desk::new(&endpoint());
    let worker = desk.worker();
    let publish = ["publish", "bulk", "-e", "crm", "--id", "a-1", "--data", "{}", "--wait", "--wait-timeout", PATIENCE];
    desk.lanes(&publish).ends(0).shows("ended: done");
    let json = desk.lanes(&[&publish[..], &["--json"]].concat()).ends(0).json();
    assert_eq!((&json["status"], &json["job"]["state"]), (&"duplicate".into(), &"done".into()));
    desk.lanes(&[&publish[..], &["--fail-on-duplicate"]].concat()).ends(6).shows("is a duplicate of");
    desk.lanes(&["status"]).ends(0).shows("alive");
    desk.lanes(&["jobs", "show", "a-1"]).ends(0).shows("succeeded");
    let listed = desk.lanes(&["jobs", "list", "--state", "done", "--lane", "bulk", "--json"]).ends(0).json();
    assert_eq!(listed.as_array().expect("an array").len(), 1);
    assert_eq!(listed[0]["id"], "a-1");
    desk.lanes(&["jobs", "cancel", "a-1", "--yes"]).ends(5);
    let handle = listed[0]["handle"].as_str().expect("a handle");
    desk.lanes(&["jobs", "cancel", handle, "--yes"]).ends(1).shows("had already ended: done");
    worker.signal("-TERM");
    worker.end().ends(0).says("stopping in order");
}

#[test]
fn a_dead_letter_is_shown_put_back_to_work_and_discarded() {
    let desk = Desk::idle();
    let worker = desk.worker();
    let publish =
        ["publish", "bulk", "-e", "crm", "--id", "a-1", "--data", r#"{"n":1}"#, "--wait", "--wait-timeout", PATIENCE];
    desk.lanes(&publish).ends(1).shows("dead letter (exhausted)");
    worker.signal("-TERM");
    worker.end().ends(0);
    desk.lanes(&["jobs", "show", "a-1"]).ends(0).shows("not_sent").shows("dead (exhausted)");
    let letters = desk.lanes(&["dead", "list", "--reason", "exhausted", "--json"]).ends(0).json();
    let handle = letters[0]["handle"].as_str().expect("a handle").to_owned();
    desk.lanes(&["dead", "show", &handle]).ends(0).shows("exhausted").shows(r#"{"n":1}"#);
    assert_eq!(desk.lanes(&["dead", "show", "a-1", "--json"]).ends(0).json()["body"]["text"], r#"{"n":1}"#);
    desk.lanes(&["dead", "retry", "--lane", "bulk"]).ends(2).says("to retry: 1 dead letter").says("--yes");
    desk.lanes(&["dead", "discard", &handle]).ends(2).says("no terminal");
    desk.lanes(&["dead", "retry"]).ends(2).says("--all");
    let planned = desk.lanes(&["dead", "retry", "--all", "--dry-run", "--json"]).ends(0).json();
    assert_eq!((&planned["planned"], &planned["done"]), (&1.into(), &0.into()));
    desk.lanes(&["dead", "retry", "--lane", "bulk", "--reason", "exhausted", "--yes"])
        .ends(0)
        .shows("put back to work: 1");
    let waiting = desk.lanes(&["jobs", "show", "a-1", "--json"]).ends(0).json();
    assert_eq!((&waiting["state"], &waiting["reason"]), (&"waiting".into(), &"replay".into()));
    desk.lanes(&["jobs", "retry", &handle, "--yes"]).ends(0).shows("a-1 is due already");
    desk.lanes(&["jobs", "retry", "00000000-0000-0000-0000-000000000001", "--yes"]).ends(5).says("no dead letter");
    desk.lanes(&["status"]).ends(3).shows("replay");
    desk.lanes(&["jobs", "cancel", "a-1"]).ends(2).says("--yes");
    desk.lanes(&["jobs", "cancel", "a-1", "--yes"]).ends(0).shows("cancelled");
    desk.lanes(&["dead", "discard", "--all", "--yes"]).ends(0).shows("discarded: 0");
    let target = format!("job {handle}");
    let lines = desk.lanes(&["audit", "--target", &target, "--json"]).ends(0).json();
    let told = ["action", "before", "after", "source"].map(|name| lines[0][name].as_str().expect("text"));
    assert_eq!(told, ["cancel", "waiting (replay)", "cancelled", "cli"]);
    assert_eq!(lines.as_array().expect("a list").len(), 1, "what changed nothing has no line: {lines:#}");
}

/// A message that never was a job, as a worker buries it.
fn raw_letter(body: &[u8]) -> RawLetter {
    let lane = LaneName::new("bulk").expect("valid");
    let message = Message {
        properties: Properties { message_id: Some("foreign".to_owned()), ..Properties::default() },
        headers: [("x-team".to_owned(), HeaderValue::Text("billing".to_owned()))].into(),
        body: Bytes::copy_from_slice(body),
    };
    RawLetter {
        letter: Letter {
            instance: wire::raw_instance(&lane, &message),
            lane,
            tenant: None,
            id: Some("foreign".to_owned()),
            endpoint: None,
            reason: DeadReason::UnknownEndpoint,
            detail: "no lanes-endpoint header".to_owned(),
            published_at: None,
            died_at: Timestamp::from_secs(1_700_000_000),
            attempts: 0,
            generation: 1,
            copies: 1,
            raw: true,
            body_bytes: body.len() as u64,
        },
        payload: Payload { meta: wire::pack_raw(&message), body: message.body },
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_never_was_a_job_is_published_again_as_it_was() {
    let desk = Desk::idle();
    let store = desk.store().await;
    let letters = [raw_letter(b"one"), raw_letter(&[0xff, 0xfe, 0x00])];
    store.bury(&letters).await.expect("buried");
    let handle = letters[1].letter.instance.to_string();
    desk.lanes(&["dead", "show", &handle]).ends(0).shows("billing").shows("fffe00");
    assert_eq!(desk.lanes(&["dead", "show", &handle, "--json"]).ends(0).json()["body"]["hex"], "fffe00");
    let unknown = Uuid::nil().to_string();
    desk.lanes(&["dead", "show", &unknown]).ends(5);
    desk.lanes(&["dead", "discard", &unknown, "--yes"]).ends(5);
    desk.lanes(&["dead", "retry", &handle, &unknown, "--yes"]).ends(7).shows("put back to work: 1, not found: 1");
    assert_eq!(ready(&desk, "bulk"), 1);
    assert_eq!(desk.lanes(&["dead", "list", "--json"]).json().as_array().expect("an array").len(), 1);
    let done = desk.lanes(&["dead", "discard", "--lane", "bulk", "--yes", "--json"]).ends(0).json();
    assert_eq!((&done["done"], &done["failed"]), (&1.into(), &0.into()));
    desk.lanes(&["dead", "list"]).ends(0).says("no dead letters match");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_matches_a_filter_is_an_operation_that_can_be_watched_and_cancelled() {
    let desk = Desk::idle();
    let store = desk.store().await;
    let letters: Vec<_> = (0..12).map(|nth: u8| raw_letter(&[nth])).collect();
    store.bury(&letters).await.expect("buried");
    let exported = desk.lanes(&["dead", "export", "--lane", "bulk"]).ends(0).says("12 dead letters written");
    let lines: Vec<Value> = exported.out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let mut bodies: Vec<&str> = lines.iter().map(|line| line["body"]["text"].as_str().expect("text")).collect();
    bodies.sort_unstable();
    assert_eq!((bodies.len(), bodies[11]), (12, "\u{b}"));
    desk.lanes(&["dead", "groups"]).ends(0).shows("unknown_endpoint").shows("12");
    assert_eq!(desk.lanes(&["dead", "groups", "--json"]).ends(0).json()[0]["letters"], 12);
    desk.lanes(&["ops", "list"]).ends(0).says("nobody has started any");
    desk.lanes(&["dead", "discard", "--lane", "bulk", "--pace", "0/1s", "--yes"]).ends(2).says("a pace is between");
    desk.lanes(&["dead", "discard", "--lane", "bulk", "--pace", "fast", "--yes"]).ends(2).says("write it like 50/1s");
    let planned = desk.lanes(&["dead", "retry", "--all", "--dry-run", "--json"]).ends(0).json();
    assert_eq!(
        (&planned["matched"], &planned["planned"], &planned["operation"]),
        (&12.into(), &12.into(), &Value::Null)
    );
    assert_eq!(planned["warnings"].as_array().expect("an array").len(), 1, "they never were jobs");
    let discard = ["dead", "discard", "--lane", "bulk", "--detach", "--note", "a test", "--author", "ada", "--json"];
    let begun = desk.lanes(&[&discard[..], &["--yes"]].concat()).ends(0).json();
    let handle = begun["operation"]["handle"].as_str().expect("a handle").to_owned();
    assert_eq!((&begun["planned"], &begun["operation"]["phase"]), (&12.into(), &"running".into()));
    desk.lanes(&["ops", "list"]).ends(0).shows("discard").shows("lane bulk").shows("running");
    let shown = desk.lanes(&["ops", "show", &handle]).ends(0);
    shown.shows("waits for a worker").shows("by ada (cli)").shows("a test");
    desk.lanes(&["ops", "cancel", &handle]).ends(0).shows("cancelled; discarded: 0");
    desk.lanes(&["ops", "cancel", &handle]).ends(1).says("had ended already: cancelled");
    assert_eq!(desk.lanes(&["ops", "watch", &handle, "--json"]).ends(0).json()["phase"], "cancelled");
    desk.lanes(&["audit"]).ends(0).shows("dead letters of lane bulk").shows("cancel_operation").shows("12 planned");
    desk.lanes(&["ops", "show", &Uuid::nil().to_string()]).ends(5).says("no operation has the handle");
    desk.lanes(&["jobs", "cancel", "--lane", "bulk", "--yes"]).ends(0).shows("cancelled: 0");
    desk.lanes(&["jobs", "cancel", "--lane", "bulk", "some-id", "--yes"]).ends(2);
    desk.lanes(&["jobs", "cancel"]).ends(2);
}

#[test]
fn what_is_not_there_is_not_found() {
    let desk = Desk::idle();
    desk.lanes(&["jobs", "show", "nothing"]).ends(5).says("no job has the handle or id");
    desk.lanes(&["jobs", "cancel", "nothing", "--yes"]).ends(5);
    desk.lanes(&["jobs", "list", "--state", "asleep"]).ends(2).says("waiting");
    assert_eq!(desk.lanes(&["jobs", "list", "--json"]).ends(0).json(), Value::Array(Vec::new()));
}

#[test]
fn good_lines_of_a_file_are_published_and_bad_ones_told() {
    let desk = Desk::idle();
    let text = format!("{}nonsense\n\n{{\"tenat\":\"x\"}}\n{}", jobs(1_200), jobs(3));
    desk.write("jobs.ndjson", &text);
    let from = ["publish", "bulk", "-e", "crm", "--from", "jobs.ndjson"];
    let dry = desk.lanes(&[&from[..], &["--dry-run", "--json"]].concat()).ends(7).json();
    assert_eq!((&dry["published"], &dry["bad_lines"], &dry["dry_run"]), (&1_203.into(), &2.into(), &true.into()));
    assert_eq!(ready(&desk, "bulk"), 0);
    let ran = desk
        .lanes(&from)
        .ends(7)
        .says("line 1201: is not JSON")
        .says("line 1203: unknown field `tenat`; did you mean `tenant`?");
    ran.shows("published 1,203 jobs").shows("2 bad lines");
    assert_eq!(ready(&desk, "bulk"), 1_203);
    assert!(!desk.path("jobs.ndjson.lanes-progress").exists());
    desk.write("bad.ndjson", "1\n2\n");
    let totals = desk.lanes(&["publish", "bulk", "-e", "crm", "--from", "bad.ndjson", "--json"]).ends(1).json();
    assert_eq!((&totals["bad"][1]["line"], &totals["complete"]), (&2.into(), &true.into()));
    desk.lanes(&["publish", "bulk", "-e", "crm", "--from", "missing.ndjson"]).ends(1).says("missing.ndjson");
    desk.lanes_with(&["publish", "bulk", "-e", "crm", "--from", "-"], &jobs(10)).ends(0).shows("published 10 jobs");
    desk.lanes(&["publish", "bulk", "-e", "crm", "--from", "-", "--resume"]).ends(2).says("stdin cannot be resumed");
    assert_eq!(ready(&desk, "bulk"), 1_213);
}

/// Publishes `jobs.ndjson` until the bad line in its third thousand is told, then sends a signal.
fn interrupted(desk: &Desk, signal: &str) -> Ran {
    let text = format!("{}nonsense\n{}", jobs(2_500), jobs(17_500));
    desk.write("jobs.ndjson", &text);
    let from = ["publish", "bulk", "-e", "crm", "--from", "jobs.ndjson", "--json"];
    let mut run = Background::start(desk.command(&from));
    run.until("line 2501");
    run.signal(signal);
    run.end()
}

fn resumed(desk: &Desk) -> (u64, u64) {
    let from = ["publish", "bulk", "-e", "crm", "--from", "jobs.ndjson", "--json"];
    desk.lanes(&from).ends(2).says("--resume").says("--restart");
    desk.lanes(&["publish", "realtime", "-e", "crm", "--from", "jobs.ndjson", "--resume"]).ends(2).says("lane bulk");
    let totals = desk.lanes(&[&from[..], &["--resume"]].concat()).json();
    assert_eq!(totals["complete"], true);
    assert!(!desk.path("jobs.ndjson.lanes-progress").exists());
    let number = |name: &str| totals[name].as_u64().expect("a number");
    assert_eq!(number("published_before") + number("published"), 20_000);
    (number("published_before"), number("published"))
}

#[test]
fn an_interrupted_file_goes_on_where_it_ended() {
    let desk = Desk::idle();
    let totals = interrupted(&desk, "-INT").ends(130).says("--resume").json();
    assert_eq!((&totals["complete"], &totals["resumable"]), (&false.into(), &true.into()));
    let (before, _) = resumed(&desk);
    assert_eq!(Some(before), totals["published"].as_u64());
    assert_eq!(ready(&desk, "bulk"), 20_000, "after a signal in order nothing is sent twice");
}

#[test]
fn a_killed_run_goes_on_at_the_last_confirmed_line() {
    let desk = Desk::idle();
    interrupted(&desk, "-KILL").ends(-1);
    let (before, _) = resumed(&desk);
    assert!(before >= 1_000, "the first batch was confirmed: {before}");
    // what was in flight is sent again, with the same ids
    assert!(ready(&desk, "bulk") >= 20_000);
}

#[test]
fn another_file_is_not_mistaken_for_the_interrupted_one() {
    let desk = Desk::idle();
    interrupted(&desk, "-INT").ends(130);
    desk.write("jobs.ndjson", &"{\"tenant\":\"other\"}\n".repeat(10_000));
    let from = ["publish", "bulk", "-e", "crm", "--from", "jobs.ndjson"];
    desk.lanes(&[&from[..], &["--resume"]].concat()).ends(2).says("is not the file").says("--restart");
    desk.write("jobs.ndjson", "{}\n");
    desk.lanes(&[&from[..], &["--restart"]].concat()).ends(0).shows("published 1 job");
    desk.write("jobs.ndjson.lanes-progress", "{");
    desk.lanes(&[&from[..], &["--resume"]].concat()).ends(2).says("cannot be understood");
}

#[test]
fn a_worker_ends_in_order_and_refuses_lanes_that_are_not_configured() {
    let desk = Desk::idle();
    desk.lanes(&["worker", "--lane", "bluk"]).ends(2).says("did you mean \"bulk\"?");
    desk.lanes(&["--log", "a=b=c", "worker"]).ends(2).says("log filter");
    let worker = desk.worker();
    worker.signal("-INT");
    worker.end().ends(0);
}

#[test]
fn a_closed_pipe_is_quiet_and_a_full_disk_is_not() {
    let desk = Desk::idle();
    let mut child =
        desk.command(&["config", "show"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
    drop(child.stdout.take());
    let ran = Ran::of(child.wait_with_output().expect("it ends")).ends(0);
    assert_eq!(ran.err, "");
    if let Ok(full) = fs::OpenOptions::new().write(true).open("/dev/full") {
        let ran = desk.command(&["config", "show"]).stdout(full).output().expect("starts");
        Ran::of(ran).ends(1).says("cannot write to standard output");
    }
}

#[test]
fn words_carry_no_colour_where_nobody_looks() {
    let desk = Desk::idle();
    desk.lanes(&["publish", "bulk", "-e", "crm"]).ends(0);
    for args in [&["status"][..], &["publish", "bluk", "-e", "crm"], &["jobs", "list"], &["--help"]] {
        let ran = desk.lanes(args);
        assert!(!ran.out.contains('\u{1b}') && !ran.err.contains('\u{1b}'), "{args:?}: {ran:?}");
    }
}
