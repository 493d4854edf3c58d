//! The tables that every installation has: broker, store, http, dedup, worker, retention, log.

use std::time::Duration;

use url::Url;

use super::reader::{Fault, Reader};
use super::secret::{self, Secret};
use super::specs::{BrokerSpec, LogFormat, LogSpec, RetentionSpec, StoreSpec, WorkerSpec};
use super::value::{Size, Word, duration, integer, size, some_text, word};

const MIB: u64 = 1 << 20;
const DAY: Duration = Duration::from_hours(24);
/// A lease has to outlast a few heartbeats on a busy machine.
const LEASE_MIN: Duration = Duration::from_secs(3);
const SQLITE_URL: &str = "sqlite:lanes.db";

/// `[broker]` and `[store]`, which have to fit together.
pub fn queues(root: &Reader<'_>) -> (BrokerSpec, StoreSpec) {
    let read = |table: &Reader<'_>, check: fn(&str) -> Result<(), Fault>| {
        let default = Secret { shown: SQLITE_URL.to_owned(), value: SQLITE_URL.into() };
        table.get_or("url", default, secret::url(table.session, check))
    };
    let broker = root.table("broker", |table| read(table, check_broker_url));
    let store = root.table("store", |table| {
        let store = read(table, check_store_url);
        match (scheme(broker.expose()), scheme(store.expose())) {
            ("memory", _) => {
                table.warn(
                    "url",
                    "outlives the broker, which keeps its jobs in memory: they are lost when the process ends",
                );
            }
            ("amqp" | "amqps", "sqlite") => {
                table.warn(
                    "url",
                    "is a file: workers on other machines would not share it, use PostgreSQL for more than one",
                );
            }
            _ => {}
        }
        store
    });
    (BrokerSpec { url: broker.value }, StoreSpec { url: store.value })
}

fn scheme(url: &str) -> &str {
    url.split(':').next().unwrap_or_default()
}

fn check_broker_url(url: &str) -> Result<(), Fault> {
    match scheme(url) {
        "sqlite" => check_sqlite_url(url),
        "memory" => Ok(()),
        "amqp" | "amqps" => {
            let parsed = check_server_url(url)?;
            match parsed.path() {
                "/" | "//" => {
                    Err(Fault::new("the virtual host is empty").help("end the url with /%2f for the default one"))
                }
                _ => Ok(()),
            }
        }
        _ => Err(unknown_scheme("a broker", "sqlite:PATH, amqp://HOST/VHOST, amqps://HOST/VHOST")),
    }
}

fn check_store_url(url: &str) -> Result<(), Fault> {
    match scheme(url) {
        "sqlite" => check_sqlite_url(url),
        "postgres" | "postgresql" => check_server_url(url).map(|_| ()),
        _ => Err(unknown_scheme("a store", "sqlite:PATH, postgres://USER@HOST/DATABASE")),
    }
}

fn unknown_scheme(what: &str, known: &str) -> Fault {
    Fault::new(format!("is not the url of {what}")).help(format!("it begins with one of: {known}"))
}

fn check_sqlite_url(url: &str) -> Result<(), Fault> {
    let path = url.trim_start_matches("sqlite:").trim_start_matches("//");
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    match path {
        "" => Err(Fault::new("names no file").help(format!("did you mean {SQLITE_URL:?}?"))),
        ":memory:" => Err(Fault::new("a database in memory keeps nothing and can't be shared").help("name a file")),
        _ if query.contains("mode=memory") => {
            Err(Fault::new("a database in memory can't be shared").help("name a file"))
        }
        _ => Ok(()),
    }
}

fn check_server_url(url: &str) -> Result<Url, Fault> {
    let parsed = Url::parse(url).map_err(|error| Fault::new(format!("is not a url: {error}")))?;
    if parsed.host_str().is_none_or(str::is_empty) {
        return Err(Fault::new("names no host"));
    }
    Ok(parsed)
}

/// `[dedup]` and `[retention]`
pub fn windows(root: &Reader<'_>) -> (Duration, RetentionSpec) {
    let window = root.table("dedup", |table| {
        table.get_or("window", Duration::from_mins(10), duration(Duration::from_secs(1)..=7 * DAY))
    });
    let retention = root.table("retention", |table| {
        let range = || duration(Duration::from_secs(1)..=3_650 * DAY);
        let done_cap = table.get_or("done_cap", 7 * DAY, range());
        if done_cap < window {
            let help = "rows that are gone find no duplicates: keep them at least as long";
            table.problem("done_cap", "is shorter than dedup.window", Some(help));
        }
        RetentionSpec { done_cap, letters: table.get_or("letters", 30 * DAY, range()) }
    });
    (window, retention)
}

/// `[worker]`
pub fn worker(root: &Reader<'_>) -> WorkerSpec {
    root.table("worker", |table| WorkerSpec {
        lease: table.get_or("lease", Duration::from_secs(15), duration(LEASE_MIN..=Duration::from_mins(10))),
        drain_timeout: table.get_or(
            "drain_timeout",
            Duration::from_secs(25),
            duration(Duration::ZERO..=Duration::from_hours(1)),
        ),
        poison_after: table.get_or("poison_after", 3, integer(1..=100)),
        // RabbitMQ 4 refuses messages of more than 16 MiB
        max_message_bytes: table.get_or("max_message_bytes", Size(MIB), size(1024..=16 * MIB)).0,
    })
}

/// `[log]`
pub fn log(root: &Reader<'_>) -> LogSpec {
    const FORMATS: &[(&str, LogFormat)] = &[("text", LogFormat::Text), ("json", LogFormat::Json)];
    root.table("log", |table| LogSpec {
        format: table.get_or("format", Word { word: "text", value: LogFormat::Text }, word(FORMATS)).value,
        level: table.get_or("level", "info".to_owned(), some_text),
    })
}
