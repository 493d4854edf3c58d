//! Reads typed settings out of the tree and collects, on the way, every problem and every effective value.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value as Json;

use super::document::{Node, Origin, Table, Value, renamed};
use super::problem::{Place, Problem, Source, similar};
use super::secret;
use super::value::Shown;

/// What is wrong with one value; `origin` where it is narrower than the whole value.
#[derive(Debug)]
pub struct Fault {
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub help: Option<String>,
    /// A part of the value, if not all of it.
    pub origin: Option<Origin>,
    /// What else is wrong with it.
    pub also: Vec<Fault>,
}

impl Fault {
    /// A fault of the whole value.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), help: None, origin: None, also: Vec::new() }
    }

    /// The same with advice.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The same, of that part of the value.
    pub fn at(mut self, node: &Node) -> Self {
        self.origin.get_or_insert_with(|| node.origin.clone());
        self
    }
}

/// One effective setting.
#[derive(Debug, Clone, PartialEq)]
pub struct Setting {
    /// Its table, then its key.
    pub path: Vec<String>,
    /// Its value; secrets are masked.
    pub value: Json,
    /// `default`, `lanes.toml:3` or a variable's name; then the variables that changed parts of it.
    pub origin: String,
}

/// Reads files that hold secrets.
pub type ReadFile<'a> = &'a dyn Fn(&Path) -> std::io::Result<String>;

/// What a reading needs and what it gathers.
pub struct Session<'a> {
    /// The file.
    pub source: Source<'a>,
    /// Whether the file is the built-in default.
    pub built_in: bool,
    /// The environment.
    pub env: &'a BTreeMap<String, String>,
    /// Reads files that hold secrets.
    pub read_file: ReadFile<'a>,
    /// What is wrong.
    pub problems: RefCell<Vec<Problem>>,
    /// What is doubtful.
    pub warnings: RefCell<Vec<String>>,
    /// What is in effect.
    pub settings: RefCell<Vec<Setting>>,
}

impl Session<'_> {
    fn place(&self, origin: &Origin) -> Place {
        match origin {
            Origin::File(span) => self.source.place(span),
            Origin::Variable(name) => Place::Variable(name.clone()),
        }
    }

    /// Where a value came from: its place, then the variables that changed parts of it.
    fn origins_text(&self, node: &Node) -> String {
        let whole = self.origin_text(Some(&node.origin));
        let parts = node.variables().into_iter().filter(|name| *name != whole).map(str::to_owned);
        std::iter::once(whole.clone()).chain(parts).collect::<Vec<_>>().join(", ")
    }

    fn origin_text(&self, origin: Option<&Origin>) -> String {
        match origin {
            None => "default".to_owned(),
            Some(Origin::File(_)) if self.built_in => "default".to_owned(),
            Some(origin) => self.place(origin).short(),
        }
    }
}

/// One table on its way to be read. Keys that nobody asked for are problems.
pub struct Reader<'a> {
    /// What all readers share.
    pub session: &'a Session<'a>,
    path: Vec<String>,
    /// Parts of a variable's name before those of its keys.
    depth: usize,
    origin: Option<&'a Origin>,
    table: Option<&'a Table>,
    /// Inside of a list, whose value is recorded as a whole.
    quiet: bool,
    known: RefCell<Vec<&'static str>>,
}

impl<'a> Reader<'a> {
    /// Reads the whole document.
    pub fn root<T>(session: &'a Session<'a>, table: &'a Table, read: impl FnOnce(&Self) -> T) -> T {
        let (path, known) = (Vec::new(), RefCell::default());
        Self { session, path, depth: 0, origin: None, table: Some(table), quiet: false, known }.run(read)
    }

    fn run<T>(&self, read: impl FnOnce(&Self) -> T) -> T {
        let value = read(self);
        let known = self.known.borrow();
        for (key, node) in self.table.into_iter().flatten().filter(|(key, _)| !known.contains(&key.as_str())) {
            self.report_unknown(key, node, &known);
        }
        value
    }

    fn report_unknown(&self, key: &str, node: &Node, known: &[&str]) {
        let near = similar(key, known.iter().copied());
        let variable = match &node.key {
            Origin::Variable(name) => near.and_then(|near| renamed(name, self.depth, near)),
            Origin::File(_) => None,
        };
        let help = match (variable, near) {
            (Some(variable), _) => format!("did you mean {variable}?"),
            (None, Some(near)) => format!("did you mean {near:?}?"),
            (None, None) => format!("known here: {}", known.join(", ")),
        };
        self.push(&node.key, format!("{} is not a setting", self.named(key)), Some(help));
    }

    fn push(&self, origin: &Origin, message: String, help: Option<String>) {
        let place = self.session.place(origin);
        self.session.problems.borrow_mut().push(Problem { place, message, help });
    }

    /// `lanes.bulk.concurrency`
    pub fn named(&self, key: &str) -> String {
        self.path.iter().map(String::as_str).chain([key]).collect::<Vec<_>>().join(".")
    }

    fn node(&self, key: &'static str) -> Option<&'a Node> {
        self.known.borrow_mut().push(key);
        self.table?.get(key)
    }

    /// Whether the key is set, without reading it.
    pub fn is_set(&self, key: &str) -> bool {
        self.table.is_some_and(|table| table.contains_key(key))
    }

    /// Reads `key`; `None` when it is not set or wrong.
    pub fn get<T: Shown>(&self, key: &'static str, parse: impl FnOnce(&Node) -> Result<T, Fault>) -> Option<T> {
        let node = self.node(key)?;
        match parse(node) {
            Ok(value) => {
                self.record(key, value.shown(), Some(node));
                Some(value)
            }
            Err(fault) => {
                self.fault(key, node, fault);
                None
            }
        }
    }

    /// Reads `key`; the default when it is not set or wrong.
    pub fn get_or<T: Shown>(&self, key: &'static str, default: T, parse: impl FnOnce(&Node) -> Result<T, Fault>) -> T {
        match self.get(key, parse) {
            Some(value) => value,
            None if self.is_set(key) => default,
            None => {
                self.record(key, default.shown(), None);
                default
            }
        }
    }

    /// Reads `key`, which has to be set.
    pub fn required<T: Shown>(
        &self,
        key: &'static str,
        help: &str,
        parse: impl FnOnce(&Node) -> Result<T, Fault>,
    ) -> Option<T> {
        let value = self.get(key, parse);
        if !self.is_set(key) {
            self.problem(key, "is missing", Some(help));
        }
        value
    }

    /// Reads a table; an absent one is empty.
    pub fn table<T>(&self, key: &'static str, read: impl FnOnce(&Self) -> T) -> T {
        self.child(key, self.node(key)).run(read)
    }

    /// Reads a table only if it is there.
    pub fn optional_table<T>(&self, key: &'static str, read: impl FnOnce(&Self) -> T) -> Option<T> {
        let node = self.node(key)?;
        Some(self.child(key, Some(node)).run(read))
    }

    /// Reads each table of a list of tables.
    pub fn tables<T>(&self, key: &'static str, read: impl Fn(&Self) -> T) -> Vec<T> {
        let Some(node) = self.node(key) else { return Vec::new() };
        self.free_tables(key, node, read)
    }

    /// Reads each table of `node`, a list of tables whose key is not ours.
    pub fn free_tables<T>(&self, key: &str, node: &'a Node, read: impl Fn(&Self) -> T) -> Vec<T> {
        self.each_table(key, node, node.to_json_by_looks(), read)
    }

    /// The same as [`Reader::tables`], where the values of some keys are secrets unless they are references.
    pub fn secret_tables<T>(&self, key: &'static str, secrets: &[&str], read: impl Fn(&Self) -> T) -> Vec<T> {
        let Some(node) = self.node(key) else { return Vec::new() };
        let mut shown = node.to_json_by_looks();
        for item in shown.as_array_mut().into_iter().flatten() {
            for name in secrets {
                item.get_mut(name).map(secret::hide);
            }
        }
        self.each_table(key, node, shown, read)
    }

    fn each_table<T>(&self, key: &str, node: &'a Node, shown: Json, read: impl Fn(&Self) -> T) -> Vec<T> {
        let Value::Array(items) = &node.value else {
            self.fault(key, node, Fault::new(format!("expected a list of tables, found {}", node.kind())));
            return Vec::new();
        };
        self.record(key, shown, Some(node));
        // in a variable's name the number of an item is a part of its own
        let child = |item| Self { quiet: true, depth: self.depth + 2, ..self.child(key, Some(item)) };
        items.iter().map(child).filter(|child| child.table.is_some()).map(|child| child.run(&read)).collect()
    }

    /// Reads each table below `key` by the name the user gave it, in the order of the file.
    pub fn named_tables<T>(&self, key: &'static str, read: impl Fn(&str, &Self) -> T) -> Vec<T> {
        let outer = self.child(key, self.node(key));
        let mut entries: Vec<_> = outer.table.into_iter().flatten().collect();
        entries.sort_by_key(|(_, node)| match &node.key {
            Origin::File(span) => span.start,
            Origin::Variable(_) => usize::MAX,
        });
        entries.into_iter().map(|(name, node)| outer.child(name, Some(node)).run(|reader| read(name, reader))).collect()
    }

    /// Looks again at the tables below `key`, when all have been read: for what one of them says of another.
    pub fn look_again(&self, key: &str, look: impl Fn(&str, &Self)) {
        let Some(node) = self.table.and_then(|table| table.get(key)) else { return };
        let Value::Table(entries) = &node.value else { return };
        let outer = self.child(key, Some(node));
        for (name, node) in entries.iter().filter(|(_, node)| matches!(node.value, Value::Table(_))) {
            look(name, &outer.child(name, Some(node)));
        }
    }

    /// The names below `key`.
    pub fn names(&self, key: &str) -> Vec<&'a str> {
        match self.table.and_then(|table| table.get(key)).map(|node| &node.value) {
            Some(Value::Table(table)) => table.keys().map(String::as_str).collect(),
            _ => Vec::new(),
        }
    }

    /// The keys of this table and their values, all taken as known: names that are not ours.
    pub fn free_keys(&self) -> impl Iterator<Item = (&'a str, &'a Node)> {
        self.table.into_iter().flatten().map(|(key, node)| (key.as_str(), node))
    }

    /// Ends a table whose keys were read by [`Reader::free_keys`].
    pub fn optional_free_table<T>(&self, key: &'static str, read: impl FnOnce(&Self) -> T) -> Option<T> {
        let node = self.node(key)?;
        Some(read(&self.child(key, Some(node))))
    }

    fn child(&self, key: &str, node: Option<&'a Node>) -> Self {
        let table = node.and_then(|node| {
            if let Value::Table(table) = &node.value {
                return Some(table);
            }
            self.fault(key, node, Fault::new(format!("expected a table, found {}", node.kind())));
            None
        });
        let mut path = self.path.clone();
        path.push(key.to_owned());
        let origin = node.map(|node| &node.key);
        let (session, depth, quiet) = (self.session, self.depth + 1, self.quiet);
        Self { session, path, depth, origin, table, quiet, known: RefCell::default() }
    }

    /// Notes an effective value.
    pub fn record(&self, key: &str, value: Json, node: Option<&Node>) {
        if self.quiet {
            return;
        }
        let path = self.path.iter().cloned().chain([key.to_owned()]).collect();
        let origin = node.map_or_else(|| "default".to_owned(), |node| self.session.origins_text(node));
        self.session.settings.borrow_mut().push(Setting { path, value, origin });
    }

    /// Reports what is wrong with the value of `key`.
    pub fn fault(&self, key: &str, node: &Node, fault: Fault) {
        let origin = fault.origin.as_ref().unwrap_or(&node.origin);
        self.push(origin, format!("{}: {}", self.named(key), fault.message), fault.help);
        fault.also.into_iter().for_each(|fault| self.fault(key, node, fault));
    }

    /// Reports a problem at the value of `key` if it is set, else at its table.
    pub fn problem(&self, key: &str, message: &str, help: Option<&str>) {
        let message = format!("{}: {message}", self.named(key));
        let help = help.map(str::to_owned);
        let here = |origin| self.session.place(origin);
        let nowhere = || Place::Whole(self.session.source.name.to_owned());
        let place = self.origin_of(key).map_or_else(nowhere, here);
        self.session.problems.borrow_mut().push(Problem { place, message, help });
    }

    /// Warns about `key`.
    pub fn warn(&self, key: &str, message: &str) {
        let place = self.session.origin_text(self.origin_of(key));
        self.session.warnings.borrow_mut().push(format!("{place}: {}: {message}", self.named(key)));
    }

    /// Says that `key`, if it is set, has no effect yet.
    pub fn not_yet(&self, key: &str) {
        if self.is_set(key) {
            self.warn(key, "is accepted but not enforced yet by this version");
        }
    }

    /// Says that this table has no effect yet.
    pub fn table_not_yet(&self) {
        let (place, path) = (self.session.origin_text(self.origin), self.path.join("."));
        let warning = format!("{place}: {path}: is accepted but not enforced yet by this version");
        self.session.warnings.borrow_mut().push(warning);
    }

    /// Reports a problem of the whole table.
    pub fn table_problem(&self, message: &str, help: &str) {
        if let Some(origin) = self.origin {
            self.push(origin, message.to_owned(), Some(help.to_owned()));
        }
    }

    fn origin_of(&self, key: &str) -> Option<&'a Origin> {
        self.table.and_then(|table| table.get(key)).map(|node| &node.origin).or(self.origin)
    }
}
