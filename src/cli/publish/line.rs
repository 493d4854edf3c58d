//! One line of a file of jobs: what it may say, and the job it becomes.

use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::template::Template;
use crate::cli::text::{parse_duration, parse_time};
use crate::config::problem::similar;
use crate::job::{JobId, Tenant};
use crate::publish::NewJob;

/// Namespace of ids that are made for lines without one (uuid version 5).
const NAMESPACE: Uuid = Uuid::from_u128(0x6c61_6e65_7300_5001_8001_696d_706f_7274);

/// A job as a line says it. Everything is optional: the options of the command are the defaults.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct JobLine<'a> {
    id: Option<String>,
    tenant: Option<String>,
    endpoint: Option<String>,
    #[serde(borrow)]
    body: Option<&'a RawValue>,
    body_text: Option<String>,
    content_type: Option<String>,
    method: Option<String>,
    path: Option<String>,
    not_before: Option<String>,
    delay: Option<String>,
    expires_at: Option<String>,
    expires_in: Option<String>,
    ordering_key: Option<String>,
    max_attempts: Option<u32>,
    timeout_ms: Option<u64>,
    correlation_id: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    traceparent: Option<String>,
    tracestate: Option<String>,
}

/// Hash of a line as it stands in the file.
pub fn hash(line: &[u8]) -> [u8; 32] {
    Sha256::digest(line).into()
}

/// Reads line `number`. `key` = what ids are made of where the line has none; without it none are made.
///
/// # Errors
/// What is wrong with the line.
pub fn parse(template: &Template, number: u64, line: &[u8], key: Option<&str>) -> Result<NewJob, String> {
    let said: JobLine<'_> = serde_json::from_slice(line).map_err(|error| describe(&error))?;
    let mut job = template.job(said.endpoint.as_deref())?;
    let (body, content_type) = match (said.body, said.body_text) {
        (Some(_), Some(_)) => return Err("body and body_text exclude each other".to_owned()),
        (Some(json), None) => (Bytes::copy_from_slice(json.get().as_bytes()), Some("application/json")),
        (None, Some(text)) => (Bytes::from(text), Some("text/plain; charset=utf-8")),
        (None, None) => (Bytes::new(), None),
    };
    template.check_body(body.len())?;
    job.body = body;
    if let Some(tenant) = said.tenant {
        job.tenant = Tenant::new(&tenant).map_err(|error| error.to_string())?;
    }
    let time = |text: Option<String>| text.map(|text| parse_time(&text)).transpose();
    let after = |text: Option<String>| {
        text.map(|text| parse_duration(&text)).transpose().map(|d: Option<Duration>| d.map(|d| template.now.plus(d)))
    };
    let not_before = time(said.not_before)?.or(after(said.delay)?);
    let expires_at = time(said.expires_at)?.or(after(said.expires_in)?);
    if said.max_attempts == Some(0) || said.timeout_ms == Some(0) {
        return Err("max_attempts and timeout_ms must be at least 1".to_owned());
    }
    let meta = &mut job.meta;
    let over = |field: &mut Option<String>, value: Option<String>| {
        if value.is_some() {
            *field = value;
        }
    };
    over(&mut meta.method, said.method);
    over(&mut meta.path, said.path);
    over(&mut meta.ordering_key, said.ordering_key);
    over(&mut meta.correlation_id, said.correlation_id);
    over(&mut meta.kind, said.kind);
    over(&mut meta.traceparent, said.traceparent);
    over(&mut meta.tracestate, said.tracestate);
    over(&mut meta.content_type, said.content_type);
    meta.content_type = meta.content_type.take().or_else(|| content_type.map(ToOwned::to_owned));
    meta.not_before = not_before.or(meta.not_before);
    meta.expires_at = expires_at.or(meta.expires_at);
    meta.max_attempts = said.max_attempts.or(meta.max_attempts);
    meta.timeout_ms = said.timeout_ms.or(meta.timeout_ms);
    job.id = match (said.id, key) {
        (Some(id), _) => Some(JobId::new(&id).map_err(|error| error.to_string())?),
        (None, Some(key)) => Some(made_id(&job, key, number, line)),
        (None, None) => None,
    };
    Ok(job)
}

/// The same line at the same place of the same file, for the same endpoint, is the same job.
fn made_id(job: &NewJob, key: &str, number: u64, line: &[u8]) -> JobId {
    let mut name = Vec::with_capacity(256);
    let method = job.meta.method.as_deref().unwrap_or("");
    let path = job.meta.path.as_deref().unwrap_or("");
    for part in [key, job.endpoint.as_str(), job.tenant.as_str(), method, path] {
        name.extend_from_slice(part.as_bytes());
        name.push(0);
    }
    name.extend_from_slice(&number.to_be_bytes());
    name.extend_from_slice(&hash(line));
    JobId::new(&Uuid::new_v5(&NAMESPACE, &name).to_string()).expect("a uuid is a legal id")
}

/// The parser's text for a person: where in the line, and what was probably meant. The number of the line in the file is
/// told with it.
fn describe(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let what = text.rsplit_once(" at line ").map_or(text.as_str(), |(what, _)| what);
    let what = match what.split_once(", expected one of ") {
        Some((unknown, known)) => {
            let name = unknown.split('`').nth(1).unwrap_or_default();
            match similar(name, known.split('`').skip(1).step_by(2)) {
                Some(meant) => format!("{unknown}; did you mean `{meant}`?"),
                None => what.to_owned(),
            }
        }
        None if error.is_data() => what.to_owned(),
        None => format!("is not JSON: {what}"),
    };
    if error.column() == 0 { what } else { format!("{what} (column {})", error.column()) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use clap::Parser;

    use super::super::PublishArgs;
    use super::*;
    use crate::clock::Timestamp;
    use crate::config;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        publish: PublishArgs,
    }

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

    fn template(args: &[&str]) -> Template {
        let files = |_: &std::path::Path| Err(std::io::Error::other("no files here"));
        let loaded = config::read_default(&BTreeMap::new(), &files).expect("the default is right");
        let args = Command::parse_from(["lanes", "bulk"].iter().chain(args)).publish;
        Template::new(&loaded.specs, &args, NOW).expect("known names")
    }

    fn read(line: &str) -> Result<NewJob, String> {
        parse(&template(&["--endpoint", "crm", "--tenant", "acme", "--delay", "1m"]), 7, line.as_bytes(), Some("file"))
    }

    #[test]
    fn a_line_wins_over_the_options() {
        let job = read(r#"{"tenant":"globex","id":"x-1","body":{ "a": 1 },"expires_in":"2h"}"#).expect("right");
        assert_eq!((job.tenant.as_str(), job.endpoint.as_str()), ("globex", "crm"));
        assert_eq!(job.id.expect("given").as_str(), "x-1");
        assert_eq!(&job.body[..], br#"{ "a": 1 }"#, "bytes as they stand in the file");
        assert_eq!(job.meta.content_type.as_deref(), Some("application/json"));
        assert_eq!(job.meta.not_before, Some(NOW.plus(Duration::from_mins(1))));
        assert_eq!(job.meta.expires_at, Some(NOW.plus(Duration::from_hours(2))));
        let text = read(r#"{"body_text":"<a/>","content_type":"application/xml"}"#).expect("right");
        assert_eq!((&text.body[..], text.meta.content_type.as_deref()), (&b"<a/>"[..], Some("application/xml")));
    }

    #[test]
    fn an_id_is_made_of_file_place_and_content() {
        let id = |args: &[&str], number, line: &str, key| {
            let job = parse(&template(args), number, line.as_bytes(), key).expect("right");
            job.id.map(|id| id.as_str().to_owned())
        };
        let crm: &[&str] = &["--endpoint", "crm"];
        let first = id(crm, 1, "{}", Some("a.ndjson"));
        assert!(first.is_some());
        assert_eq!(first, id(crm, 1, "{}", Some("a.ndjson")), "the same line again");
        assert_ne!(first, id(crm, 2, "{}", Some("a.ndjson")), "an equal line elsewhere is another job");
        assert_ne!(first, id(crm, 1, "{ }", Some("a.ndjson")));
        assert_ne!(first, id(crm, 1, "{}", Some("b.ndjson")));
        assert_ne!(first, id(&["--endpoint", "crm", "--tenant", "acme"], 1, "{}", Some("a.ndjson")));
        assert_eq!(id(crm, 1, "{}", None), None);
    }

    #[test]
    fn a_bad_line_says_what_is_wrong() {
        let cases = [
            ("{", "is not JSON: EOF while parsing an object (column 1)"),
            (r#"{"tenat":"x"}"#, "unknown field `tenat`; did you mean `tenant`? (column 8)"),
            (r#"{"endpoint":"crn"}"#, "endpoint \"crn\" is not configured; did you mean \"crm\"?"),
            (r#"{"body":1,"body_text":""}"#, "body and body_text exclude each other"),
            (r#"{"id":""}"#, "job id \"\": must be 1 to 255 bytes long, is 0"),
            (
                r#"{"delay":"5"}"#,
                "\"5\" is not a duration: write it like \"10s\", \"1m30s\" or \"2h\" (ms, s, m, h, d)",
            ),
            (r#"{"not_before":"soon"}"#, "\"soon\" is not an RFC 3339 time such as 2026-11-22T09:30:00Z"),
            (r#"{"max_attempts":0}"#, "max_attempts and timeout_ms must be at least 1"),
        ];
        for (line, expected) in cases {
            assert_eq!(read(line).expect_err(line), expected);
        }
    }
}
