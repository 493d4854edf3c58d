//! What a broker moves: properties, headers and body bytes, with no meaning attached.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// One message as a broker carries it. The names of the properties are those of AMQP 0-9-1.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Message {
    /// The fixed set of message properties.
    pub properties: Properties,
    /// Free headers.
    pub headers: Headers,
    /// Opaque payload.
    pub body: Bytes,
}

/// Headers by name, in name order.
pub type Headers = BTreeMap<String, HeaderValue>;

/// The AMQP 0-9-1 basic properties that lanes reads or passes on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Properties {
    /// The publisher's id of the message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_id: Option<String>,
    /// MIME type of the body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// Application correlation id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<String>,
    /// Name of the publishing application.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app_id: Option<String>,
    /// Application message type.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Publish time, whole seconds since the epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<u64>,
    /// False for delivery mode 1 (lost when the broker restarts).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub durable: Option<bool>,
}

/// A header's value: the kinds that lanes understands, and the rest as text for a person to read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeaderValue {
    /// Text that is valid UTF-8.
    Text(String),
    /// A long string whose bytes are not UTF-8.
    Binary(Vec<u8>),
    /// Any integer kind.
    Int(i64),
    /// Any floating-point kind.
    Float(f64),
    /// A boolean.
    Bool(bool),
    /// An AMQP timestamp, seconds since the epoch.
    Timestamp(u64),
    /// A void field.
    Null,
    /// A table, an array or another kind, written out for a person.
    Other(String),
}

impl HeaderValue {
    /// The kind's name, for error messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "text",
            Self::Binary(_) => "bytes that are not UTF-8",
            Self::Int(_) => "an integer",
            Self::Float(_) => "a float",
            Self::Bool(_) => "a boolean",
            Self::Timestamp(_) => "a timestamp",
            Self::Null => "void",
            Self::Other(_) => "a table or array",
        }
    }
}

impl From<&str> for HeaderValue {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for HeaderValue {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}
