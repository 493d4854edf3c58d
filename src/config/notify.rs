//! `[[notify]]`: who is told of incidents, and of which.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use url::Url;

use super::document::Node;
use super::endpoints::{check_url, is_metadata};
use super::reader::{Fault, Reader};
use super::secret::{self, Secret};
use super::specs::{NotifyKind, NotifySpec};
use super::value::{Shown, Word, duration, list, text, word};
use crate::job::EndpointName;
use crate::policy::health::{Kind, Severity};

/// Most sinks.
const SINKS_MAX: usize = 16;
/// Shorter is no reminder, it is noise.
const REPEAT_MIN: Duration = Duration::from_mins(5);
const REPEAT_MAX: Duration = Duration::from_hours(24 * 7);
const SECRET_PREFIX: &str = "whsec_";
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;
const FORMS: &[(&str, NotifyKind)] = &[("webhook", NotifyKind::Webhook), ("slack", NotifyKind::Slack)];
const SEVERITIES: &[(&str, Severity)] =
    &[("critical", Severity::Critical), ("warning", Severity::Warning), ("info", Severity::Info)];
const KINDS: [(&str, Kind); Kind::ALL.len()] = {
    let mut words = [("", Kind::ALL[0]); Kind::ALL.len()];
    let mut at = 0;
    while at < words.len() {
        words[at] = (Kind::ALL[at].as_str(), Kind::ALL[at]);
        at += 1;
    }
    words
};

/// All sinks, in the order of the file.
pub fn sinks(root: &Reader<'_>) -> Vec<NotifySpec> {
    let read = root.secret_tables("notify", &["url", "secret"], sink);
    if read.len() > SINKS_MAX {
        root.problem("notify", &format!("there are {}, at most {SINKS_MAX} are told", read.len()), None);
    }
    let named = read.into_iter().enumerate().filter_map(|(at, read)| {
        let (name, sink) = read?;
        let form = FORMS.iter().find(|(_, kind)| *kind == sink.kind).map_or("sink", |(word, _)| word);
        let name = name.or_else(|| EndpointName::new(&format!("{form}-{}", at + 1)).ok())?;
        Some(NotifySpec { name, ..sink })
    });
    let mut sinks: Vec<NotifySpec> = Vec::new();
    for sink in named {
        if sinks.iter().any(|known| known.name == sink.name) {
            let help = "what it was told is remembered by its name: give each one of its own";
            root.problem("notify", &format!("two sinks have the name {:?}", sink.name.as_str()), Some(help));
        }
        sinks.push(sink);
    }
    sinks
}

/// One sink, and its name if it has one.
fn sink(table: &Reader<'_>) -> Option<(Option<EndpointName>, NotifySpec)> {
    let name = table.get("name", name);
    let kind = table.required("kind", "one of: webhook, slack", word(FORMS)).map(|kind| kind.value);
    let check = |url: &str| check(url).map(|_| ());
    let url = table.required("url", "url = \"env:NAME\", and set that variable", secret::url(table.session, check));
    let warning = Word { word: "warning", value: Severity::Warning };
    let min_severity = table.get_or("min_severity", warning, word(SEVERITIES)).value;
    let kinds: Vec<Word<Kind>> = table.get_or("kinds", Vec::new(), list(word(&KINDS)));
    let repeat = table.get("repeat", duration(REPEAT_MIN..=REPEAT_MAX));
    let secret = table.get("secret", |node| {
        let secret = secret::reference_only(table.session)(node)?;
        check_secret(&secret)?;
        Ok(secret)
    });
    if kind == Some(NotifyKind::Slack) && table.is_set("secret") {
        table.problem("secret", "is checked by nobody: Slack takes no signatures", Some("remove it"));
    }
    let spec = NotifySpec {
        name: EndpointName::new("sink").ok()?,
        kind: kind?,
        url: url.and_then(|url| check_url(url.expose()).ok())?,
        min_severity,
        kinds: kinds.into_iter().map(|kind| kind.value).collect(),
        repeat,
        secret: secret.map(|secret| secret.value),
    };
    Some((name.map(|Name(name)| name), spec))
}

/// A sink's name.
struct Name(EndpointName);

impl Shown for Name {
    fn shown(&self) -> serde_json::Value {
        self.0.as_str().into()
    }
}

fn name(node: &Node) -> Result<Name, Fault> {
    EndpointName::new(&text(node)?).map(Name).map_err(|error| Fault::new(error.to_string()))
}

fn check(text: &str) -> Result<Url, Fault> {
    let url = check_url(text)?;
    if is_metadata(&url) {
        return Err(Fault::new("is the address of a cloud's metadata service"));
    }
    Ok(url)
}

/// As Standard Webhooks says; without showing it.
fn check_secret(secret: &Secret) -> Result<(), Fault> {
    let text = secret.expose();
    let decoded = STANDARD.decode(text.strip_prefix(SECRET_PREFIX).unwrap_or(text));
    if decoded.is_ok_and(|bytes| SECRET_BYTES.contains(&bytes.len())) {
        return Ok(());
    }
    Err(Fault::new("is no secret of Standard Webhooks: whsec_ and 24 to 64 bytes in base64")
        .help("make one: echo whsec_$(openssl rand -base64 32)"))
}
