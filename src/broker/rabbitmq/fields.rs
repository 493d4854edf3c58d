//! AMQP properties and field tables to and from [`Message`].

use std::collections::BTreeMap;

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};

use crate::message::{HeaderValue, Headers, Message, Properties};

/// Bytes of a content header besides what is counted below.
const HEADER_OVERHEAD: usize = 64;

/// Headers in which the broker keeps count; they are about the transport, not the message.
const COUNTERS: [&str; 2] = ["x-delivery-count", "x-acquired-count"];
/// Headers that RabbitMQ 3 reads again from a published message, and then drops it as a dead-letter cycle.
const DEATH_PREFIXES: [&str; 3] = ["x-death", "x-first-death-", "x-last-death-"];

/// The AMQP form of a message's properties and headers.
///
/// # Errors
/// The text says which field AMQP cannot carry.
pub(super) fn encode(message: &Message, frame_max: usize) -> Result<BasicProperties, String> {
    let mut size = HEADER_OVERHEAD;
    let Properties { message_id, content_type, correlation_id, app_id, kind, timestamp, durable } = &message.properties;
    let mut short = |name: &str, value: &Option<String>| {
        let Some(text) = value else { return Ok(None) };
        size += text.len() + 1;
        short_string(text).map(Some).ok_or_else(|| format!("{name} is longer than 255 bytes"))
    };
    let message_id = short("message_id", message_id)?;
    let content_type = short("content_type", content_type)?;
    let correlation_id = short("correlation_id", correlation_id)?;
    let app_id = short("app_id", app_id)?;
    let kind = short("type", kind)?;
    let mut table = BTreeMap::new();
    for (name, value) in &message.headers {
        if DEATH_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
            continue;
        }
        let name = short_string(name).ok_or_else(|| "a header's name is longer than 255 bytes".to_owned())?;
        let value = to_amqp(value);
        size += name.as_str().len() + value_size(&value);
        table.insert(name, value);
    }
    if size > frame_max {
        return Err(format!(
            "properties and headers take {size} bytes, more than one frame of {frame_max} (frame_max in the broker's url)"
        ));
    }
    let mut properties = BasicProperties::default()
        .with_delivery_mode(if *durable == Some(false) { 1 } else { 2 })
        .with_headers(FieldTable::from(table));
    if let Some(text) = message_id {
        properties = properties.with_message_id(text);
    }
    if let Some(text) = content_type {
        properties = properties.with_content_type(text);
    }
    if let Some(text) = correlation_id {
        properties = properties.with_correlation_id(text);
    }
    if let Some(text) = app_id {
        properties = properties.with_app_id(text);
    }
    if let Some(text) = kind {
        properties = properties.with_type(text);
    }
    if let Some(seconds) = timestamp {
        properties = properties.with_timestamp(*seconds);
    }
    Ok(properties)
}

/// A delivered message; takes its payload.
pub(super) fn decode(properties: &BasicProperties, body: Vec<u8>) -> Message {
    let text = |value: &Option<ShortString>| value.as_ref().map(ToString::to_string);
    Message {
        properties: Properties {
            message_id: text(properties.message_id()),
            content_type: text(properties.content_type()),
            correlation_id: text(properties.correlation_id()),
            app_id: text(properties.app_id()),
            kind: text(properties.kind()),
            timestamp: *properties.timestamp(),
            durable: properties.delivery_mode().map(|mode| mode != 1),
        },
        headers: properties.headers().as_ref().map(headers).unwrap_or_default(),
        body: body.into(),
    }
}

fn headers(table: &FieldTable) -> Headers {
    let own = table.into_iter().filter(|(name, _)| !COUNTERS.contains(&name.as_str()));
    own.map(|(name, value)| (name.to_string(), from_amqp(value))).collect()
}

/// `None` when it is longer than 255 bytes.
pub(super) fn short_string(text: &str) -> Option<ShortString> {
    ShortString::try_new(text).ok()
}

fn value_size(value: &AMQPValue) -> usize {
    match value {
        AMQPValue::LongString(bytes) => bytes.len() + 6,
        _ => 10,
    }
}

fn to_amqp(value: &HeaderValue) -> AMQPValue {
    match value {
        HeaderValue::Text(text) | HeaderValue::Other(text) => AMQPValue::LongString(text.as_str().into()),
        HeaderValue::Binary(bytes) => AMQPValue::LongString(bytes.as_slice().into()),
        HeaderValue::Int(number) => AMQPValue::LongLongInt(*number),
        HeaderValue::Float(number) => AMQPValue::Double(*number),
        HeaderValue::Bool(flag) => AMQPValue::Boolean(*flag),
        HeaderValue::Timestamp(seconds) => AMQPValue::Timestamp(*seconds),
        HeaderValue::Null => AMQPValue::Void,
    }
}

fn from_amqp(value: &AMQPValue) -> HeaderValue {
    match value {
        AMQPValue::LongString(text) => from_bytes(text.as_bytes()),
        AMQPValue::ByteArray(bytes) => from_bytes(bytes.as_slice()),
        AMQPValue::ShortString(text) => HeaderValue::Text(text.to_string()),
        AMQPValue::Boolean(flag) => HeaderValue::Bool(*flag),
        AMQPValue::ShortShortInt(number) => HeaderValue::Int((*number).into()),
        AMQPValue::ShortShortUInt(number) => HeaderValue::Int((*number).into()),
        AMQPValue::ShortInt(number) => HeaderValue::Int((*number).into()),
        AMQPValue::ShortUInt(number) => HeaderValue::Int((*number).into()),
        AMQPValue::LongInt(number) => HeaderValue::Int((*number).into()),
        AMQPValue::LongUInt(number) => HeaderValue::Int((*number).into()),
        AMQPValue::LongLongInt(number) => HeaderValue::Int(*number),
        AMQPValue::Float(number) => HeaderValue::Float((*number).into()),
        AMQPValue::Double(number) => HeaderValue::Float(*number),
        AMQPValue::Timestamp(seconds) => HeaderValue::Timestamp(*seconds),
        AMQPValue::Void => HeaderValue::Null,
        AMQPValue::DecimalValue(decimal) => HeaderValue::Other(format!("{}e-{}", decimal.value, decimal.scale)),
        AMQPValue::FieldArray(_) | AMQPValue::FieldTable(_) => HeaderValue::Other(written_out(value)),
    }
}

fn from_bytes(bytes: &[u8]) -> HeaderValue {
    match std::str::from_utf8(bytes) {
        Ok(text) => HeaderValue::Text(text.to_owned()),
        Err(_) => HeaderValue::Binary(bytes.to_vec()),
    }
}

/// A nested value for a person to read.
fn written_out(value: &AMQPValue) -> String {
    match value {
        AMQPValue::FieldArray(items) => {
            let items: Vec<_> = items.as_slice().iter().map(written_out).collect();
            format!("[{}]", items.join(", "))
        }
        AMQPValue::FieldTable(table) => {
            let entries: Vec<_> =
                table.into_iter().map(|(name, value)| format!("{name}: {}", written_out(value))).collect();
            format!("{{{}}}", entries.join(", "))
        }
        simple => match from_amqp(simple) {
            HeaderValue::Text(text) | HeaderValue::Other(text) => text,
            HeaderValue::Binary(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            HeaderValue::Int(number) => number.to_string(),
            HeaderValue::Float(number) => number.to_string(),
            HeaderValue::Bool(flag) => flag.to_string(),
            HeaderValue::Timestamp(seconds) => seconds.to_string(),
            HeaderValue::Null => "null".to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_amqp_cannot_carry_is_named() {
        let mut message = Message::default();
        message.properties.message_id = Some("x".repeat(256));
        assert_eq!(encode(&message, 131_072).expect_err("too long"), "message_id is longer than 255 bytes");
        message.properties.message_id = None;
        message.headers.insert("big".to_owned(), "y".repeat(5_000).into());
        assert!(encode(&message, 4_096).expect_err("too big").contains("more than one frame"));
    }

    #[test]
    fn the_brokers_own_headers_do_not_travel() {
        let mut message = Message::default();
        message.headers.insert("x-death".to_owned(), "table".into());
        message.headers.insert("mine".to_owned(), HeaderValue::Int(1));
        let properties = encode(&message, 4_096).expect("fits");
        let decoded = decode(&properties, Vec::new());
        assert_eq!(decoded.headers.keys().collect::<Vec<_>>(), ["mine"]);
    }

    #[test]
    fn nested_values_are_written_out() {
        let mut inner = FieldTable::default();
        inner.insert("n".into(), AMQPValue::ShortInt(3));
        let array = AMQPValue::FieldArray(vec![AMQPValue::FieldTable(inner), AMQPValue::Void].into());
        assert_eq!(from_amqp(&array), HeaderValue::Other("[{n: 3}, null]".to_owned()));
    }
}
