//! The message format: the only place that knows lanes' AMQP properties and headers. Docs: README, "Message".

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::verdict::DeadReason;
use super::{DedupKey, EndpointName, Identity, Job, JobId, JobMeta, LaneName, Tenant};
use crate::clock::Timestamp;
use crate::message::{HeaderValue, Headers, Message, Properties};

const ENDPOINT: &str = "lanes-endpoint";
const TENANT: &str = "lanes-tenant";
const METHOD: &str = "lanes-method";
const PATH: &str = "lanes-path";
const ORDERING_KEY: &str = "lanes-ordering-key";
const NOT_BEFORE: &str = "lanes-not-before";
const EXPIRES_AT: &str = "lanes-expires-at";
const MAX_ATTEMPTS: &str = "lanes-max-attempts";
const TIMEOUT_MS: &str = "lanes-timeout-ms";
const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";
const INSTANCE: &str = "lanes-instance";
const PUBLISHED_AT: &str = "lanes-published-at";
const KEY: &str = "lanes-key";

/// Namespace of derived instances (uuid version 5).
const NAMESPACE: Uuid = Uuid::from_u128(0x6c61_6e65_7300_5001_8001_6964_656e_7469);

/// The queue of a lane's fresh messages.
pub fn queue(lane: &LaneName) -> String {
    format!("lanes.{lane}")
}

/// The queue of a lane's released jobs, which its consumers prefer.
pub fn due_queue(lane: &LaneName) -> String {
    format!("lanes.{lane}.due")
}

/// The route to a lane's fresh messages.
pub fn route(lane: &LaneName) -> String {
    lane.to_string()
}

/// The route to a lane's released jobs.
pub fn due_route(lane: &LaneName) -> String {
    format!("{lane}.due")
}

/// A message that could be read.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    /// The job.
    pub job: Job,
    /// It came with delivery mode 1.
    pub non_durable: bool,
    /// Its publish time was carried by the message and is not ahead of us; otherwise it is only when we first saw it.
    pub timed: bool,
}

/// A message that could not be read, with what could be made of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Undecodable {
    /// `Undecodable`, `UnknownEndpoint` or `TooLarge`.
    pub reason: DeadReason,
    /// What is wrong and what to do, for a person.
    pub detail: String,
    /// The tenant, when it could be read.
    pub tenant: Option<Tenant>,
    /// The id, when it could be read.
    pub id: Option<String>,
    /// The endpoint, when it could be read.
    pub endpoint: Option<String>,
}

/// What decoding needs to know of the lane.
#[derive(Debug, Clone)]
pub struct DecodeRules {
    /// The lane the message came from.
    pub lane: LaneName,
    /// The endpoint of messages that name none.
    pub default_endpoint: Option<EndpointName>,
    /// Most bytes of a body.
    pub body_bytes_max: usize,
}

/// Writes a job as the message that carries it.
pub fn encode(job: &Job) -> Message {
    let meta = &job.meta;
    let mut headers = Headers::new();
    let mut put = |name: &str, value: Option<HeaderValue>| {
        if let Some(value) = value {
            headers.insert(name.to_owned(), value);
        }
    };
    let text = |value: &Option<String>| value.clone().map(HeaderValue::Text);
    put(ENDPOINT, Some(job.endpoint.as_str().into()));
    put(TENANT, Some(job.tenant.as_str().into()));
    put(INSTANCE, Some(job.instance.to_string().into()));
    put(PUBLISHED_AT, Some(job.published_at.to_string().into()));
    put(METHOD, text(&meta.method));
    put(PATH, text(&meta.path));
    put(ORDERING_KEY, text(&meta.ordering_key));
    put(TRACEPARENT, text(&meta.traceparent));
    put(TRACESTATE, text(&meta.tracestate));
    put(NOT_BEFORE, meta.not_before.map(|at| at.to_string().into()));
    put(EXPIRES_AT, meta.expires_at.map(|at| at.to_string().into()));
    put(MAX_ATTEMPTS, meta.max_attempts.map(|n| HeaderValue::Int(n.into())));
    put(TIMEOUT_MS, meta.timeout_ms.map(|n| HeaderValue::Int(i64::try_from(n).unwrap_or(i64::MAX))));
    Message {
        properties: Properties {
            message_id: Some(job.id.as_str().to_owned()),
            content_type: meta.content_type.clone(),
            correlation_id: meta.correlation_id.clone(),
            app_id: meta.app_id.clone(),
            kind: meta.kind.clone(),
            timestamp: u64::try_from(job.published_at.as_micros() / 1_000_000).ok(),
            durable: Some(true),
        },
        headers,
        body: job.body.clone(),
    }
}

/// Reads a fresh message. `now` is the store's time, `mint` makes a random instance where the message has no id.
///
/// # Errors
/// [`Undecodable`]: the message becomes a dead letter.
pub fn decode(
    rules: &DecodeRules,
    message: &Message,
    now: Timestamp,
    mint: impl FnOnce() -> Uuid,
) -> Result<Decoded, Undecodable> {
    let reader = Reader(&message.headers);
    let refuse = |reason: DeadReason, detail: String| Undecodable {
        reason,
        detail,
        tenant: reader.text(TENANT).ok().flatten().and_then(|text| Tenant::new(text).ok()),
        id: message.properties.message_id.clone(),
        endpoint: reader.text(ENDPOINT).ok().flatten().map(ToOwned::to_owned),
    };
    let bad = |detail: String| refuse(DeadReason::Undecodable, detail);
    if message.body.len() > rules.body_bytes_max {
        let (is, most) = (message.body.len(), rules.body_bytes_max);
        let detail = format!("the body has {is} bytes, at most {most} are accepted (worker.max_message_bytes)");
        return Err(refuse(DeadReason::TooLarge, detail));
    }
    let tenant = match reader.text(TENANT).map_err(bad)? {
        Some(text) => Tenant::new(text).map_err(|error| bad(format!("header {TENANT}: {error}")))?,
        None => Tenant::unnamed(),
    };
    let endpoint = match (reader.text(ENDPOINT).map_err(bad)?, &rules.default_endpoint) {
        (Some(text), _) => EndpointName::new(text).map_err(|error| bad(format!("header {ENDPOINT}: {error}")))?,
        (None, Some(default)) => default.clone(),
        (None, None) => {
            let detail = format!("no {ENDPOINT} header, and lane {} has no default_endpoint", rules.lane);
            return Err(refuse(DeadReason::UnknownEndpoint, detail));
        }
    };
    let meta = read_meta(&reader, &message.properties).map_err(bad)?;
    let identity = identify(rules, &reader, message, &tenant, now, mint).map_err(bad)?;
    Ok(Decoded {
        job: Job {
            instance: identity.instance,
            identity: identity.kind,
            lane: rules.lane.clone(),
            tenant,
            id: identity.id,
            endpoint,
            published_at: identity.published_at,
            meta,
            body: message.body.clone(),
        },
        non_durable: message.properties.durable == Some(false),
        timed: identity.timed,
    })
}

struct Identified {
    instance: Uuid,
    kind: Identity,
    id: JobId,
    published_at: Timestamp,
    timed: bool,
}

/// model/protocol section 6: stamped, else derived from content and timestamp, else minted.
fn identify(
    rules: &DecodeRules,
    reader: &Reader<'_>,
    message: &Message,
    tenant: &Tenant,
    now: Timestamp,
    mint: impl FnOnce() -> Uuid,
) -> Result<Identified, String> {
    let stamped = reader
        .text(INSTANCE)?
        .map(|text| Uuid::parse_str(text).map_err(|error| format!("header {INSTANCE}: {error}")))
        .transpose()?;
    let sent = message.properties.timestamp.map(|secs| Timestamp::from_secs(i64::try_from(secs).unwrap_or(i64::MAX)));
    let published_at = reader.time(PUBLISHED_AT)?.or(sent);
    // a clock that runs ahead must not widen the window
    let at = published_at.unwrap_or(now).min(now);
    let timed = published_at.is_some_and(|at| at <= now);
    let id = match message.properties.message_id.as_deref() {
        Some(text) if !text.is_empty() => Some(JobId::new(text).map_err(|error| format!("message_id: {error}"))?),
        _ => None,
    };
    Ok(match (id, stamped) {
        (Some(id), Some(instance)) => Identified { instance, kind: Identity::Stamped, id, published_at: at, timed },
        (Some(id), None) => {
            let instance = derive_instance(&rules.lane, tenant, &id, published_at, &message.body);
            let kind = if published_at.is_some() { Identity::Derived } else { Identity::DerivedUntimed };
            Identified { instance, kind, id, published_at: at, timed }
        }
        (None, stamped) => {
            let instance = stamped.unwrap_or_else(mint);
            let id = JobId::new(&instance.to_string()).map_err(|error| error.to_string())?;
            Identified { instance, kind: Identity::Minted, id, published_at: at, timed }
        }
    })
}

fn derive_instance(lane: &LaneName, tenant: &Tenant, id: &JobId, published_at: Option<Timestamp>, body: &[u8]) -> Uuid {
    let mut name = Vec::with_capacity(128);
    for part in [lane.as_str(), tenant.as_str(), id.as_str()] {
        name.extend_from_slice(part.as_bytes());
        name.push(0);
    }
    if let Some(at) = published_at {
        name.extend_from_slice(&at.as_micros().to_be_bytes());
    }
    name.push(0);
    name.extend_from_slice(&Sha256::digest(body));
    Uuid::new_v5(&NAMESPACE, &name)
}

fn read_meta(reader: &Reader<'_>, properties: &Properties) -> Result<JobMeta, String> {
    let text = |name| reader.text(name).map(|text| text.map(ToOwned::to_owned));
    Ok(JobMeta {
        method: text(METHOD)?,
        path: text(PATH)?,
        content_type: properties.content_type.clone(),
        correlation_id: properties.correlation_id.clone(),
        app_id: properties.app_id.clone(),
        kind: properties.kind.clone(),
        traceparent: text(TRACEPARENT)?,
        tracestate: text(TRACESTATE)?,
        ordering_key: text(ORDERING_KEY)?,
        not_before: reader.time(NOT_BEFORE)?,
        expires_at: reader.time(EXPIRES_AT)?,
        max_attempts: reader
            .count(MAX_ATTEMPTS)?
            .map(|n| u32::try_from(n).map_err(|_| format!("header {MAX_ATTEMPTS}: {n} is too large")))
            .transpose()?,
        timeout_ms: reader.count(TIMEOUT_MS)?,
    })
}

/// Reads headers by kind, with errors that name the header, what it is and what it should be.
struct Reader<'a>(&'a Headers);

impl<'a> Reader<'a> {
    fn text(&self, name: &str) -> Result<Option<&'a str>, String> {
        match self.0.get(name) {
            None | Some(HeaderValue::Null) => Ok(None),
            Some(HeaderValue::Text(text)) => Ok(Some(text)),
            Some(other) => Err(format!("header {name} is {}, must be text", other.kind())),
        }
    }

    fn count(&self, name: &str) -> Result<Option<u64>, String> {
        let wrong = || format!("header {name} must be a positive whole number");
        let number = match self.0.get(name) {
            None | Some(HeaderValue::Null) => return Ok(None),
            Some(HeaderValue::Int(number)) => u64::try_from(*number).map_err(|_| wrong())?,
            Some(HeaderValue::Text(text)) => text.trim().parse().map_err(|_| wrong())?,
            Some(other) => return Err(format!("{}, is {}", wrong(), other.kind())),
        };
        if number == 0 { Err(wrong()) } else { Ok(Some(number)) }
    }

    fn time(&self, name: &str) -> Result<Option<Timestamp>, String> {
        match self.0.get(name) {
            None | Some(HeaderValue::Null) => Ok(None),
            Some(HeaderValue::Timestamp(secs)) => {
                Ok(Some(Timestamp::from_secs(i64::try_from(*secs).unwrap_or(i64::MAX))))
            }
            Some(HeaderValue::Text(text)) => match Timestamp::parse_rfc3339(text) {
                Some(at) => Ok(Some(at)),
                None => Err(format!("header {name}: {text:?} is not an RFC 3339 time such as 2026-11-22T09:30:00Z")),
            },
            Some(other) => Err(format!("header {name} is {}, must be RFC 3339 text", other.kind())),
        }
    }
}

/// Writes the hint that a job was released: key and instance, nothing that could decide.
pub fn encode_wake_up(key: DedupKey, instance: Uuid) -> Message {
    let headers = Headers::from([
        (KEY.to_owned(), HeaderValue::Text(Uuid::from_bytes(key.0).simple().to_string())),
        (INSTANCE.to_owned(), HeaderValue::Text(instance.to_string())),
    ]);
    let properties = Properties { durable: Some(true), ..Properties::default() };
    Message { properties, headers, body: Bytes::new() }
}

/// Reads a wake-up; `None` when the message is not one.
pub fn decode_wake_up(message: &Message) -> Option<(DedupKey, Uuid)> {
    let reader = Reader(&message.headers);
    let key = Uuid::parse_str(reader.text(KEY).ok()??).ok()?;
    let instance = Uuid::parse_str(reader.text(INSTANCE).ok()??).ok()?;
    Some((DedupKey(key.into_bytes()), instance))
}

/// A job's meta as it is kept in its row.
pub fn pack_meta(meta: &JobMeta) -> Bytes {
    serde_json::to_vec(meta).expect("a struct of text and numbers always serializes").into()
}

/// Reads a job's meta back from its row.
///
/// # Errors
/// What is wrong with the bytes (a newer version wrote them, or somebody edited the table).
pub fn unpack_meta(bytes: &[u8]) -> Result<JobMeta, String> {
    serde_json::from_slice(bytes).map_err(|error| format!("the stored meta cannot be read: {error}"))
}

/// Properties and headers of a message that never became a job, as kept in its letter.
#[derive(Debug, Serialize, Deserialize)]
struct RawMeta {
    properties: Properties,
    headers: Headers,
}

/// Everything but the body of a message, for its dead letter.
pub fn pack_raw(message: &Message) -> Bytes {
    let raw = RawMeta { properties: message.properties.clone(), headers: message.headers.clone() };
    serde_json::to_vec(&raw).expect("plain data always serializes").into()
}

/// The message of a raw dead letter, to be published again.
///
/// # Errors
/// What is wrong with the bytes.
pub fn unpack_raw(meta: &[u8], body: Bytes) -> Result<Message, String> {
    let raw: RawMeta =
        serde_json::from_slice(meta).map_err(|error| format!("the stored message cannot be read: {error}"))?;
    Ok(Message { properties: raw.properties, headers: raw.headers, body })
}

/// The handle of a raw dead letter: equal messages of a lane share it, so that a redelivery makes no second letter.
pub fn raw_instance(lane: &LaneName, message: &Message) -> Uuid {
    let mut name = lane.as_str().as_bytes().to_vec();
    name.push(0);
    name.extend_from_slice(&pack_raw(message));
    name.extend_from_slice(&Sha256::digest(&message.body));
    Uuid::new_v5(&NAMESPACE, &name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use DeadReason::{TooLarge, Undecodable as Bad, UnknownEndpoint};

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

    fn rules() -> DecodeRules {
        DecodeRules { lane: LaneName::new("bulk").expect("valid"), default_endpoint: None, body_bytes_max: 1_000 }
    }

    fn foreign() -> Message {
        Message {
            properties: Properties { message_id: Some("id-1".into()), ..Properties::default() },
            headers: Headers::from([(ENDPOINT.to_owned(), "crm".into())]),
            body: Bytes::from_static(b"{}"),
        }
    }

    fn read(message: &Message) -> Result<Job, Undecodable> {
        decode(&rules(), message, NOW, || Uuid::from_u128(7)).map(|decoded| decoded.job)
    }

    #[test]
    fn a_job_survives_the_wire() {
        let mut job = read(&foreign()).expect("readable");
        job.identity = Identity::Stamped;
        job.meta = JobMeta {
            method: Some("PUT".into()),
            path: Some("/x".into()),
            content_type: Some("application/json".into()),
            correlation_id: Some("c".into()),
            app_id: Some("a".into()),
            kind: Some("k".into()),
            traceparent: Some("00-1".into()),
            tracestate: Some("s".into()),
            ordering_key: Some("o".into()),
            not_before: Some(NOW.plus(std::time::Duration::from_millis(1_500))),
            expires_at: Some(NOW),
            max_attempts: Some(3),
            timeout_ms: Some(250),
        };
        assert_eq!(read(&encode(&job)).expect("readable"), job);
        assert_eq!(unpack_meta(&pack_meta(&job.meta)), Ok(job.meta));
    }

    #[test]
    fn redeliveries_of_a_foreign_message_agree_on_its_instance() {
        let mut message = foreign();
        let untimed = read(&message).expect("readable");
        assert_eq!((untimed.identity, untimed.published_at), (Identity::DerivedUntimed, NOW));
        assert_eq!(read(&message).expect("readable").instance, untimed.instance);
        message.properties.timestamp = Some(1_799_999_999);
        let timed = read(&message).expect("readable");
        assert_eq!((timed.identity, timed.published_at), (Identity::Derived, Timestamp::from_secs(1_799_999_999)));
        assert_ne!(timed.instance, untimed.instance);
        message.body = Bytes::from_static(b"{1}");
        assert_ne!(read(&message).expect("readable").instance, timed.instance);
    }

    #[test]
    fn a_publish_time_in_the_future_is_now() {
        let mut message = foreign();
        message.properties.timestamp = Some(1_900_000_000);
        assert_eq!(read(&message).expect("readable").published_at, NOW);
    }

    #[test]
    fn a_message_without_id_is_minted() {
        let mut message = foreign();
        message.properties.message_id = None;
        let job = read(&message).expect("readable");
        assert_eq!((job.identity, job.instance), (Identity::Minted, Uuid::from_u128(7)));
        assert_eq!(job.id.as_str(), Uuid::from_u128(7).to_string());
    }

    #[test]
    fn what_cannot_be_read_says_why() {
        let check = |change: &dyn Fn(&mut Message), reason: DeadReason, expect: &str| {
            let mut message = foreign();
            change(&mut message);
            let error = read(&message).expect_err("refused");
            assert_eq!(error.reason, reason, "{}", error.detail);
            assert!(error.detail.contains(expect), "{:?} lacks {expect:?}", error.detail);
        };
        let set = |name: &'static str, value: HeaderValue| {
            move |message: &mut Message| {
                message.headers.insert(name.to_owned(), value.clone());
            }
        };
        check(&|m| m.headers.clear(), UnknownEndpoint, "no lanes-endpoint header");
        check(&set(ENDPOINT, HeaderValue::Int(1)), Bad, "lanes-endpoint is an integer, must be text");
        check(&set(ENDPOINT, "a b".into()), Bad, "' ' is not allowed");
        check(&set(TENANT, HeaderValue::Binary(vec![0xff])), Bad, "not UTF-8");
        check(&set(NOT_BEFORE, "tomorrow".into()), Bad, "RFC 3339");
        check(&set(MAX_ATTEMPTS, HeaderValue::Int(0)), Bad, "positive whole number");
        check(&set(MAX_ATTEMPTS, HeaderValue::Int(1 << 40)), Bad, "too large");
        check(&set(INSTANCE, "nonsense".into()), Bad, "lanes-instance");
        check(&|m| m.properties.message_id = Some("a\nb".into()), Bad, "control character");
        check(&|m| m.body = vec![0; 1_001].into(), TooLarge, "1001 bytes");
    }

    #[test]
    fn a_wake_up_carries_key_and_instance_only() {
        let (key, instance) = (DedupKey([9; 16]), Uuid::from_u128(5));
        let message = encode_wake_up(key, instance);
        assert_eq!(decode_wake_up(&message), Some((key, instance)));
        assert_eq!(decode_wake_up(&foreign()), None);
    }

    #[test]
    fn a_raw_letter_gives_the_same_message_back() {
        let mut message = foreign();
        message.headers.insert("odd".into(), HeaderValue::Binary(vec![0xff, 0x00]));
        assert_eq!(unpack_raw(&pack_raw(&message), message.body.clone()), Ok(message));
    }
}
