//! lanes.toml and the environment: what is understood, and what a person is told when it is not.

mod access;
mod budgets;
mod items;
mod notify;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::Duration;

use lanes::config::{self, DEFAULT_FILE, Loaded, Problems};
use lanes::policy::backoff::RetryPolicy;
use lanes::policy::classify::{EndpointRules, StatusRange};
use proptest::prelude::*;
use secrecy::ExposeSecret;

type Env<'a> = &'a [(&'a str, &'a str)];

fn read(text: &str, env: Env<'_>) -> Result<Loaded, Problems> {
    let env = env.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
    config::read("lanes.toml", text, &env, &secret_files)
}

fn secret_files(path: &Path) -> io::Result<String> {
    match path.to_str() {
        Some("/run/secrets/crm") => Ok("s3cret\n".to_owned()),
        _ => Err(io::Error::new(io::ErrorKind::NotFound, "no such file")),
    }
}

/// What is wrong with `text` as it is printed.
#[track_caller]
fn check_env(text: &str, env: Env<'_>, expect: &str) {
    let problems = read(text, env).expect_err("must be refused");
    let text = problems.to_string();
    assert_eq!(text.trim(), expect.trim(), "\n--- found\n{text}\n---");
}

#[track_caller]
fn check(text: &str, expect: &str) {
    check_env(text, &[], expect);
}

#[test]
fn unknown_keys_are_refused_with_what_was_meant() {
    check(
        r"[lanes.bulk]
concurency = 8
x = 1
",
        r#"
lanes.toml:2:1: lanes.bulk.concurency is not a setting
  |
2 | concurency = 8
  | ^^^^^^^^^^
  = help: did you mean "concurrency"?

lanes.toml:3:1: lanes.bulk.x is not a setting
  |
3 | x = 1
  | ^
  = help: known here: concurrency, prefetch, reserve, mode, global_concurrency, default_endpoint, retry

2 problems in the configuration
"#,
    );
    check(
        r"[lanes.bulk]
[lanes.bulk.retry]
max_attempt = 3
[brokers]
",
        r#"
lanes.toml:3:1: lanes.bulk.retry.max_attempt is not a setting
  |
3 | max_attempt = 3
  | ^^^^^^^^^^^
  = help: did you mean "max_attempts"?

lanes.toml:4:2: brokers is not a setting
  |
4 | [brokers]
  |  ^^^^^^^
  = help: did you mean "broker"?

2 problems in the configuration
"#,
    );
}

#[test]
fn a_number_is_not_text() {
    check(
        r#"[lanes.bulk]
concurrency = "8"
"#,
        r#"
lanes.toml:2:15: lanes.bulk.concurrency: expected a whole number, found "8"
  |
2 | concurrency = "8"
  |               ^^^
  = help: write it without quotes

1 problem in the configuration
"#,
    );
}

#[test]
fn numbers_have_a_range() {
    check(
        r"[lanes.bulk]
concurrency = 0
prefetch = 99999999999999999999
",
        r"
lanes.toml:2:15: lanes.bulk.concurrency: must be 1 to 10000, is 0
  |
2 | concurrency = 0
  |               ^

lanes.toml:3:12: lanes.bulk.prefetch: must be 1 to 65535
  |
3 | prefetch = 99999999999999999999
  |            ^^^^^^^^^^^^^^^^^^^^

2 problems in the configuration
",
    );
}

#[test]
fn a_lane_is_a_table() {
    check(
        r"[lanes]
bulk = 3
",
        r"
lanes.toml:2:8: lanes.bulk: expected a table, found a whole number
  |
2 | bulk = 3
  |        ^

1 problem in the configuration
",
    );
}

#[test]
fn lanes_are_tables() {
    check(
        r"lanes = 3
",
        r"
lanes.toml:1:9: lanes: expected a table, found a whole number
  |
1 | lanes = 3
  |         ^

lanes.toml:1:9: lanes: there is no lane, so there is nothing to do
  |
1 | lanes = 3
  |         ^
  = help: add a table [lanes.bulk]

2 problems in the configuration
",
    );
}

#[test]
fn every_problem_is_told_at_once() {
    check(
        r#"[lanes.a]
[http]
listen = "localhost:9464"
enabled = "true"
[worker]
lease = "1s"
max_message_bytes = 100
[dedup]
window = "8d"
"#,
        r#"
lanes.toml:3:10: http.listen: "localhost:9464" is not an address and port
  |
3 | listen = "localhost:9464"
  |          ^^^^^^^^^^^^^^^^
  = help: did you mean "127.0.0.1:9464"?

lanes.toml:4:11: http.enabled: expected true or false, found "true"
  |
4 | enabled = "true"
  |           ^^^^^^
  = help: write it without quotes

lanes.toml:6:9: worker.lease: must be 3s to 10m, is 1s
  |
6 | lease = "1s"
  |         ^^^^

lanes.toml:7:21: worker.max_message_bytes: a size needs a unit
  |
7 | max_message_bytes = 100
  |                     ^^^
  = help: did you mean "100B"? units are B, KiB, MiB, GiB

lanes.toml:9:10: dedup.window: must be 1s to 7d, is 8d
  |
9 | window = "8d"
  |          ^^^^

5 problems in the configuration
"#,
    );
}

#[test]
fn the_caret_stands_under_its_text_after_tabs() {
    check(
        r"	[lanes.a]
	concurrency	= 0 # tabs
",
        r"
lanes.toml:2:16: lanes.a.concurrency: must be 1 to 10000, is 0
  |
2 | 	concurrency	= 0 # tabs
  | 	           	  ^

1 problem in the configuration
",
    );
}

#[test]
fn text_that_is_not_toml_is_shown_without_what_may_be_secret() {
    check(
        r"[lanes.bulk
concurrency = 8
",
        r"
lanes.toml:1:12: unclosed table, expected `]`
  |
1 | [lanes.bulk
  |            ^

1 problem in the configuration
",
    );
    check(
        r"[broker]
url = 'amqp://guest:hunter2@host
[lanes.bulk]
concurrency = 8
concurrency = 9
",
        r"
lanes.toml:2:33: invalid literal string, expected `'`
  |
2 | url = '*************************
  |                                 ^

lanes.toml:5:1: duplicate key
  |
5 | concurrency = 9
  | ^^^^^^^^^^^

2 problems in the configuration
",
    );
}

#[test]
fn durations_need_a_unit() {
    check(
        r#"[lanes.bulk.retry]
first_delay = 10
max_delay = "20"
max_retry_after = "3min"
"#,
        r#"
lanes.toml:2:15: lanes.bulk.retry.first_delay: a duration needs a unit
  |
2 | first_delay = 10
  |               ^^
  = help: did you mean "10s"? units are ms, s, m, h, d

lanes.toml:3:13: lanes.bulk.retry.max_delay: a duration needs a unit
  |
3 | max_delay = "20"
  |             ^^^^
  = help: did you mean "20s"? units are ms, s, m, h, d

lanes.toml:4:19: lanes.bulk.retry.max_retry_after: "min" is not a unit of time
  |
4 | max_retry_after = "3min"
  |                   ^^^^^^
  = help: did you mean "3m"?

3 problems in the configuration
"#,
    );
    check(
        r#"[worker]
lease = "soon"
drain_timeout = 1979-05-27
[lanes.a]
"#,
        r#"
lanes.toml:2:9: worker.lease: "soon" is not a duration
  |
2 | lease = "soon"
  |         ^^^^^^
  = help: write it like "10s" or "1m30s"

lanes.toml:3:17: worker.drain_timeout: expected a duration like "10s", found a date
  |
3 | drain_timeout = 1979-05-27
  |                 ^^^^^^^^^^

2 problems in the configuration
"#,
    );
}

#[test]
fn the_first_delay_is_not_longer_than_the_last() {
    check(
        r#"[lanes.bulk.retry]
first_delay = "20m"
[lanes.b.retry]
max_delay = "1m"
"#,
        r#"
lanes.toml:2:15: lanes.bulk.retry.first_delay: is longer than max_delay, which is 16m
  |
2 | first_delay = "20m"
  |               ^^^^^
  = help: doubling starts at first_delay and ends at max_delay

lanes.toml:4:13: lanes.b.retry.max_delay: is shorter than first_delay, which is 2m
  |
4 | max_delay = "1m"
  |             ^^^^
  = help: doubling starts at first_delay and ends at max_delay

2 problems in the configuration
"#,
    );
}

#[test]
fn a_lane_fits_its_prefetch_and_its_endpoint() {
    check(
        r#"[lanes.bulk]
concurrency = 50
prefetch = 10
default_endpoint = "crn"
[endpoints.crm]
url = "http://x"
"#,
        r#"
lanes.toml:3:12: lanes.bulk.prefetch: is 10, less than concurrency, which is 50: calls would never be that many
  |
3 | prefetch = 10
  |            ^^
  = help: remove it, or make it larger

lanes.toml:4:20: lanes.bulk.default_endpoint: there is no endpoint "crn"
  |
4 | default_endpoint = "crn"
  |                    ^^^^^
  = help: did you mean "crm"?

2 problems in the configuration
"#,
    );
}

#[test]
fn lanes_do_not_reserve_more_than_there_is() {
    check(
        r"[lanes.a]
reserve = 0.6
[lanes.b]
reserve = 0.7
",
        r"
lanes.toml:1:2: lanes: the lanes reserve 1.30 of every budget, more than all of it
  |
1 | [lanes.a]
  |  ^^^^^
  = help: reserve is a share: together at most 1

1 problem in the configuration
",
    );
}

#[test]
fn ended_jobs_are_kept_for_the_window() {
    check(
        r#"[lanes.a]
[retention]
done_cap = "1m"
"#,
        r#"
lanes.toml:3:12: retention.done_cap: is shorter than dedup.window
  |
3 | done_cap = "1m"
  |            ^^^^
  = help: rows that are gone find no duplicates: keep them at least as long

1 problem in the configuration
"#,
    );
}

#[test]
fn there_is_a_lane() {
    check(
        r"",
        r"
lanes.toml: lanes: there is no lane, so there is nothing to do
  = help: add a table [lanes.bulk]

1 problem in the configuration
",
    );
}

#[test]
fn names_are_valid_and_differ() {
    check(
        r#"[lanes."a b"]
[lanes.dead]
[lanes.x-y]
[lanes.X_y]
"#,
        r#"
lanes.toml:1:2: lanes: "X_y" and "x-y" differ only in case or '-' and '_'
  |
1 | [lanes."a b"]
  |  ^^^^^
  = help: rename one: metrics, queues and variables would mix them up

lanes.toml:1:8: lane name "a b": ' ' is not allowed; use letters, digits, '-' and '_'
  |
1 | [lanes."a b"]
  |        ^^^^^
  = help: rename the lane

lanes.toml:2:8: the name "dead" is taken by lanes itself
  |
2 | [lanes.dead]
  |        ^^^^
  = help: choose another name

3 problems in the configuration
"#,
    );
}

#[test]
fn urls_of_broker_and_store_are_checked_and_not_shown() {
    check(
        r#"[lanes.a]
[broker]
url = "mysql://root:hunter2@db"
[store]
url = ""
"#,
        r#"
lanes.toml:3:7: broker.url: is not the url of a broker
  |
3 | url = "***********************"
  |       ^^^^^^^^^^^^^^^^^^^^^^^^^
  = help: it begins with one of: sqlite:PATH, amqp://HOST/VHOST, amqps://HOST/VHOST

lanes.toml:5:7: store.url: is not the url of a store
  |
5 | url = ""
  |       ^^
  = help: it begins with one of: sqlite:PATH, postgres://USER@HOST/DATABASE

2 problems in the configuration
"#,
    );
    check(
        r#"[lanes.a]
[broker]
url = "amqp://guest:hunter2@127.0.0.1:5672/"
[store]
url = "sqlite::memory:"
"#,
        r#"
lanes.toml:3:7: broker.url: the virtual host is empty
  |
3 | url = "************************************"
  |       ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
  = help: end the url with /%2f for the default one

lanes.toml:5:7: store.url: a database in memory keeps nothing and can't be shared
  |
5 | url = "sqlite::memory:"
  |       ^^^^^^^^^^^^^^^^^
  = help: name a file

2 problems in the configuration
"#,
    );
    check(
        r#"[lanes.a]
[broker]
url = "env:BROKER"
"#,
        r#"
lanes.toml:3:7: broker.url: the environment variable BROKER is not set
  |
3 | url = "env:BROKER"
  |       ^^^^^^^^^^^^
  = help: set BROKER, or remove this

1 problem in the configuration
"#,
    );
}

#[test]
fn an_endpoint_has_a_url() {
    check(
        r"[lanes.a]
[endpoints.crm]
",
        r#"
lanes.toml:2:12: endpoints.crm.url: is missing
  |
2 | [endpoints.crm]
  |            ^^^
  = help: say where it is: url = "https://api.example.com/path"

1 problem in the configuration
"#,
    );
}

#[test]
fn an_endpoints_url_is_http_without_credentials() {
    check(
        r#"[lanes.a]
[endpoints.a]
url = "https://user:hunter2@example.com/"
[endpoints.b]
url = "ftp://example.com/"
[endpoints.c]
url = "example.com"
"#,
        r#"
lanes.toml:3:7: endpoints.a.url: must not hold a user or password
  |
3 | url = "*********************************"
  |       ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
  = help: put them into a header: headers = { authorization = "Basic env:NAME" }

lanes.toml:5:7: endpoints.b.url: must begin with http:// or https://
  |
5 | url = "ftp://example.com/"
  |       ^^^^^^^^^^^^^^^^^^^^

lanes.toml:7:7: endpoints.c.url: is not a url: relative URL without a base
  |
7 | url = "example.com"
  |       ^^^^^^^^^^^^^
  = help: write it like "https://api.example.com/path"

3 problems in the configuration
"#,
    );
}

#[test]
fn metadata_services_are_refused() {
    check(
        r#"[lanes.a]
[endpoints.a]
url = "http://169.254.169.254/"
[endpoints.b]
url = "http://[::ffff:a9fe:a9fe]/"
[endpoints.c]
url = "http://0xa9fea9fe/"
[endpoints.d]
url = "http://metadata.google.internal./"
[endpoints.e]
url = "http://[fd00:ec2::254]/"
"#,
        r#"
lanes.toml:3:7: endpoints.a.url: is the address of a cloud's metadata service
  |
3 | url = "http://169.254.169.254/"
  |       ^^^^^^^^^^^^^^^^^^^^^^^^^
  = help: set allow_metadata = true if jobs really may read this machine's cloud credentials

lanes.toml:5:7: endpoints.b.url: is the address of a cloud's metadata service
  |
5 | url = "http://[::ffff:a9fe:a9fe]/"
  |       ^^^^^^^^^^^^^^^^^^^^^^^^^^^^
  = help: set allow_metadata = true if jobs really may read this machine's cloud credentials

lanes.toml:7:7: endpoints.c.url: is the address of a cloud's metadata service
  |
7 | url = "http://0xa9fea9fe/"
  |       ^^^^^^^^^^^^^^^^^^^^
  = help: set allow_metadata = true if jobs really may read this machine's cloud credentials

lanes.toml:9:7: endpoints.d.url: is the address of a cloud's metadata service
  |
9 | url = "http://metadata.google.internal./"
  |       ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
  = help: set allow_metadata = true if jobs really may read this machine's cloud credentials

lanes.toml:11:7: endpoints.e.url: is the address of a cloud's metadata service
   |
11 | url = "http://[fd00:ec2::254]/"
   |       ^^^^^^^^^^^^^^^^^^^^^^^^^
  = help: set allow_metadata = true if jobs really may read this machine's cloud credentials

5 problems in the configuration
"#,
    );
}

#[test]
fn what_jobs_may_ask_for_is_checked() {
    check(
        r#"[lanes.a]
[endpoints.crm]
url = "http://x"
default_method = "post"
allow_methods = ["GET", "TRACE"]
allow_paths = ["a", "/../b"]
connect_timeout = "1m"
"#,
        r#"
lanes.toml:4:18: endpoints.crm.default_method: "post" is not a method
  |
4 | default_method = "post"
  |                  ^^^^^^
  = help: did you mean "POST"?

lanes.toml:5:25: endpoints.crm.allow_methods: "TRACE" can't be called
  |
5 | allow_methods = ["GET", "TRACE"]
  |                         ^^^^^^^

lanes.toml:6:16: endpoints.crm.allow_paths: "a" does not begin with '/'
  |
6 | allow_paths = ["a", "/../b"]
  |                ^^^

lanes.toml:6:21: endpoints.crm.allow_paths: "/../b" is not a path
  |
6 | allow_paths = ["a", "/../b"]
  |                     ^^^^^^^
  = help: no query, no '..'; '*' stands for anything in a segment

lanes.toml:7:19: endpoints.crm.connect_timeout: is longer than timeout, which covers the whole call
  |
7 | connect_timeout = "1m"
  |                   ^^^^

5 problems in the configuration
"#,
    );
}

#[test]
fn the_meaning_of_answers_is_checked() {
    check(
        r#"[lanes.a]
[endpoints.crm]
url = "http://x"
transient = [200, "6xx", "5xx", 503]
rate_limited = { statuses = [429], body = { pointer = "a.b" } }
"#,
        r#"
lanes.toml:4:14: endpoints.crm.transient: is not the status of a failure
  |
4 | transient = [200, "6xx", "5xx", 503]
  |              ^^^
  = help: a 2xx can be told apart by its body: see rate_limited.body

lanes.toml:4:19: endpoints.crm.transient: is not the status of a failure
  |
4 | transient = [200, "6xx", "5xx", 503]
  |                   ^^^^^
  = help: 300 to 599

lanes.toml:5:18: endpoints.crm.rate_limited.statuses is not a setting
  |
5 | rate_limited = { statuses = [429], body = { pointer = "a.b" } }
  |                  ^^^^^^^^
  = help: did you mean "status"?

lanes.toml:5:36: endpoints.crm.rate_limited.body.equals: is missing
  |
5 | rate_limited = { statuses = [429], body = { pointer = "a.b" } }
  |                                    ^^^^
  = help: what is there: equals = "THROTTLED"

lanes.toml:5:55: endpoints.crm.rate_limited.body.pointer: "a.b" is not a JSON pointer
  |
5 | rate_limited = { statuses = [429], body = { pointer = "a.b" } }
  |                                                       ^^^^^
  = help: did you mean "/a/b"?

5 problems in the configuration
"#,
    );
}

#[test]
fn secrets_are_named_and_never_shown() {
    check(
        r#"[lanes.a]
[endpoints.crm]
url = "http://x"
[endpoints.crm.headers]
authorization = "Bearer hunter2"
x-api-key = "env:NOPE"
cookie = "file:/nope"
content-length = "3"
"a b" = "x"
"#,
        r#"
lanes.toml:5:17: endpoints.crm.headers.authorization: a secret must not be written here
  |
5 | authorization = "**************"
  |                 ^^^^^^^^^^^^^^^^
  = help: write "env:NAME" and set that variable, or "file:PATH"

lanes.toml:6:13: endpoints.crm.headers.x-api-key: the environment variable NOPE is not set
  |
6 | x-api-key = "env:NOPE"
  |             ^^^^^^^^^^
  = help: set NOPE, or remove this

lanes.toml:7:10: endpoints.crm.headers.cookie: the file /nope cannot be read: no such file
  |
7 | cookie = "file:/nope"
  |          ^^^^^^^^^^^^

lanes.toml:8:18: endpoints.crm.headers.content-length: is written by lanes itself
  |
8 | content-length = "*"
  |                  ^^^
  = help: remove it

lanes.toml:9:9: endpoints.crm.headers.a b: is not a header's name
  |
9 | "a b" = "*"
  |         ^^^

5 problems in the configuration
"#,
    );
    check(
        r#"[lanes.a]
[endpoints.crm]
url = "http://x"
signing = { scheme = "standard-webhooks", secret = "hunter2" }
"#,
        r#"
lanes.toml:4:52: endpoints.crm.signing.secret: a secret must not be written here
  |
4 | signing = { scheme = "standard-webhooks", secret = "*******" }
  |                                                    ^^^^^^^^^
  = help: write "env:NAME" and set that variable, or "file:PATH"

1 problem in the configuration
"#,
    );
}

#[test]
fn later_caps_and_batches_are_checked_too() {
    check(
        r#"[lanes.a]
mode = "serial"
[endpoints.crm]
url = "http://x"
max_concurrency = -1
limits = 3
batch = { body = { wrp = 1 } }
"#,
        r#"
lanes.toml:2:8: lanes.a.mode: "serial" is not known here
  |
2 | mode = "serial"
  |        ^^^^^^^^
  = help: one of: parallel, sequential

lanes.toml:5:19: endpoints.crm.max_concurrency: must be 0 to 1000000, is -1
  |
5 | max_concurrency = -1
  |                   ^^

lanes.toml:6:10: endpoints.crm.limits: expected a list of tables, found a whole number
  |
6 | limits = 3
  |          ^

lanes.toml:7:1: endpoints.crm.batch.max_records: is missing
  |
7 | batch = { body = { wrp = 1 } }
  | ^^^^^
  = help: how many records at most: max_records = 100

lanes.toml:7:18: endpoints.crm.batch.body: expected { wrap = "/inputs" }
  |
7 | batch = { body = { wrp = 1 } }
  |                  ^^^^^^^^^^^

5 problems in the configuration
"#,
    );
}

#[test]
fn limits_tenants_and_schedules_are_checked_too() {
    check(
        r#"[lanes.a]
[endpoints.crm]
url = "http://x"
[[endpoints.crm.limits]]
request = 3
per = "1m"
[tenants.acme]
limits = { crn = [{ requests = 500, per = 60 }] }
[schedules.n]
cron = "* *"
lane = "b"
endpoint = "zzz"
"#,
        r#"
lanes.toml:4:1: endpoints.crm.limits.requests: is missing
  |
4 | [[endpoints.crm.limits]]
  | ^^^^^^^^^^^^^^^^^^^^^^^^
  = help: how many calls: requests = 100

lanes.toml:5:1: endpoints.crm.limits.request is not a setting
  |
5 | request = 3
  | ^^^^^^^
  = help: did you mean "requests"?

lanes.toml:8:18: tenants.acme.limits.crn: there is no such endpoint
  |
8 | limits = { crn = [{ requests = 500, per = 60 }] }
  |                  ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
  = help: did you mean "crm"?

lanes.toml:8:43: tenants.acme.limits.crn.per: a duration needs a unit
  |
8 | limits = { crn = [{ requests = 500, per = 60 }] }
  |                                           ^^
  = help: did you mean "60s"? units are ms, s, m, h, d

lanes.toml:10:8: schedules.n.cron: has 2 fields
   |
10 | cron = "* *"
   |        ^^^^^
  = help: five (minute hour day month weekday), or six with seconds first

lanes.toml:11:8: schedules.n.lane: there is no lane "b"
   |
11 | lane = "b"
   |        ^^^

lanes.toml:12:12: schedules.n.endpoint: there is no endpoint "zzz"
   |
12 | endpoint = "zzz"
   |            ^^^^^
  = help: add a table [endpoints.zzz]

7 problems in the configuration
"#,
    );
}

#[test]
fn variables_are_named_in_problems() {
    check_env(
        r"[lanes.bulk]
",
        &[
            ("LANES_BROKER__ULR", "x"),
            ("LANES_BROKR__URL", "x"),
            ("LANES_LANES__BLUK__CONCURRENCY", "3"),
            ("LANES_LANES__BULK__CONCURENCY", "3"),
            ("LANES__BROKER__URL", "x"),
            ("LANES_BROKER____URL", "x"),
            ("LANES_LANES__FAST__CONCURRENCY", "3"),
            ("LANES_LOG", "ignored"),
            ("OTHER__THING", "ignored"),
        ],
        r"
LANES_BROKER__ULR: broker.ulr is not a setting
  = help: did you mean LANES_BROKER__URL?

LANES_BROKER____URL: names no key: an empty part between underscores

LANES_BROKR__URL: brokr is not a setting
  = help: did you mean LANES_BROKER__URL?

LANES_LANES__BLUK__CONCURRENCY: there is no lanes.bluk
  = help: did you mean LANES_LANES__BULK__CONCURRENCY?

LANES_LANES__BULK__CONCURENCY: lanes.bulk.concurency is not a setting
  = help: did you mean LANES_LANES__BULK__CONCURRENCY?

LANES_LANES__FAST__CONCURRENCY: there is no lanes.fast
  = help: a variable can change what the file has under [lanes], not add to it

LANES__BROKER__URL: _broker is not a setting
  = help: did you mean LANES_BROKER__URL?

7 problems in the configuration
",
    );
    check_env(
        r"[lanes.a]
concurrency = 3
",
        &[
            ("LANES_LANES__A__CONCURRENCY", "many"),
            ("LANES_LANES__A__RETRY__FIRST_DELAY", "5"),
            ("LANES_LANES__A__CONCURRENCY__X", "5"),
            ("LANES_BROKER__URL", "amqp://u:hunter2@h/"),
        ],
        r#"
LANES_BROKER__URL: broker.url: the virtual host is empty
  = help: end the url with /%2f for the default one

LANES_LANES__A__CONCURRENCY: lanes.a.concurrency: expected a whole number, found "many"

LANES_LANES__A__CONCURRENCY__X: lanes.a.concurrency is not a table

LANES_LANES__A__RETRY__FIRST_DELAY: lanes.a.retry.first_delay: a duration needs a unit
  = help: did you mean "5s"? units are ms, s, m, h, d

4 problems in the configuration
"#,
    );
}

#[track_caller]
fn loaded(text: &str, env: Env<'_>) -> Loaded {
    read(text, env).unwrap_or_else(|problems| panic!("{problems}"))
}

fn default_file() -> Loaded {
    loaded(DEFAULT_FILE, &[])
}

/// The default file with every setting and example switched on.
fn everything() -> String {
    let switched_on = |line: &str| match line.strip_prefix('#') {
        Some(setting) if setting.starts_with(|c: char| c == '[' || c.is_ascii_lowercase()) => format!("{setting}\n"),
        _ => format!("{line}\n"),
    };
    DEFAULT_FILE.lines().map(switched_on).collect()
}

const EVERYTHING_ENV: Env<'static> = &[
    ("CRM_TOKEN", "t0ken"),
    ("CRM_SIGNING", "s1gn"),
    ("DASHBOARD_ALICE", "a-token-that-is-long-enough"),
    ("NOTIFY_URL", "https://hooks.example.com/T0/TOPSECRET"),
    ("NOTIFY_SECRET", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
];

#[test]
fn the_default_file_works_as_it_is() {
    let loaded = default_file();
    assert_eq!(loaded.warnings, [""; 0]);
    let specs = loaded.specs;
    assert_eq!(specs.broker.url.expose_secret(), "sqlite:lanes.db");
    assert_eq!(specs.store.url.expose_secret(), "sqlite:lanes.db");
    assert_eq!(specs.http.listen.to_string(), "127.0.0.1:9464");
    assert_eq!(specs.dedup_window, Duration::from_mins(10));
    let lanes: Vec<_> =
        specs.lanes.iter().map(|lane| (lane.name.as_str(), lane.concurrency, lane.prefetch, &lane.retry)).collect();
    let retry = RetryPolicy::default();
    assert_eq!(lanes, [("realtime", 64, 256, &retry), ("bulk", 8, 32, &retry)]);
    let crm = &specs.endpoints[0];
    assert_eq!((crm.name.as_str(), crm.url.as_str()), ("crm", "http://127.0.0.1:8080/contacts"));
    assert_eq!((crm.timeout, crm.connect_timeout), (Duration::from_secs(10), Duration::from_secs(5)));
    assert_eq!(crm.rules, EndpointRules::default());
    assert_eq!(crm.default_method, "POST");
}

#[test]
fn the_default_file_shows_every_setting_with_its_default() {
    let all = loaded(&everything(), EVERYTHING_ENV);
    let settings: BTreeMap<_, _> = all.settings.iter().map(|setting| (setting.path.join("."), setting)).collect();
    // the first lane and the second endpoint show nothing that the others do not
    let repeats = |key: &str| key.starts_with("lanes.realtime.") || key.starts_with("endpoints.crm-import.");
    for (key, setting) in settings.iter().filter(|(key, _)| !repeats(key)) {
        let missing = setting.origin == "default" && key != "lanes.bulk.reserve";
        assert!(!missing, "{key} is not in lanes.toml");
    }
    let examples =
        ["http.auth.mode", "lanes.realtime.reserve", "endpoints.crm.allow_methods", "endpoints.crm.allow_paths"];
    for setting in default_file().settings {
        let key = setting.path.join(".");
        if !examples.contains(&key.as_str()) {
            assert_eq!(settings[&key].value, setting.value, "{key}");
        }
    }
}

#[test]
fn what_is_not_enforced_yet_is_said() {
    let warnings = loaded(&everything(), EVERYTHING_ENV).warnings;
    let keys: Vec<_> = warnings
        .iter()
        .map(|warning| {
            assert!(warning.ends_with(": is accepted but not enforced yet by this version"), "{warning}");
            warning.split(": ").nth(1).expect("place, key, text")
        })
        .collect();
    let expect = ["endpoints.crm.signing", "endpoints.crm.batch", "schedules.nightly"];
    assert_eq!(keys, expect);
    assert!(warnings[0].starts_with("lanes.toml:"), "{}", warnings[0]);
}

#[test]
fn doubtful_combinations_are_said() {
    let table = [
        ("[broker]\nurl = \"memory:\"\n", "default: store.url: outlives the broker"),
        ("[broker]\nurl = \"amqp://h/%2f\"\n", "default: store.url: is a file"),
        ("[http]\nlisten = \"0.0.0.0:9464\"\n", "lanes.toml:2: http.listen: can be reached"),
        ("", "default: endpoints: there is none"),
        (
            "[endpoints.a]\nurl = \"http://x\"\nlimits = [{ requests = 10, per = \"1m\", burst = 9 }]\n",
            "lanes.toml:3: endpoints.a.limits.burst: is, together with the pace",
        ),
        (
            "[endpoints.a]\nurl = \"http://x\"\nmax_concurrency = 2\nmax_concurrency_per_tenant = 3\n",
            "lanes.toml:4: endpoints.a.max_concurrency_per_tenant: is more than max_concurrency, which is 2 for all",
        ),
    ];
    for (text, expect) in table {
        let warnings = loaded(&format!("{text}[lanes.a]\n"), &[]).warnings;
        assert!(warnings.iter().any(|warning| warning.starts_with(expect)), "{expect}: {warnings:?}");
    }
    let quiet = "[broker]\nurl = \"amqps://h\"\n[store]\nurl = \"postgresql://u@h/d\"\n[http]\nlisten = \"[::1]:1\"\n[lanes.a]\n";
    assert_eq!(loaded(quiet, &[]).warnings.len(), 1);
}

#[test]
fn variables_win_over_the_file() {
    let specs = loaded(
        DEFAULT_FILE,
        &[
            ("LANES_BROKER__URL", "amqp://guest:guest@127.0.0.1:5672/%2f"),
            ("LANES_STORE__URL", "env:DATABASE_URL"),
            ("DATABASE_URL", "postgres://lanes:hunter2@db/lanes"),
            ("LANES_HTTP__LISTEN", "[::1]:8080"),
            ("LANES_HTTP__ENABLED", "false"),
            ("LANES_LANES__BULK__CONCURRENCY", " 20 "),
            ("LANES_LANES__BULK__RETRY__FIRST_DELAY", "500ms"),
            ("LANES_LANES__BULK__RETRY__JITTER", "0"),
            ("LANES_ENDPOINTS__CRM__URL", "https://crm.example/v2"),
            ("LANES_ENDPOINTS__CRM__ALLOW_METHODS", "PUT, PATCH"),
            ("LANES_ENDPOINTS__CRM__ALLOW_PATHS", "[\"/a,b\"]"),
            ("LANES_ENDPOINTS__CRM__TRANSIENT", "5xx,409"),
            ("LANES_ENDPOINTS__CRM__HEADERS__X_API_KEY", "env:KEY"),
            ("LANES_ENDPOINTS__CRM__RATE_LIMITED", "{ status = [429, 403] }"),
            ("KEY", "k3y"),
        ],
    )
    .specs;
    assert_eq!(specs.broker.url.expose_secret(), "amqp://guest:guest@127.0.0.1:5672/%2f");
    assert_eq!(specs.store.url.expose_secret(), "postgres://lanes:hunter2@db/lanes");
    assert_eq!((specs.http.listen.to_string().as_str(), specs.http.enabled), ("[::1]:8080", false));
    let bulk = &specs.lanes[1];
    assert_eq!((bulk.concurrency, bulk.prefetch), (20, 80));
    assert_eq!((bulk.retry.first_delay, bulk.retry.jitter.to_bits()), (Duration::from_millis(500), 0));
    let crm = &specs.endpoints[0];
    assert_eq!(crm.url.as_str(), "https://crm.example/v2");
    assert_eq!(crm.allow_methods, ["PUT", "PATCH"]);
    assert_eq!(crm.allow_paths, ["/a,b"]);
    assert_eq!(crm.rules.transient_status, [StatusRange { first: 500, last: 599 }, 409.into()]);
    assert_eq!(crm.rules.rate_limited_status, [429, 403]);
    assert_eq!((crm.headers[0].0.as_str(), crm.headers[0].1.as_bytes()), ("x-api-key", &b"k3y"[..]));
}

#[test]
fn names_are_matched_whatever_their_case_and_dashes() {
    let text = "[lanes.Nightly-Sync]\nconcurrency = 3\n";
    let specs = loaded(text, &[("LANES_LANES__NIGHTLY_SYNC__CONCURRENCY", "4")]).specs;
    assert_eq!((specs.lanes[0].name.as_str(), specs.lanes[0].concurrency), ("Nightly-Sync", 4));
}

#[test]
fn secrets_are_looked_up_and_keep_their_scheme() {
    let text = "[lanes.a]\n[endpoints.crm]\nurl = \"file:/run/secrets/crm-url\"\n[endpoints.crm.headers]\n\
                authorization = \"Bearer file:/run/secrets/crm\"\nX-Source = \"lanes\"\nx-key = \"env:KEY\"\n";
    let text = text.replace("file:/run/secrets/crm-url", "env:URL");
    let loaded = loaded(&text, &[("URL", "https://hooks.example/T00/hunter2"), ("KEY", "hunter2")]);
    let headers: Vec<_> = loaded.specs.endpoints[0]
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.to_str().expect("text")))
        .collect();
    assert_eq!(headers, [("x-source", "lanes"), ("authorization", "Bearer s3cret"), ("x-key", "hunter2")]);
    for shown in [format!("{loaded:?}"), config::show(&loaded), config::show_json(&loaded).to_string()] {
        assert!(!shown.contains("hunter2") && !shown.contains("s3cret"), "{shown}");
    }
    assert!(config::show(&loaded).contains("authorization = \"Bearer file:/run/secrets/crm\""));
}

#[test]
fn passwords_in_urls_are_not_shown() {
    let env: Env<'_> = &[
        ("LANES_BROKER__URL", "amqp://guest:hunter2@h/%2f"),
        ("LANES_STORE__URL", "postgres://u:hunter2@h/d?sslpassword=hunter2&sslmode=require"),
        ("LANES_ENDPOINTS__CRM__URL", "https://h/p?api_key=hunter2&a=b"),
    ];
    let loaded = loaded(DEFAULT_FILE, env);
    for shown in [format!("{loaded:?}"), config::show(&loaded), config::show_json(&loaded).to_string()] {
        assert!(!shown.contains("hunter2"), "{shown}");
    }
    assert!(config::show(&loaded).contains("url = \"amqp://guest:***@h/%2f\" # LANES_BROKER__URL"));
}

#[test]
fn what_is_shown_can_be_read_again() {
    let first = loaded(&everything(), EVERYTHING_ENV);
    let second = loaded(&config::show(&first), EVERYTHING_ENV);
    let plain = |loaded: &Loaded| -> BTreeMap<String, _> {
        loaded.settings.iter().map(|setting| (setting.path.join("."), setting.value.clone())).collect()
    };
    assert_eq!(plain(&first), plain(&second));
    let json = config::show_json(&first);
    assert_eq!(json["settings"][0]["key"], "broker.url");
    assert_eq!(json["settings"][0]["origin"], "lanes.toml:19");
}

#[test]
fn the_file_is_where_it_is_said_to_be() {
    let dir = tempfile::tempdir().expect("a directory");
    let (one, two) = (dir.path().join("one.toml"), dir.path().join("two.toml"));
    std::fs::write(&one, "[lanes.one]\n").expect("written");
    std::fs::write(&two, "[lanes.two]\n").expect("written");
    let lane = |path: Option<&Path>, env: &BTreeMap<String, String>| {
        config::load(path, env).expect("loads").specs.lanes[0].name.to_string()
    };
    let env = BTreeMap::from([("LANES_CONFIG".to_owned(), two.display().to_string())]);
    assert_eq!(lane(Some(&one), &BTreeMap::new()), "one");
    assert_eq!(lane(None, &env), "two");
    assert_eq!(lane(Some(&one), &env), "one");
    let missing = dir.path().join("three.toml");
    let problems = config::load(Some(&missing), &env).expect_err("missing").to_string();
    assert!(problems.starts_with(&format!("{}: the configuration cannot be read: ", missing.display())), "{problems}");
}

#[test]
fn without_a_file_the_default_is_used() {
    let loaded = config::read_default(&BTreeMap::new(), &secret_files).expect("the default is fine");
    assert_eq!(loaded.source, "built-in defaults");
    assert!(loaded.settings.iter().all(|setting| setting.origin == "default"));
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "\\PC{0,200}", value in "\\PC{0,40}") {
        survive(&text, &value);
    }

    /// Text that gets further: the full example with a piece of it replaced.
    #[test]
    fn any_damage_is_read_or_refused(at in 0..10_000_usize, length in 0..40_usize, put in "\\PC{0,20}|[\\[\\]{}=\"\n.0-9a-z]{0,20}") {
        let mut text = everything();
        let start = text.floor_char_boundary(at);
        let end = text.floor_char_boundary(start + length);
        text.replace_range(start..end, &put);
        survive(&text, &put);
    }
}

fn survive(text: &str, value: &str) {
    let names = [
        "LANES_LANES__BULK__CONCURRENCY",
        "LANES_ENDPOINTS__CRM__HEADERS__X_TOKEN",
        "LANES_ENDPOINTS__CRM__LIMITS__0__REQUESTS",
        "LANES_TENANTS__ACME__LIMITS__CRM__0",
        "LANES_X__Y",
        "CRM_TOKEN",
    ];
    for name in names {
        match read(text, &[(name, value)]) {
            Ok(loaded) => assert!(!config::show(&loaded).is_empty()),
            Err(problems) => assert!(!problems.0.is_empty() && !problems.to_string().is_empty()),
        }
    }
}
