//! The map of the house as a test: which room may name which, and what may stand in one place only.
//!
//! ARCHITECTURE.md shows the same table to people; a new edge is a commit of its own that changes both and says why.

mod source;

use std::fs;
use std::path::{Path, PathBuf};

use source::{Source, words};

/// Each room, and the rooms it may name. `main`, `lib` and `app` stand below.
const ROOMS: &[(&str, &[&str])] = &[
    ("clock", &[]),
    ("message", &[]),
    ("job", &["clock", "message"]),
    ("policy", &["job", "clock"]),
    ("config", &["policy", "job", "clock"]),
    ("db", &["clock"]),
    ("broker", &["clock", "message", "db"]),
    ("store", &["clock", "job", "db"]),
    ("plan", &["policy", "store", "job", "clock"]),
    ("governor", &["store", "policy", "job", "clock"]),
    ("observe", &["governor", "broker", "store", "policy", "job", "clock"]),
    ("dispatch", &["job", "clock"]),
    ("telemetry", &["job", "clock"]),
    ("publish", &["broker", "message", "job", "telemetry", "clock"]),
    ("engine", &["broker", "store", "governor", "dispatch", "policy", "telemetry", "job", "message", "clock"]),
    ("notices", &["observe", "store", "dispatch", "policy", "telemetry", "job", "clock"]),
    ("http", &["store", "telemetry", "job", "clock"]),
    ("dash", &["governor", "observe", "store", "policy", "job", "clock"]),
    ("testing", &["broker", "store", "dispatch", "message", "job", "clock"]),
    (
        "cli",
        &[
            "app",
            "config",
            "publish",
            "engine",
            "governor",
            "observe",
            "plan",
            "http",
            "dash",
            "telemetry",
            "broker",
            "store",
            "job",
            "clock",
        ],
    ),
    ("main", &["cli"]),
];
/// Where everything is put together: it may name every room but these.
const APP_NEVER: &[&str] = &["cli", "main", "testing"];
/// The backends behind the seams, which only `app` may choose between (and `testing` may hand to users' tests).
const BACKENDS: &[&str] = &[
    "broker::rabbitmq",
    "broker::sqlite",
    "broker::memory",
    "store::postgres",
    "store::sqlite",
    "dispatch::http",
    "dispatch::handler",
];
/// What `plan` may name of `store`: the arithmetic of tokens and of slots, and the words in which slots are asked for.
const PLAN_OF_STORE: &[&str] = &["store::gcra", "store::slots", "store::Holder", "store::SlotAsk", "store::WorkerId"];
const LINES_MAX: usize = 400;
const FUNCTION_LINES_MAX: u64 = 70;
/// Files that were longer when the limit came: they may only shrink, and leave this list when they fit.
const LONGER: &[(&str, usize)] = &[];

/// What may be written in some places only.
struct Only {
    what: &'static [&'static str],
    places: &'static [&'static str],
    why: &'static str,
}

const IN_CODE: &[Only] = &[
    Only { what: &["lapin"], places: &["src/broker/rabbitmq"], why: "one backend knows the client library" },
    Only {
        what: &["sqlx"],
        places: &[
            "src/db",
            "src/broker/sqlite",
            "src/store/postgres",
            "src/store/sqlite",
            "src/store/record", // rows as types, and
            "src/store/letter", // letters and journal, and
            "src/store/fault",  // what goes wrong with them: shared by both backends
        ],
        why: "SQL lives in db and in the backends",
    },
    Only {
        what: &["println!", "eprintln!", "print!", "eprint!"],
        places: &["src/cli"],
        why: "only cli prints; others record events or return values",
    },
    Only {
        what: &["ack("],
        places: &["src/broker", "src/engine/settle"],
        why: "deliveries are acked in one place (the law of settling)",
    },
    Only {
        what: &["std::fs", "fs::", "tokio::fs", "File::open", "std::env", "env::var", "env::vars"],
        places: &["src/config", "src/cli"],
        why: "config is the border: files and environment are read there",
    },
    Only {
        what: &[
            "SystemTime::now",
            "Instant::now",
            "tokio::time",
            "thread::sleep",
            "Timestamp::now",
            "Zoned::now",
            "Utc::now",
            "Uuid::now_v7",
        ],
        places: &["src/clock"],
        why: "time comes in as `now` or from the Clock",
    },
    Only { what: &["dbg!"], places: &[], why: "a debugging aid" },
];

const IN_STRINGS: &[Only] = &[
    Only { what: &["lanes_"], places: &["src/telemetry"], why: "metric names exist in telemetry only" },
    Only {
        what: &["now()", "clock_timestamp()", "current_timestamp", "unixepoch(", "strftime(", "julianday("],
        places: &["src/store/postgres/readings", "src/store/sqlite/readings"],
        why: "SQL reads no clock: `now` is bound (the store's own time is a reading)",
    },
];

/// Rules about the rooms that a source file names.
fn naming(source: &Source) -> Vec<String> {
    let room = source.room();
    if room == "lib" {
        return Vec::new();
    }
    let Some(allowed) = allowed(room) else {
        return vec![format!(
            "{}: no room {room} in the table of tests/it/arch.rs: add it with what it may name",
            source.path
        )];
    };
    let mut problems = Vec::new();
    for path in source.crate_paths() {
        let named = path.split("::").next().unwrap_or_default();
        if matches!(named, "self" | "*" | "") || named == room {
            continue;
        }
        if !is_room(named) {
            problems
                .push(format!("{} names crate::{path}: {named} is no room; name the room it lives in", source.path));
        } else if !allowed.contains(&named) {
            let list = if allowed.is_empty() { "no other room".to_owned() } else { allowed.join(", ") };
            problems.push(format!("{} names {named}: room {room} may only name {list}", source.path));
        }
        if matches!(room, "policy" | "plan") && named == "clock" && path != "clock::Timestamp" {
            problems.push(format!(
                "{} names {path}: {room} knows moments, not clocks (clock::Timestamp only)",
                source.path
            ));
        }
        if room == "plan" && named == "store" && !PLAN_OF_STORE.iter().any(|part| path.starts_with(part)) {
            problems.push(format!("{} names {path}: plan names the store's arithmetic only", source.path));
        }
    }
    if !matches!(room, "app" | "testing") {
        for backend in BACKENDS.iter().filter(|backend| !backend.starts_with(room)) {
            let named = source.crate_paths().iter().any(|path| path.starts_with(backend));
            if named || !words(&source.code, backend).is_empty() {
                problems.push(format!("{} names {backend}: only app chooses a backend", source.path));
            }
        }
    }
    problems
}

fn is_room(name: &str) -> bool {
    name == "app" || ROOMS.iter().any(|(room, _)| *room == name)
}

/// What `room` may name; `None` when there is no such room.
fn allowed(room: &str) -> Option<Vec<&'static str>> {
    if room == "app" {
        return Some(ROOMS.iter().map(|(name, _)| *name).filter(|name| !APP_NEVER.contains(name)).collect());
    }
    ROOMS.iter().find(|(name, _)| *name == room).map(|(_, names)| names.to_vec())
}

/// Rules about what stands in one place only.
fn places(source: &Source) -> Vec<String> {
    let mut problems = Vec::new();
    let mut check = |only: &Only, found: &dyn Fn(&str) -> bool| {
        for what in only.what.iter().filter(|what| found(what)) {
            if !only.places.iter().any(|place| source.path.starts_with(place)) {
                let list = if only.places.is_empty() { "nowhere".to_owned() } else { only.places.join(", ") };
                problems.push(format!("{}: `{what}` belongs in {list}: {}", source.path, only.why));
            }
        }
    };
    // `use std::{env, fs}` hides what `std::env` would show
    let written_out: Vec<String> =
        ["std", "tokio", "jiff"].iter().flat_map(|root| source.paths_from(root, &format!("{root}::"))).collect();
    for only in IN_CODE {
        check(only, &|what| has(&source.code, what) || written_out.iter().any(|path| has(path, what)));
    }
    check(&IN_STRINGS[0], &|what| source.strings.iter().any(|text| text.starts_with(what)));
    if ["src/db", "src/store", "src/broker"].iter().any(|place| source.path.starts_with(place)) {
        check(&IN_STRINGS[1], &|what| source.strings.iter().any(|text| text.to_lowercase().contains(what)));
    }
    if source.path != "src/policy/backoff.rs" && names_crate_backoff(source) {
        problems.push(format!("{}: the backoff crate is named in src/policy/backoff.rs only", source.path));
    }
    problems
}

/// Whether `what` stands in `code` with no letter, digit or underscore before its beginning or after its end.
fn has(code: &str, what: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    let open = what.ends_with(part);
    code.match_indices(what)
        .any(|(at, _)| !(code[..at].ends_with(part) || open && code[at + what.len()..].starts_with(part)))
}

/// The crate and the module `policy::backoff` share a name: a bare `backoff::` is the module only where that is in scope.
fn names_crate_backoff(source: &Source) -> bool {
    let code = &source.code;
    let module_in_scope = words(code, "backoff").iter().any(|at| code[..*at].ends_with("mod "))
        || source.crate_paths().iter().any(|path| path == "policy::backoff");
    has(code, "ExponentialBackoff")
        || words(code, "backoff").into_iter().any(|at| {
            let before = code[..at].trim_end();
            let root =
                before.strip_suffix("::").is_some_and(|b| !b.ends_with(|c: char| c.is_alphanumeric() || c == '_'));
            let bare = !before.ends_with("::") && code[at..].starts_with("backoff::") && !before.ends_with("use");
            root || before.ends_with("use") || (bare && !module_in_scope && !in_use_tree(code, at))
        })
}

/// Whether the word at `at` is an entry of a `{..}` list of a `use`.
fn in_use_tree(code: &str, at: usize) -> bool {
    let statement = &code[code[..at].rfind(';').map_or(0, |end| end + 1)..at];
    statement.trim_start().trim_start_matches("pub ").starts_with("use ")
}

/// Rules about the form of a file.
fn form(source: &Source) -> Vec<String> {
    let mut problems = Vec::new();
    let path = &source.path;
    if !source.text.starts_with("//! ") {
        problems.push(format!("{path}: the first line is no `//! ` sentence that names the file's one job"));
    }
    if path.starts_with("src/") {
        let (lines, limit) = (source.lines_without_tests(), line_limit(path));
        if lines > limit {
            problems.push(format!("{path}: {lines} lines before its tests, at most {limit}: split it by job"));
        }
    }
    for mark in unfinished() {
        if has(&source.text, &mark) {
            problems.push(format!("{path}: `{mark}`: finish it or take it out"));
        }
    }
    if path.starts_with("tests/") && path != "tests/it/services.rs" {
        for sleep in ["sleep(", "sleep_until("] {
            if has(&source.code, sleep) {
                problems.push(format!("{path}: `{sleep}`: tests wait for the event, or move a ManualClock"));
            }
        }
    }
    problems
}

fn line_limit(path: &str) -> usize {
    LONGER.iter().find(|(long, _)| *long == path).map_or(LINES_MAX, |(_, lines)| *lines)
}

/// Marks of unfinished work, put together here so that this file does not hold them.
fn unfinished() -> Vec<String> {
    [("todo", "!"), ("unimplemented", "!"), ("#[ign", "ore"), ("TO", "DO"), ("FIX", "ME"), ("X", "XX")]
        .map(|(a, b)| format!("{a}{b}"))
        .to_vec()
}

fn problems(source: &Source) -> Vec<String> {
    let mut problems = form(source);
    if source.path.starts_with("src/") {
        problems.extend(naming(source));
        problems.extend(places(source));
    }
    problems.sort();
    problems.dedup();
    problems
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All Rust files below `dir`, from the repository's root.
fn sources(dir: &str) -> Vec<Source> {
    let mut dirs = vec![root().join(dir)];
    let mut files: Vec<PathBuf> = Vec::new();
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display())) {
            let path = entry.expect("a directory entry").path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    let name = |path: &Path| path.strip_prefix(root()).expect("below the root").to_string_lossy().into_owned();
    files.iter().map(|path| Source::new(&name(path), &read(path))).collect()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn every_file_keeps_to_the_map() {
    let all: Vec<Source> = sources("src").into_iter().chain(sources("tests")).collect();
    assert!(all.len() > 20, "the map was held against {} files only", all.len());
    let problems: Vec<String> = all.iter().flat_map(problems).collect();
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}

#[test]
fn long_files_only_shrink() {
    for (path, lines) in LONGER {
        let now = Source::new(path, &read(&root().join(path))).lines_without_tests();
        assert!(now > LINES_MAX, "{path} has {now} lines now: take it off the list in tests/it/arch.rs");
        assert!(now <= *lines, "{path} has grown from {lines} to {now} lines");
    }
}

#[test]
fn rooms_do_not_depend_on_each_other_in_a_circle() {
    for (at, (room, names)) in ROOMS.iter().enumerate() {
        for name in *names {
            let position = ROOMS.iter().position(|(other, _)| other == name);
            assert!(*name == "app" || position.is_some_and(|p| p < at), "{room} names {name}, which stands after it");
        }
    }
}

#[test]
fn architecture_md_shows_the_same_table() {
    let text = read(&root().join("ARCHITECTURE.md"));
    for (room, names) in ROOMS.iter().filter(|(room, _)| *room != "main") {
        let start = format!("| {room} | ");
        let row = text.lines().find_map(|line| line.strip_prefix(&start));
        let row = row.unwrap_or_else(|| panic!("ARCHITECTURE.md has no row for room {room} in \"Who may name whom\""));
        let cell = row.split(" |").next().unwrap_or_default();
        let list = if names.is_empty() { "-".to_owned() } else { names.join(", ") };
        assert_eq!(cell, list, "ARCHITECTURE.md and tests/it/arch.rs differ about what {room} may name");
    }
}

#[test]
fn functions_are_held_to_their_length_by_clippy() {
    let table = |name: &str| read(&root().join(name)).parse::<toml::Table>().unwrap_or_else(|e| panic!("{name}: {e}"));
    let threshold = table("clippy.toml")["too-many-lines-threshold"].as_integer().expect("a number");
    assert_eq!(u64::try_from(threshold), Ok(FUNCTION_LINES_MAX), "clippy.toml");
    let lint = table("Cargo.toml")["lints"]["clippy"]["too_many_lines"].as_str().map(str::to_owned);
    assert!(matches!(lint.as_deref(), Some("warn" | "deny")), "Cargo.toml: clippy::too_many_lines is {lint:?}");
    let command = "cargo clippy --all-targets --locked -- -D warnings";
    assert!(read(&root().join("scripts/test")).contains(command), "scripts/test does not run {command}");
}

#[test]
fn the_map_catches_what_it_is_there_for() {
    let bad = [
        ("src/engine/lane.rs", "use crate::config::Config;", "names config: room engine may only name broker"),
        ("src/engine/lane.rs", "use crate::{\n  job::Job,\n  config::{self, Load as L},\n};", "names config"),
        ("src/engine/mod.rs", "use super::config::Config;", "names config"),
        ("src/engine/lane/x.rs", "type A = super::super::super::config::Config;", "names config"),
        ("src/engine/lane.rs", "use crate::broker::rabbitmq::Rabbit;", "only app chooses a backend"),
        ("src/engine/lane.rs", "use crate::broker; fn f(b: broker::memory::Memory) {}", "only app chooses a backend"),
        ("src/policy/pacing.rs", "use crate::clock::{Clock, Timestamp};", "clock::Timestamp only"),
        ("src/policy/pacing.rs", "fn f() { crate::clock::sleep(); }", "clock::Timestamp only"),
        ("src/store/postgres/jobs.rs", "use crate::policy::backoff;", "names policy"),
        ("src/plan/run.rs", "use crate::store::{Store, gcra};", "the store's arithmetic only"),
        ("src/plan/run.rs", "use crate::clock::Clock;", "clock::Timestamp only"),
        ("src/job/mod.rs", "use crate::Thing;", "Thing is no room"),
        ("src/attic/mod.rs", "", "no room attic"),
        ("src/main.rs", "fn main() { lanes::engine::run() }", "names engine"),
        ("src/engine/lane.rs", "use lapin::Channel;", "`lapin` belongs in"),
        ("src/telemetry/mod.rs", "fn f() { sqlx::query(\"x\") }", "`sqlx` belongs in"),
        ("src/engine/retry.rs", "use backoff::ExponentialBackoff;", "the backoff crate"),
        ("src/engine/retry.rs", "fn f() { backoff::future::retry() }", "the backoff crate"),
        ("src/policy/mod.rs", "mod backoff; fn f() { ::backoff::retry() }", "the backoff crate"),
        ("src/engine/lane.rs", "fn f() { println!(\"x\") }", "only cli prints"),
        ("src/engine/lane.rs", "async fn f() { broker::ack(receipts).await }", "the law of settling"),
        ("src/engine/lane.rs", "async fn f() { session.ack(tags).await }", "the law of settling"),
        ("src/engine/lane.rs", "fn f() { counter!(\"lanes_jobs_total\") }", "metric names"),
        ("src/app.rs", "fn f() { std::env::var(\"X\") }", "config is the border"),
        ("src/http/mod.rs", "use std::{env, fs};", "config is the border"),
        ("src/engine/lane.rs", "fn f() { Instant::now() }", "from the Clock"),
        ("src/engine/lane.rs", "use tokio::{sync, time};", "from the Clock"),
        ("src/store/sqlite/jobs.rs", "const A: &str = r#\"WHERE at < NOW()\"#;", "SQL reads no clock"),
        ("src/job/mod.rs", "// TO\u{44}O: later", "finish it"),
        ("tests/it/flow.rs", "async fn f() { clock::sleep(d).await }", "wait for the event"),
    ];
    for (path, code, expected) in bad {
        let found = problems(&Source::new(path, &format!("//! A room.\n{code}\n")));
        assert!(
            found.iter().any(|problem| problem.contains(expected)),
            "{path}: {code}\nwanted {expected:?}, got {found:?}"
        );
    }
    let headless = problems(&Source::new("src/job/mod.rs", "use std::fmt;\n"));
    assert!(headless.iter().any(|problem| problem.contains("no `//! ` sentence")), "{headless:?}");
    let long = format!("//! A room.\n{}", "const A: u8 = 1;\n".repeat(LINES_MAX));
    let long = problems(&Source::new("src/job/mod.rs", &long));
    assert!(long.iter().any(|problem| problem.contains("401 lines before its tests")), "{long:?}");
}

#[test]
fn the_map_lets_good_code_pass() {
    let good = [
        ("src/engine/settle.rs", "async fn f() { broker::ack(receipts).await }"),
        (
            "src/engine/lane.rs",
            "// use crate::config;\n/* lapin::x /* nested */ sqlx */ use crate::broker::{Broker, Delivery};",
        ),
        (
            "src/engine/lane.rs",
            "const A: &str = \"use crate::config;\"; fn f<'a>(x: &'a str) { g('\"', '\\'', b\"lapin\") }",
        ),
        ("src/engine/lane.rs", "use super::settle::Settler; use super::{lane, settle};"),
        ("src/engine/lane.rs", "fn back() {}\n#[cfg(test)]\nmod tests {\n  use crate::broker::memory::Memory;\n}\n"),
        ("src/engine/lane.rs", "#[cfg(test)]\nuse crate::config::X;\nfn pack(a: u8) { unpack(a); track(a) }"),
        (
            "src/policy/mod.rs",
            "pub mod backoff;\npub mod pacing;\npub use self::backoff::delay; fn f() { backoff::delay() }",
        ),
        ("src/policy/classify.rs", "use super::backoff::{self, Delay}; fn f() { backoff::delay() }"),
        ("src/engine/retry.rs", "use crate::policy::{backoff, pacing}; fn f() { backoff::delay(pacing::x()) }"),
        ("src/app.rs", "use crate::broker::{memory::Memory, rabbitmq::Rabbit}; use crate::store::postgres;"),
        ("src/main.rs", "fn main() -> ExitCode { lanes::cli::run() }"),
        ("src/broker/sqlite.rs", "use super::{Broker, memory}; use crate::db; fn f() { sqlx::query(\"DELETE\") }"),
        ("tests/it/flow.rs", "const NOTE: &str = \"no sleep(1) here\"; use lanes::app;"),
    ];
    for (path, code) in good {
        let found = problems(&Source::new(path, &format!("//! A room.\n{code}\n")));
        assert!(found.is_empty(), "{path}: {code}\n{found:?}");
    }
}
