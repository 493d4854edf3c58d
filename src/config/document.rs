//! The configuration as a tree of values, each with where it came from: the file, then the environment over it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{Place, Problem, Source, similar};

/// What configuration variables begin with; the keys follow, separated by `__`.
const PREFIX: &str = "LANES_";
/// Tables whose keys are names that the user chose.
pub const NAMED_TABLES: [&str; 4] = ["lanes", "endpoints", "tenants", "schedules"];

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The bytes of the file that hold it.
    File(Range<usize>),
    /// An environment variable.
    Variable(String),
}

/// A value and its origin.
#[derive(Debug, Clone)]
pub struct Node {
    /// Where the value came from.
    pub origin: Origin,
    /// Where its key came from.
    pub key: Origin,
    /// The value.
    pub value: Value,
}

/// A value before its kind is checked.
#[derive(Debug, Clone)]
pub enum Value {
    /// Text.
    Text(String),
    /// A whole number; `None` when it does not fit.
    Integer(Option<i64>),
    /// A number with a fraction.
    Float(f64),
    /// True or false.
    Bool(bool),
    /// A list.
    Array(Vec<Node>),
    /// A table.
    Table(Table),
    /// A date or time.
    Datetime(String),
    /// A variable's text: its kind is what the key asks for.
    Variable(String),
}

/// Values by key.
pub type Table = BTreeMap<String, Node>;

impl Node {
    fn of(key: &Range<usize>, spanned: &Spanned<DeValue<'_>>) -> Self {
        let value = match spanned.get_ref() {
            DeValue::String(text) => Value::Text(text.to_string()),
            DeValue::Integer(number) => Value::Integer(i64::from_str_radix(number.as_str(), number.radix()).ok()),
            DeValue::Float(number) => Value::Float(number.as_str().parse().unwrap_or(f64::NAN)),
            DeValue::Boolean(flag) => Value::Bool(*flag),
            DeValue::Datetime(at) => Value::Datetime(at.to_string()),
            DeValue::Array(items) => Value::Array(items.iter().map(|item| Self::of(&item.span(), item)).collect()),
            DeValue::Table(table) => Value::Table(table_of(table)),
        };
        Self { origin: Origin::File(spanned.span()), key: Origin::File(key.clone()), value }
    }

    /// The text of a variable; a list or table in TOML is read as one.
    fn of_variable(name: &str, text: &str) -> Self {
        let origin = Origin::Variable(name.to_owned());
        let compound = text.trim_start().starts_with(['[', '{']).then(|| DeValue::parse(text.trim()).ok()).flatten();
        let mut node = match compound {
            Some(parsed) => Self::of(&parsed.span(), &parsed),
            None => Self { origin: origin.clone(), key: origin.clone(), value: Value::Variable(text.to_owned()) },
        };
        node.set_origin(&origin);
        node
    }

    fn set_origin(&mut self, origin: &Origin) {
        self.origin = origin.clone();
        self.key = origin.clone();
        match &mut self.value {
            Value::Array(items) => items.iter_mut().for_each(|item| item.set_origin(origin)),
            Value::Table(table) => table.values_mut().for_each(|item| item.set_origin(origin)),
            _ => {}
        }
    }

    /// The value's kind, for people.
    pub fn kind(&self) -> &'static str {
        match &self.value {
            Value::Text(_) | Value::Variable(_) => "text",
            Value::Integer(_) => "a whole number",
            Value::Float(_) => "a number",
            Value::Bool(_) => "true or false",
            Value::Array(_) => "a list",
            Value::Table(_) => "a table",
            Value::Datetime(_) => "a date",
        }
    }

    /// The value as JSON, as it was written.
    pub fn to_json(&self) -> serde_json::Value {
        self.json(&|text| text.into())
    }

    /// The same, but what a variable says is the number or the truth that it looks like: it can be read again.
    pub fn to_json_by_looks(&self) -> serde_json::Value {
        self.json(&|text| {
            let plain = text.trim();
            let whole = plain.parse::<i64>().map(serde_json::Value::from);
            let number = whole.or_else(|_| plain.parse::<f64>().map(serde_json::Value::from));
            number.or_else(|_| plain.parse::<bool>().map(serde_json::Value::from)).unwrap_or_else(|_| text.into())
        })
    }

    fn json(&self, variable: &dyn Fn(&str) -> serde_json::Value) -> serde_json::Value {
        match &self.value {
            Value::Variable(text) => variable(text),
            Value::Text(text) | Value::Datetime(text) => text.as_str().into(),
            Value::Integer(number) => (*number).into(),
            Value::Float(number) => (*number).into(),
            Value::Bool(flag) => (*flag).into(),
            Value::Array(items) => items.iter().map(|item| item.json(variable)).collect(),
            Value::Table(table) => table.iter().map(|(key, node)| (key.clone(), node.json(variable))).collect(),
        }
    }

    /// The variables that parts of the value came from, each once.
    pub fn variables(&self) -> BTreeSet<&str> {
        let own = match &self.origin {
            Origin::Variable(name) => Some(name.as_str()),
            Origin::File(_) => None,
        };
        let parts: BTreeSet<&str> = match &self.value {
            Value::Array(items) => items.iter().flat_map(Self::variables).collect(),
            Value::Table(table) => table.values().flat_map(Self::variables).collect(),
            _ => BTreeSet::new(),
        };
        own.into_iter().chain(parts).collect()
    }
}

fn table_of(table: &DeTable<'_>) -> Table {
    table.iter().map(|(key, value)| (key.get_ref().to_string(), Node::of(&key.span(), value))).collect()
}

/// Reads a file's text.
///
/// # Errors
/// Every place where it is not TOML.
pub fn parse(source: &mut Source<'_>) -> Result<Table, Vec<Problem>> {
    let (document, errors) = DeTable::parse_recoverable(source.text);
    if errors.is_empty() {
        let table = table_of(document.get_ref());
        source.secret = secrets(&table);
        return Ok(table);
    }
    // what a broken line means is not known: show no text of it that may be a secret
    source.secret = quoted_text(source.text);
    let problem = |error: &toml::de::Error| Problem {
        place: source.place(&error.span().unwrap_or(0..0)),
        message: error.message().trim().replace('\n', ", "),
        help: None,
    };
    Err(errors.iter().map(problem).collect())
}

/// The values that must not be shown: urls with a password, headers and secrets that are not references.
fn secrets(table: &Table) -> Vec<Range<usize>> {
    fn collect(key: &str, node: &Node, found: &mut Vec<Range<usize>>) {
        match (&node.value, &node.origin) {
            (Value::Table(table), _) => {
                let inner = |name: &'_ str| match (key, name) {
                    ("headers", _) => "headers".to_owned(),
                    // whoever knows the address of a chat may write there
                    ("notify", "url") => "secret".to_owned(),
                    _ => name.to_owned(),
                };
                for (name, node) in table {
                    collect(&inner(name), node, found);
                }
            }
            (Value::Array(items), _) => items.iter().for_each(|node| collect(key, node, found)),
            (Value::Text(text), Origin::File(span)) => {
                let hidden = match key {
                    "headers" | "secret" => !is_reference(text),
                    "url" => text.contains(['@', '?']),
                    _ => text.contains('@') && text.contains(':'),
                };
                if hidden {
                    // the quotes stay
                    found.push(span.start + 1..span.end.saturating_sub(1));
                }
            }
            _ => {}
        }
    }
    let mut found = Vec::new();
    for (key, node) in table {
        collect(key, node, &mut found);
    }
    found
}

fn is_reference(text: &str) -> bool {
    text.split(' ').next_back().is_some_and(|last| last.starts_with("env:") || last.starts_with("file:"))
}

/// From the first quote of each line to its end.
fn quoted_text(text: &str) -> Vec<Range<usize>> {
    let mut start = 0;
    let mut found = Vec::new();
    for line in text.split_inclusive('\n') {
        if let Some(quote) = line.find(['"', '\'']) {
            found.push(start + quote + 1..start + line.trim_end().len());
        }
        start += line.len();
    }
    found
}

/// Puts the variables of `env` that name a key over the file's values; what they cannot name is a problem.
pub fn overlay(table: &mut Table, env: &BTreeMap<String, String>) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (name, text) in env {
        let Some(path) = name.strip_prefix(PREFIX).filter(|path| path.contains("__")) else { continue };
        let path: Vec<String> = path.split("__").map(str::to_ascii_lowercase).collect();
        if let Err((message, help)) = set(table, &path, name, text) {
            problems.push(Problem { place: Place::Variable(name.clone()), message, help });
        }
    }
    problems
}

/// What is wrong with a variable's name, and what to do.
type Wrong = (String, Option<String>);

/// What a part of a variable's name is looked up in.
enum Inside<'a> {
    Table(&'a mut Table),
    List(&'a mut Vec<Node>),
}

fn set(root: &mut Table, path: &[String], name: &str, text: &str) -> Result<(), Wrong> {
    if path.iter().any(String::is_empty) {
        return Err(("names no key: an empty part between underscores".into(), None));
    }
    let mut inside = Inside::Table(root);
    for depth in 0..path.len() {
        let is_item = matches!(inside, Inside::List(_));
        let node = match inside {
            Inside::Table(table) => value_of(table, path, depth, name)?,
            Inside::List(items) => item_of(items, path, depth, name)?,
        };
        if depth + 1 == path.len() {
            let new = Node::of_variable(name, text);
            // a table's place among its neighbours is that of its key
            let key = if is_item { new.key.clone() } else { node.key.clone() };
            *node = Node { key, ..new };
            return Ok(());
        }
        inside = match &mut node.value {
            Value::Table(table) => Inside::Table(table),
            Value::Array(items) => Inside::List(items),
            _ => return Err((format!("{} is not a table", path[..=depth].join(".")), None)),
        };
    }
    Ok(())
}

/// The value that the part of `path` at `depth` means in `table`; made where a variable may add it.
fn value_of<'a>(table: &'a mut Table, path: &[String], depth: usize, name: &str) -> Result<&'a mut Node, Wrong> {
    let part = &path[depth];
    let key = alike(table, part);
    let chosen_by_user = depth == 1 && NAMED_TABLES.contains(&path[0].as_str());
    if key.is_none() && chosen_by_user {
        let near = similar(part, table.keys().map(String::as_str)).and_then(|near| renamed(name, depth, near));
        let help = match near {
            Some(near) => format!("did you mean {near}?"),
            None => format!("a variable can change what the file has under [{}], not add to it", path[0]),
        };
        return Err((format!("there is no {}.{part}", path[0]), Some(help)));
    }
    let key =
        key.unwrap_or_else(|| if depth == 3 && path[2] == "headers" { part.replace('_', "-") } else { part.clone() });
    let value = if is_list(&path[..=depth]) { Value::Array(Vec::new()) } else { Value::Table(Table::new()) };
    let origin = Origin::Variable(name.to_owned());
    Ok(table.entry(key).or_insert_with(|| Node { origin: origin.clone(), key: origin, value }))
}

/// The item that the part of `path` at `depth` counts to.
fn item_of<'a>(items: &'a mut [Node], path: &[String], depth: usize, name: &str) -> Result<&'a mut Node, Wrong> {
    let (list, part, count) = (path[..depth].join("."), &path[depth], items.len());
    let variable = name.split("__").take(depth).collect::<Vec<_>>().join("__");
    if !part.bytes().all(|byte| byte.is_ascii_digit()) {
        let help = format!("say which item by its number, from 0 on: {variable}__0");
        return Err((format!("{list} is a list, which has no {part:?}"), Some(help)));
    }
    // a number too large for the machine is beyond the end as well
    let item = part.parse::<usize>().ok().and_then(|at| items.get_mut(at));
    item.ok_or_else(|| {
        let there = match count {
            0 => "there is none".to_owned(),
            1 => "there is 1, item 0".to_owned(),
            _ => format!("there are {count}, items 0 to {}", count - 1),
        };
        let help = format!("to add an item, set the whole list: {variable}");
        (format!("{list} has no item {part}: {there}"), Some(help))
    })
}

/// Where a list of tables stands, be there one or not.
fn is_list(path: &[String]) -> bool {
    let is = |at: usize, part: &str| path.get(at).is_some_and(|key| key == part);
    path.len() == 1 && is(0, "notify")
        || is(2, "limits") && (path.len() == 3 && is(0, "endpoints") || path.len() == 4 && is(0, "tenants"))
}

/// The key of `table` that `part` of a variable's name means: case and `-` or `_` do not matter.
fn alike(table: &Table, part: &str) -> Option<String> {
    let plain = |text: &str| text.to_ascii_lowercase().replace('-', "_");
    table.keys().find(|key| plain(key) == plain(part)).cloned()
}

/// The variable's name with another part at `depth`; `None` when it does not reach there.
pub fn renamed(variable: &str, depth: usize, part: &str) -> Option<String> {
    let path = variable.strip_prefix(PREFIX).unwrap_or(variable);
    let mut parts: Vec<_> = path.split("__").map(str::to_owned).collect();
    *parts.get_mut(depth)? = part.to_ascii_uppercase().replace('-', "_");
    Some(format!("{PREFIX}{}", parts.join("__")))
}
