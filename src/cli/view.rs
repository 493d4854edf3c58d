//! Rows, letters and attempts as JSON documents: what every program is shown, and bytes for people who asked for them.

use serde_json::{Value, json};

pub use crate::observe::documents::{
    account, attempt, concurrency, hold, job, letter, line, operation, pause, said, status, time,
};

/// Bytes for JSON: text where they are text, hexadecimal otherwise.
pub fn body(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => json!({ "text": text }),
        Err(_) => json!({ "hex": hex(bytes) }),
    }
}

/// Hexadecimal text.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}"); // writing to a String cannot fail
        text
    })
}
