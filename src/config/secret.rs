//! Secrets are named, never written: `env:NAME` and `file:PATH` are looked up once, here.

use std::path::Path;

use secrecy::{ExposeSecret, SecretString};
use serde_json::Value as Json;
use url::Url;

use super::document::Node;
use super::reader::{Fault, Session};
use super::value::{Shown, text};

/// Most bytes of a secret.
const SECRET_BYTES_MAX: usize = 64 * 1024;
/// Shown instead of a secret.
const MASK: &str = "***";

/// A value that may be a secret, and what may be shown of it.
#[derive(Debug, Clone)]
pub struct Secret {
    /// The reference, or the value with its secret parts masked.
    pub shown: String,
    /// The value.
    pub value: SecretString,
}

impl Shown for Secret {
    fn shown(&self) -> Json {
        self.shown.as_str().into()
    }
}

/// `Bearer env:NAME` in its parts.
struct Reference<'a> {
    /// A scheme word and a space, or nothing.
    prefix: &'a str,
    kind: Kind,
    name: &'a str,
}

enum Kind {
    Variable,
    File,
}

impl<'a> Reference<'a> {
    fn of(text: &'a str) -> Option<Self> {
        let split = text.find("env:").into_iter().chain(text.find("file:")).min()?;
        let (prefix, reference) = text.split_at(split);
        let word = prefix.strip_suffix(' ').unwrap_or(prefix);
        if (!prefix.is_empty() && prefix == word) || !word.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
            return None;
        }
        let (kind, name) = reference.split_once(':')?;
        Some(Self { prefix, kind: if kind == "env" { Kind::Variable } else { Kind::File }, name: name.trim() })
    }

    fn look_up(&self, session: &Session<'_>) -> Result<String, Fault> {
        let name = self.name;
        let found = match self.kind {
            Kind::Variable => session.env.get(name).cloned().ok_or_else(|| {
                Fault::new(format!("the environment variable {name} is not set"))
                    .help(format!("set {name}, or remove this"))
            })?,
            Kind::File => (session.read_file)(Path::new(name))
                .map_err(|error| Fault::new(format!("the file {name} cannot be read: {error}")))?,
        };
        let found = found.trim_end_matches(['\r', '\n']);
        if found.is_empty() || found.len() > SECRET_BYTES_MAX {
            let why = if found.is_empty() { "empty" } else { "too large" };
            return Err(Fault::new(format!("the secret in {name} is {why}")));
        }
        Ok(format!("{}{found}", self.prefix))
    }
}

/// A reference to a secret, with a scheme word before it or not; nothing else.
pub fn reference_only(session: &Session<'_>) -> impl Fn(&Node) -> Result<Secret, Fault> {
    move |node| {
        let text = text(node)?;
        let Some(reference) = Reference::of(&text) else {
            return Err(Fault::new("a secret must not be written here")
                .help("write \"env:NAME\" and set that variable, or \"file:PATH\""));
        };
        let value = reference.look_up(session)?.into();
        Ok(Secret { shown: text, value })
    }
}

/// Hides a value that is not a reference.
pub fn hide(value: &mut Json) {
    if value.as_str().and_then(Reference::of).is_none() {
        *value = MASK.into();
    }
}

/// A reference or plain text that is no secret.
pub fn reference_or_text(session: &Session<'_>) -> impl Fn(&Node) -> Result<Secret, Fault> {
    move |node| {
        let text = text(node)?;
        let value = match Reference::of(&text) {
            Some(reference) => reference.look_up(session)?,
            None => text.clone(),
        };
        Ok(Secret { shown: text, value: value.into() })
    }
}

/// A url, or a reference to one; `check` gets the url and must not repeat it in a fault.
pub fn url(
    session: &Session<'_>,
    check: impl Fn(&str) -> Result<(), Fault>,
) -> impl Fn(&Node) -> Result<Secret, Fault> {
    move |node| {
        let text = text(node)?;
        let reference = Reference::of(&text).filter(|reference| reference.prefix.is_empty());
        let (shown, value) = match reference {
            Some(reference) => (text.clone(), reference.look_up(session)?),
            None => (redacted(&text), text),
        };
        check(value.trim())?;
        Ok(Secret { shown, value: value.trim().into() })
    }
}

impl Secret {
    /// The secret itself.
    pub fn expose(&self) -> &str {
        self.value.expose_secret()
    }
}

/// A url as it may be shown: no password, no values of a query that may be one.
fn redacted(text: &str) -> String {
    let Ok(mut url) = Url::parse(text) else { return MASK.to_owned() };
    if url.cannot_be_a_base() {
        return text.to_owned(); // sqlite:lanes.db
    }
    if url.password().is_some() && url.set_password(Some(MASK)).is_err() {
        return MASK.to_owned();
    }
    let pairs: Vec<_> = url
        .query_pairs()
        .map(|(key, value)| {
            let shown = if is_sensitive(&key) { MASK.to_owned() } else { value.into_owned() };
            (key.into_owned(), shown)
        })
        .collect();
    if pairs.iter().any(|(_, value)| value == MASK) {
        url.query_pairs_mut().clear().extend_pairs(pairs);
    }
    url.to_string()
}

/// Whether a header or parameter of that name usually carries a secret.
pub fn is_sensitive(name: &str) -> bool {
    const PARTS: [&str; 12] = [
        "auth",
        "token",
        "secret",
        "password",
        "passwd",
        "cookie",
        "apikey",
        "credential",
        "signature",
        "privatekey",
        "accesskey",
        "session",
    ];
    let plain: String = name.to_ascii_lowercase().chars().filter(char::is_ascii_alphanumeric).collect();
    plain == "key" || plain == "sig" || PARTS.iter().any(|part| plain.contains(part))
}
