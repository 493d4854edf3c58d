//! What may be shown of payloads and texts from outside: their shape, never their secrets.

use std::fmt::{self, Write as _};

use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// Shown instead of a secret.
pub const MASK: &str = "•••";
/// Larger bodies are not shown.
pub const SHOWN_BYTES_MAX: usize = 128 * 1024;
/// What lies deeper is not shown.
const DEPTH_MAX: usize = 32;
/// Names that hold one of these, whatever is between its letters, hold a secret.
const PARTS: [&str; 26] = [
    "authorization",
    "authentication",
    "bearer",
    "cookie",
    "token",
    "secret",
    "password",
    "passwd",
    "passphrase",
    "passcode",
    "pwd",
    "apikey",
    "accesskey",
    "privatekey",
    "signingkey",
    "encryptionkey",
    "credential",
    "signature",
    "session",
    "card",
    "cvv",
    "cvc",
    "iban",
    "accountnumber",
    "socialsecurity",
    "jwt",
];
/// Names that are one of these hold a secret.
const WHOLE: [&str; 9] = ["auth", "key", "sig", "pin", "pan", "otp", "ssn", "pass", "hmac"];

/// Whether a field, header or parameter of that name usually holds a secret.
pub fn is_secret(name: &str) -> bool {
    let plain: String = name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect();
    WHOLE.contains(&plain.as_str()) || PARTS.iter().any(|part| plain.contains(part))
}

/// JSON, indented, numbers as they were written, with the values of secret names masked at any depth; `None` when it is
/// not JSON, or too large.
pub fn json(bytes: &[u8]) -> Option<String> {
    if bytes.len() > SHOWN_BYTES_MAX {
        return None;
    }
    let value: &RawValue = serde_json::from_slice(bytes).ok()?;
    let mut masked = Writer { text: String::with_capacity(bytes.len() * 2), indented: true, kept: None };
    masked.value(value, false, 0);
    Some(masked.text)
}

/// The same for somebody who edits it: each value that is masked has a number, and stands in the answer as it was written.
pub fn numbered(bytes: &[u8]) -> Option<(String, Vec<String>)> {
    if bytes.len() > SHOWN_BYTES_MAX {
        return None;
    }
    let value: &RawValue = serde_json::from_slice(bytes).ok()?;
    let text = String::with_capacity(bytes.len() * 2);
    let mut masked = Writer { text, indented: true, kept: Some(Vec::new()) };
    masked.value(value, false, 0);
    Some((masked.text, masked.kept.unwrap_or_default()))
}

/// One level of JSON; what is below stays text, so that no number loses a digit and no name its place.
enum Level<'a> {
    Object(Vec<(String, &'a RawValue)>),
    Array(Vec<&'a RawValue>),
}

impl<'de: 'a, 'a> Deserialize<'de> for Level<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reading;
        impl<'de> Visitor<'de> for Reading {
            type Value = Level<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object or a list")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Level<'de>, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Level::Object(entries))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Level<'de>, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = list.next_element()? {
                    items.push(item);
                }
                Ok(Level::Array(items))
            }
        }
        deserializer.deserialize_any(Reading)
    }
}

struct Writer {
    text: String,
    indented: bool,
    /// What was masked, where that has to be told apart: the first is number 1.
    kept: Option<Vec<String>>,
}

impl Writer {
    /// Writes a value; `secret` = it stands below a secret name.
    fn value(&mut self, value: &RawValue, secret: bool, depth: usize) {
        let text = value.get();
        if depth > DEPTH_MAX {
            self.hide(text);
            return;
        }
        match text.as_bytes().first() {
            Some(b'{' | b'[') => match serde_json::from_str(text) {
                Ok(level) => self.level(level, secret, depth),
                Err(_) => self.hide(text),
            },
            _ if secret => self.hide(text),
            Some(b'"') => match serde_json::from_str::<String>(text).map(|plain| (inner(&plain), plain)) {
                // what is only half a secret can't be put back into what somebody has edited
                Ok((shown, plain)) if self.kept.is_some() && (shown != plain || plain.contains(MASK)) => {
                    self.hide(text);
                }
                Ok((shown, _)) => self.quote(&shown),
                Err(_) => self.hide(text),
            },
            _ => self.text.push_str(text),
        }
    }

    fn hide(&mut self, raw: &str) {
        let number = self.kept.as_mut().map(|kept| {
            kept.push(raw.to_owned());
            kept.len()
        });
        match number {
            Some(number) => self.quote(&format!("{MASK}{number}")),
            None => self.quote(MASK),
        }
    }

    fn level(&mut self, level: Level<'_>, secret: bool, depth: usize) {
        let (open, close, entries): (_, _, Vec<(Option<String>, &RawValue)>) = match level {
            Level::Object(entries) => {
                ('{', '}', entries.into_iter().map(|(name, value)| (Some(name), value)).collect())
            }
            Level::Array(items) => ('[', ']', items.into_iter().map(|item| (None, item)).collect()),
        };
        self.text.push(open);
        let (empty, mut first) = (entries.is_empty(), true);
        for (name, value) in entries {
            if !std::mem::take(&mut first) {
                self.text.push(',');
            }
            self.line(depth + 1);
            let mut below = secret;
            if let Some(name) = name {
                self.quote(&name);
                self.text.push_str(if self.indented { ": " } else { ":" });
                below |= is_secret(&name);
            }
            self.value(value, below, depth + 1);
        }
        if !empty {
            self.line(depth);
        }
        self.text.push(close);
    }

    fn line(&mut self, depth: usize) {
        if self.indented {
            // writing to a String cannot fail
            let _ = write!(self.text, "\n{:width$}", "", width = depth * 2);
        }
    }

    fn quote(&mut self, text: &str) {
        self.text.push_str(&serde_json::Value::from(text).to_string());
    }
}

/// A text inside of JSON: it may itself be JSON, or carry a credential.
fn inner(value: &str) -> String {
    if value.trim_start().starts_with(['{', '['])
        && let Ok(raw) = serde_json::from_str::<&RawValue>(value)
    {
        let mut masked = Writer { text: String::with_capacity(value.len()), indented: false, kept: None };
        masked.value(raw, false, 0);
        return masked.text;
    }
    text(value)
}

/// Free text with what looks like a secret masked: `token=...`, `"password": "..."`, `Bearer ...`, `user:pass@host`.
pub fn text(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(|c: char| c.is_alphanumeric()) {
        let (before, tail) = rest.split_at(at);
        shown.push_str(before);
        let end = tail.find(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '-' | '.'))).unwrap_or(tail.len());
        let (word, tail) = tail.split_at(end);
        shown.push_str(word);
        rest = tail;
        if matches!(word.to_ascii_lowercase().as_str(), "bearer" | "basic") {
            rest = skip_value(tail.trim_start_matches(' '), tail, &mut shown);
        } else if let Some(value) = after_separator(tail).filter(|_| is_secret(word)) {
            rest = skip_value(value, tail, &mut shown);
        } else if let Some(tail) = tail.strip_prefix("://") {
            shown.push_str("://");
            rest = user_info(tail, &mut shown);
        }
    }
    shown.push_str(rest);
    shown
}

/// What follows `:` or `=` after a name, with the quotes and spaces between them.
fn after_separator(tail: &str) -> Option<&str> {
    let quoted = tail.trim_start_matches(['"', '\'', '\\']);
    let value = quoted.trim_start().strip_prefix([':', '='])?;
    Some(value.trim_start().trim_start_matches(['"', '\'', '\\']))
}

/// Masks the value that begins at `value`, in `whole`; answers what follows it.
fn skip_value<'a>(value: &'a str, whole: &'a str, shown: &mut String) -> &'a str {
    let between = &whole[..whole.len() - value.len()];
    shown.push_str(between);
    let quoted = between.ends_with(['"', '\'']);
    let ends = |c: char| {
        if quoted {
            matches!(c, '"' | '\'')
        } else {
            c.is_whitespace() || matches!(c, '"' | '\'' | '&' | ',' | ';' | ')' | '}' | ']' | '<')
        }
    };
    let end = value.find(ends).unwrap_or(value.len());
    // "Authorization: Bearer abc": the scheme is no secret, what follows it is
    let end = match value[..end].to_ascii_lowercase().as_str() {
        "bearer" | "basic" | "token" => {
            let after = value[end..].trim_start_matches(' ');
            value.len() - after.len() + after.find(ends).unwrap_or(after.len())
        }
        _ => end,
    };
    if end > 0 {
        shown.push_str(MASK);
    }
    &value[end..]
}

/// Masks `user:password@` at the beginning of what follows `://`.
fn user_info<'a>(tail: &'a str, shown: &mut String) -> &'a str {
    let end = tail.find(|c: char| c.is_whitespace() || matches!(c, '/' | '?' | '#' | '"')).unwrap_or(tail.len());
    match tail[..end].rfind('@') {
        Some(at) => {
            shown.push_str(MASK);
            &tail[at..]
        }
        None => tail,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_of_secrets_are_known_however_they_are_written() {
        for name in [
            "authorization",
            "Proxy-Authorization",
            "api_key",
            "API-Key",
            "x-api-key",
            "accessToken",
            "refresh_token",
            "client_secret",
            "PASSWORD",
            "Set-Cookie",
            "card_number",
            "CreditCard",
            "cvv2",
            "key",
            "pin",
        ] {
            assert!(is_secret(name), "{name}");
        }
        for name in ["email", "name", "author", "keyboard", "primary_contact", "shipping", "company", "id"] {
            assert!(!is_secret(name), "{name}");
        }
    }

    #[test]
    fn secrets_are_masked_at_any_depth_and_the_shape_is_kept() {
        let body = r#"{"email":"ada@example.com","auth":{"user":"ada","scopes":["a","b"]},
            "cards":[{"number":4111111111111111}],"deep":[{"x":{"api_key":"k3y"}}],"big":12345678901234567890123,"f":1.10,"no":null,"token":null}"#;
        let masked = json(body.as_bytes()).expect("JSON");
        let expected = r#"{
  "email": "ada@example.com",
  "auth": {
    "user": "•••",
    "scopes": [
      "•••",
      "•••"
    ]
  },
  "cards": [
    {
      "number": "•••"
    }
  ],
  "deep": [
    {
      "x": {
        "api_key": "•••"
      }
    }
  ],
  "big": 12345678901234567890123,
  "f": 1.10,
  "no": null,
  "token": "•••"
}"#;
        assert_eq!(masked, expected);
        assert_eq!(json(b"{}").as_deref(), Some("{}"));
        assert_eq!(json(b"[1, []]").as_deref(), Some("[\n  1,\n  []\n]"));
        for no in [&b"not JSON"[..], b"", b"{\"a\":1", b"\xff"] {
            assert_eq!(json(no), None);
        }
    }

    #[test]
    fn json_in_a_text_and_names_twice_hide_nothing() {
        let body = r#"{"raw":"{\"password\":\"hunter2\",\"a\":1}","a":1,"secret":"one","secret":"two","note":"Bearer abc.def"}"#;
        let masked = json(body.as_bytes()).expect("JSON");
        for secret in ["hunter2", "one", "two", "abc.def"] {
            assert!(!masked.contains(secret), "{secret}: {masked}");
        }
        let deep = format!("{}\"hunter2\"{}", "[".repeat(100), "]".repeat(100));
        assert!(!json(deep.as_bytes()).expect("JSON").contains("hunter2"));
        let named = r#"{"pass\u0077ord":"hunter2"}"#;
        assert!(!json(named.as_bytes()).expect("JSON").contains("hunter2"), "an escaped name is the same name");
    }

    #[test]
    fn free_text_loses_what_looks_like_a_secret() {
        for (raw, shown) in [
            ("HTTP 422: email is wrong", "HTTP 422: email is wrong"),
            ("token=abc123&x=1", "token=•••&x=1"),
            ("Authorization: Bearer abc.def-x", "Authorization: •••"),
            ("bearer abc", "bearer •••"),
            (r#"{"password": "hunter 2", "a": 1"#, r#"{"password": "•••", "a": 1"#),
            (r#"{\"api_key\":\"k3y\"}"#, r#"{\"api_key\":\"•••"#),
            ("postgres://ada:pw@db/lanes", "postgres://•••@db/lanes"),
            ("see https://api.example.com/v1?access_token=x", "see https://api.example.com/v1?access_token=•••"),
            ("the token is wrong", "the token is wrong"),
            ("pin: 1234, ok", "pin: •••, ok"),
        ] {
            let found = text(raw);
            assert!(found.starts_with(shown), "{raw} became {found}, not {shown}");
        }
    }

    proptest! {
        #[test]
        fn no_secret_survives_anywhere(depth in 0_usize..40, list in any::<bool>()) {
            let mut body = r#"{"token":"hunter2"}"#.to_owned();
            for _ in 0..depth {
                body = if list { format!("[{body}]") } else { format!(r#"{{"a":{body}}}"#) };
            }
            let masked = json(body.as_bytes()).expect("JSON");
            prop_assert!(!masked.contains("hunter2"), "{}", masked);
        }

        #[test]
        fn any_text_is_taken(raw in ".{0,200}") {
            let _shown = text(&raw);
            let _shown = json(raw.as_bytes());
        }
    }
}
