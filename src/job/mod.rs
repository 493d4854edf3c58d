//! The shared words: what a job is and the names everything is keyed by. Plain data, no I/O.

pub mod budget;
pub mod control;
pub mod event;
pub mod history;
pub mod operation;
pub mod outcome;
pub mod trace;
pub mod verdict;
pub mod wire;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::clock::Timestamp;

/// Longest lane, endpoint or tenant name, in bytes.
pub const NAME_BYTES_MAX: usize = 128;
/// Longest job id, in bytes (an AMQP short string).
pub const JOB_ID_BYTES_MAX: usize = 255;

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {text:?}: {why}")]
pub struct NameError {
    kind: &'static str,
    text: String,
    why: String,
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $check:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            #[doc = concat!("Checks and takes a ", $kind, ".")]
            ///
            /// # Errors
            /// [`NameError`] when it is empty, too long or holds a character that is not allowed.
            pub fn new(text: &str) -> Result<Self, NameError> {
                match $check(text) {
                    Ok(()) => Ok(Self(text.into())),
                    Err(why) => Err(NameError { kind: $kind, text: text.chars().take(64).collect(), why }),
                }
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                Self::new(&text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0.as_ref().to_owned()
            }
        }
    };
}

name!(
    /// A lane: part of queue names and routing keys, so letters, digits, `-` and `_` only.
    LaneName, "lane name", check_identifier
);
name!(
    /// An endpoint's name in lanes.toml; a metric label.
    EndpointName, "endpoint name", check_identifier
);
name!(
    /// A tenant: whose data and whose budget it is. Any printable text.
    Tenant, "tenant", check_tenant
);
name!(
    /// The deduplication id of a job, unique per (lane, tenant) for the window.
    JobId, "job id", check_job_id
);

impl Tenant {
    /// The tenant of jobs that name none.
    pub fn unnamed() -> Self {
        Self("default".into())
    }
}

fn check_identifier(text: &str) -> Result<(), String> {
    if text.is_empty() || text.len() > NAME_BYTES_MAX {
        return Err(format!("must be 1 to {NAME_BYTES_MAX} bytes long"));
    }
    match text.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))) {
        Some(c) => Err(format!("{c:?} is not allowed; use letters, digits, '-' and '_'")),
        None => Ok(()),
    }
}

fn check_tenant(text: &str) -> Result<(), String> {
    check_text(text, NAME_BYTES_MAX)
}

fn check_job_id(text: &str) -> Result<(), String> {
    check_text(text, JOB_ID_BYTES_MAX)
}

fn check_text(text: &str, bytes_max: usize) -> Result<(), String> {
    if text.is_empty() || text.len() > bytes_max {
        return Err(format!("must be 1 to {bytes_max} bytes long, is {}", text.len()));
    }
    match text.chars().find(|c| c.is_control()) {
        Some(c) => Err(format!("control character {c:?} is not allowed")),
        None => Ok(()),
    }
}

/// The key of deduplication: a 16-byte hash of (lane, tenant, id), the primary key of the hot table.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DedupKey(pub [u8; 16]);

impl DedupKey {
    /// The key of `id` published to `lane` for `tenant`. NUL separates the parts: no name can hold one.
    pub fn of(lane: &LaneName, tenant: &Tenant, id: &JobId) -> Self {
        let digest = Sha256::new()
            .chain_update(lane.as_str())
            .chain_update([0])
            .chain_update(tenant.as_str())
            .chain_update([0])
            .chain_update(id.as_str())
            .finalize();
        let mut key = [0; 16];
        key.copy_from_slice(&digest[..16]);
        Self(key)
    }
}

impl fmt::Debug for DedupKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// How an instance got its identity (model/protocol.md section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Identity {
    /// The publisher stamped the instance: exact in every case.
    Stamped,
    /// Derived from the message, which carries a publish time.
    Derived,
    /// Derived from a message without a publish time: an ended row counts only for redeliveries within the window.
    DerivedUntimed,
    /// The message had no id: one was made, it cannot be deduplicated.
    Minted,
}

/// One job instance: one publish of one piece of work.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// The publish this job comes from; the handle a user is given.
    pub instance: Uuid,
    /// How `instance` was found.
    pub identity: Identity,
    /// Where it runs.
    pub lane: LaneName,
    /// Whose it is.
    pub tenant: Tenant,
    /// The deduplication id.
    pub id: JobId,
    /// What is called.
    pub endpoint: EndpointName,
    /// When it was published, never later than it was first seen.
    pub published_at: Timestamp,
    /// What travels with it to the endpoint.
    pub meta: JobMeta,
    /// The bytes sent to the endpoint.
    pub body: Bytes,
}

/// The part of a job that is neither key nor body.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct JobMeta {
    /// HTTP method asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// HTTP path asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// MIME type of the body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// Application correlation id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<String>,
    /// Publishing application.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app_id: Option<String>,
    /// Application message type.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// W3C trace context.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// W3C trace state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tracestate: Option<String>,
    /// Jobs of one ordering key belong in order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ordering_key: Option<String>,
    /// Not called before this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Timestamp>,
    /// Not called after this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// Calls allowed, at most the lane's own number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<u32>,
    /// Milliseconds a call may take, at most the endpoint's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// A job that somebody wants done.
#[derive(Debug, Clone)]
pub struct NewJob {
    /// Where it runs.
    pub lane: LaneName,
    /// What is called.
    pub endpoint: EndpointName,
    /// Whose it is.
    pub tenant: Tenant,
    /// Deduplication id; without one the job's own handle is used and nothing is ever a duplicate of it.
    pub id: Option<JobId>,
    /// What travels with it.
    pub meta: JobMeta,
    /// The bytes sent to the endpoint.
    pub body: Bytes,
}

impl Job {
    /// The key under which duplicates of this job are found.
    pub fn key(&self) -> DedupKey {
        DedupKey::of(&self.lane, &self.tenant, &self.id)
    }

    /// What makes two publishes of one id the same job: the hash of endpoint, method, path and body.
    pub fn payload_sha256(&self) -> [u8; 32] {
        Sha256::new()
            .chain_update(self.endpoint.as_str())
            .chain_update([0])
            .chain_update(self.meta.method.as_deref().unwrap_or(""))
            .chain_update([0])
            .chain_update(self.meta.path.as_deref().unwrap_or(""))
            .chain_update([0])
            .chain_update(&self.body)
            .finalize()
            .into()
    }

    /// The header an endpoint can deduplicate by: stable over attempts and redeliveries, new for an operator's replay.
    pub fn idempotency_key(&self, generation: u32) -> String {
        if generation <= 1 { self.instance.to_string() } else { format!("{}:g{generation}", self.instance) }
    }
}

/// Calls allowed and time per call for one job: its own wish, bounded by what its lane and endpoint allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallLimits {
    /// Most calls that may be made.
    pub max_attempts: u32,
    /// Most time one call may take.
    pub timeout: Duration,
}
