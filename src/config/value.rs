//! Kinds of values: what text and numbers of a setting may say, and how a value is shown.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use http::{HeaderName, Method};
use serde_json::Value as Json;

use super::document::{Node, Value};
use super::problem::similar;
use super::reader::Fault;

/// Most items of a list.
const LIST_MAX: usize = 1_000;
/// Units of time, the longest first.
const TIME_UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
/// Units of size, the largest first.
const SIZE_UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// How an effective value is shown.
pub trait Shown {
    /// The value as JSON; secrets are masked.
    fn shown(&self) -> Json;
}

macro_rules! shown {
    ($($kind:ty: |$value:ident| $shown:expr;)*) => {
        $(impl Shown for $kind {
            fn shown(&self) -> Json {
                let $value = self;
                $shown
            }
        })*
    };
}

shown! {
    u16: |number| (*number).into();
    u32: |number| (*number).into();
    f64: |number| (*number).into();
    bool: |flag| (*flag).into();
    String: |text| text.as_str().into();
    Duration: |duration| duration_text(*duration).into();
    Size: |size| size_text(size.0).into();
    SocketAddr: |address| address.to_string().into();
    IpAddr: |address| address.to_string().into();
    HeaderName: |name| name.as_str().into();
    Method: |method| method.as_str().into();
    Json: |json| json.clone();
}

impl<T: Shown> Shown for Vec<T> {
    fn shown(&self) -> Json {
        self.iter().map(Shown::shown).collect()
    }
}

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
pub struct Size(pub u64);

/// A setting that is one of a few words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Word<T> {
    /// As written.
    pub word: &'static str,
    /// What it means.
    pub value: T,
}

impl<T> Shown for Word<T> {
    fn shown(&self) -> Json {
        self.word.into()
    }
}

/// Text.
pub fn text(node: &Node) -> Result<String, Fault> {
    match &node.value {
        Value::Text(text) | Value::Variable(text) => Ok(text.clone()),
        _ => Err(Fault::new(format!("expected text, found {}", node.kind()))),
    }
}

/// Text that is not empty.
pub fn some_text(node: &Node) -> Result<String, Fault> {
    text(node).and_then(|text| if text.trim().is_empty() { Err(Fault::new("is empty")) } else { Ok(text) })
}

/// True or false.
pub fn flag(node: &Node) -> Result<bool, Fault> {
    let fault = || Fault::new(format!("expected true or false, found {}", found(node)));
    match &node.value {
        Value::Bool(flag) => Ok(*flag),
        Value::Variable(text) => text.trim().parse().map_err(|_| fault()),
        Value::Text(text) if matches!(text.as_str(), "true" | "false") => Err(fault().help("write it without quotes")),
        _ => Err(fault()),
    }
}

/// A whole number in a range.
pub fn integer(range: RangeInclusive<u32>) -> impl Fn(&Node) -> Result<u32, Fault> {
    move |node| {
        let expected = || Fault::new(format!("expected a whole number, found {}", found(node)));
        let number = match &node.value {
            Value::Integer(Some(number)) => *number,
            Value::Integer(None) => {
                return Err(Fault::new(format!("must be {} to {}", range.start(), range.end())));
            }
            Value::Variable(text) => text.trim().parse::<i64>().map_err(|_| expected())?,
            Value::Text(text) if text.trim().parse::<i64>().is_ok() => {
                return Err(expected().help("write it without quotes"));
            }
            _ => return Err(expected()),
        };
        let within = u32::try_from(number).ok().filter(|number| range.contains(number));
        within.ok_or_else(|| Fault::new(format!("must be {} to {}, is {number}", range.start(), range.end())))
    }
}

/// A number in a range.
pub fn number(range: RangeInclusive<f64>) -> impl Fn(&Node) -> Result<f64, Fault> {
    move |node| {
        let expected = || Fault::new(format!("expected a number, found {}", found(node)));
        let number = match &node.value {
            Value::Float(number) => *number,
            Value::Integer(number) => {
                let small = number.and_then(|number| i32::try_from(number).ok());
                small.map_or(f64::INFINITY, f64::from)
            }
            Value::Variable(text) => text.trim().parse().map_err(|_| expected())?,
            Value::Text(text) if text.trim().parse::<f64>().is_ok() => {
                return Err(expected().help("write it without quotes"));
            }
            _ => return Err(expected()),
        };
        let fault = || Fault::new(format!("must be {} to {}, is {number}", range.start(), range.end()));
        range.contains(&number).then_some(number).ok_or_else(fault)
    }
}

/// A duration such as `"500ms"`, `"10s"`, `"1m30s"`, `"7d"` in a range.
pub fn duration(range: RangeInclusive<Duration>) -> impl Fn(&Node) -> Result<Duration, Fault> {
    move |node| {
        let text = match &node.value {
            Value::Text(text) | Value::Variable(text) => text.trim(),
            Value::Integer(Some(number)) if *number >= 0 => return Err(no_unit(&number.to_string())),
            _ => return Err(Fault::new(format!("expected a duration like \"10s\", found {}", found(node)))),
        };
        let duration = parse_duration(text)?;
        if range.contains(&duration) {
            return Ok(duration);
        }
        let (least, most) = (duration_text(*range.start()), duration_text(*range.end()));
        Err(Fault::new(format!("must be {least} to {most}, is {}", duration_text(duration))))
    }
}

fn no_unit(number: &str) -> Fault {
    Fault::new("a duration needs a unit").help(format!("did you mean \"{number}s\"? units are ms, s, m, h, d"))
}

fn parse_duration(text: &str) -> Result<Duration, Fault> {
    let mut rest = text;
    let mut millis = 0_u64;
    let too_long = || Fault::new("is too long");
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (amount, tail) = rest.split_at(digits);
        let unit_end = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        if amount.is_empty() {
            return Err(Fault::new(format!("{text:?} is not a duration")).help("write it like \"10s\" or \"1m30s\""));
        }
        let amount: u64 = amount.parse().map_err(|_| too_long())?;
        if unit.is_empty() {
            return Err(no_unit(text));
        }
        let Some((_, scale)) = TIME_UNITS.iter().find(|(name, _)| *name == unit) else {
            return Err(unknown_time_unit(unit, amount));
        };
        millis = amount.checked_mul(*scale).and_then(|part| millis.checked_add(part)).ok_or_else(too_long)?;
        rest = tail;
    }
    if text.is_empty() { Err(Fault::new("is empty")) } else { Ok(Duration::from_millis(millis)) }
}

fn unknown_time_unit(unit: &str, amount: u64) -> Fault {
    let meant = match unit.trim().to_ascii_lowercase().as_str() {
        "s" | "sec" | "secs" | "second" | "seconds" => Some("s"),
        "m" | "min" | "mins" | "minute" | "minutes" => Some("m"),
        "h" | "hr" | "hrs" | "hour" | "hours" => Some("h"),
        "d" | "day" | "days" => Some("d"),
        "msec" | "millis" | "milliseconds" => Some("ms"),
        _ => None,
    };
    let fault = Fault::new(format!("{unit:?} is not a unit of time"));
    match meant {
        Some(meant) => fault.help(format!("did you mean \"{amount}{meant}\"?")),
        None => fault.help("units are ms, s, m, h, d, in whole numbers"),
    }
}

/// The shortest text that [`duration`] reads as this one.
pub fn duration_text(duration: Duration) -> String {
    let mut millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let mut text = String::new();
    for (unit, scale) in TIME_UNITS {
        if millis >= scale {
            // writing to a String cannot fail
            let _ = write!(text, "{}{unit}", millis / scale);
            millis %= scale;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

/// A size such as `"64KiB"` or `"1MiB"` in a range.
pub fn size(range: RangeInclusive<u64>) -> impl Fn(&Node) -> Result<Size, Fault> {
    move |node| {
        let text = match &node.value {
            Value::Text(text) | Value::Variable(text) => text.trim().to_owned(),
            Value::Integer(Some(number)) if *number >= 0 => number.to_string(),
            _ => return Err(Fault::new(format!("expected a size like \"1MiB\", found {}", found(node)))),
        };
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (amount, unit) = text.split_at(digits);
        let fault = || Fault::new(format!("{text:?} is not a size")).help("write it like \"64KiB\" or \"1MiB\"");
        let amount: u64 = amount.parse().map_err(|_| fault())?;
        let unit = unit.trim();
        if unit.is_empty() {
            return Err(Fault::new("a size needs a unit")
                .help(format!("did you mean \"{amount}B\"? units are B, KiB, MiB, GiB")));
        }
        let unit = SIZE_UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(fault)?;
        let bytes = amount.checked_mul(unit.1).ok_or_else(fault)?;
        let (least, most) = (size_text(*range.start()), size_text(*range.end()));
        let outside = || Fault::new(format!("must be {least} to {most}, is {}", size_text(bytes)));
        range.contains(&bytes).then_some(Size(bytes)).ok_or_else(outside)
    }
}

fn size_text(bytes: u64) -> String {
    let fits = |scale: &u64| bytes >= *scale && bytes.is_multiple_of(*scale);
    let (unit, scale) = SIZE_UNITS.iter().find(|(_, scale)| fits(scale)).unwrap_or(&("B", 1));
    format!("{}{unit}", bytes / scale)
}

/// One of a few words.
pub fn word<T: Copy>(words: &'static [(&'static str, T)]) -> impl Fn(&Node) -> Result<Word<T>, Fault> {
    move |node| {
        let text = text(node)?;
        let known = || words.iter().map(|(word, _)| *word);
        if let Some(&(word, value)) = words.iter().find(|(word, _)| *word == text) {
            return Ok(Word { word, value });
        }
        let help = match similar(&text, known()) {
            Some(near) => format!("did you mean {near:?}?"),
            None => format!("one of: {}", known().collect::<Vec<_>>().join(", ")),
        };
        Err(Fault::new(format!("{text:?} is not known here")).help(help))
    }
}

/// A list; in a variable also without brackets and quotes: `POST,PATCH`.
pub fn list<T>(item: impl Fn(&Node) -> Result<T, Fault>) -> impl Fn(&Node) -> Result<Vec<T>, Fault> {
    move |node| {
        let split: Vec<Node>;
        let items = match &node.value {
            Value::Array(items) => items,
            Value::Variable(text) => {
                split = text.split(',').map(|part| variable_item(node, part)).collect();
                &split
            }
            _ => return Err(Fault::new(format!("expected a list, found {}", node.kind()))),
        };
        if items.len() > LIST_MAX {
            return Err(Fault::new(format!("has {} items, at most {LIST_MAX} are allowed", items.len())));
        }
        let (mut values, mut faults) = (Vec::with_capacity(items.len()), Vec::new());
        for node in items {
            match item(node) {
                Ok(value) => values.push(value),
                Err(fault) => faults.push(fault.at(node)),
            }
        }
        match faults.pop() {
            None => Ok(values),
            Some(last) => Err(Fault { also: faults, ..last }),
        }
    }
}

fn variable_item(node: &Node, text: &str) -> Node {
    Node { value: Value::Variable(text.trim().to_owned()), ..node.clone() }
}

/// An HTTP method.
pub fn method(node: &Node) -> Result<Method, Fault> {
    let text = text(node)?;
    let fault = |why: &str| Fault::new(format!("{text:?} {why}"));
    if text.chars().any(|c| c.is_ascii_lowercase()) {
        return Err(fault("is not a method").help(format!("did you mean {:?}?", text.to_ascii_uppercase())));
    }
    match Method::from_bytes(text.as_bytes()) {
        Ok(Method::CONNECT | Method::TRACE) => Err(fault("can't be called")),
        Ok(method) => Ok(method),
        Err(_) => Err(fault("is not a method")),
    }
}

/// An address to listen at.
pub fn socket_address(node: &Node) -> Result<SocketAddr, Fault> {
    let text = text(node)?;
    text.parse().map_err(|_| {
        let fault = Fault::new(format!("{text:?} is not an address and port"));
        let port = text.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
        match port.or_else(|| text.parse().ok()) {
            Some(port) => fault.help(format!("did you mean \"127.0.0.1:{port}\"?")),
            None => fault.help("write it like \"127.0.0.1:9464\""),
        }
    })
}

/// Any value.
#[expect(clippy::unnecessary_wraps, reason = "it has the form of every kind of value")]
pub fn anything(node: &Node) -> Result<Json, Fault> {
    Ok(node.to_json())
}

/// A JSON pointer.
pub fn pointer(node: &Node) -> Result<String, Fault> {
    let text = text(node)?;
    if text.is_empty() || text.starts_with('/') {
        return Ok(text);
    }
    let fault = Fault::new(format!("{text:?} is not a JSON pointer"));
    Err(fault.help(format!("did you mean \"/{}\"?", text.replace('.', "/"))))
}

/// What was found where another kind was expected; text is quoted.
fn found(node: &Node) -> String {
    match &node.value {
        Value::Text(text) | Value::Variable(text) => format!("{:?}", text.chars().take(40).collect::<String>()),
        Value::Integer(Some(number)) => number.to_string(),
        _ => node.kind().to_owned(),
    }
}
