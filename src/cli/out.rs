//! The two ways out: data on stdout, messages on stderr.

use std::fmt::Display;
use std::io::{self, BufWriter, IsTerminal as _, Stdout, Write as _};

use serde_json::Value;

use super::text::{Table, clean};

/// Standard output, as JSON or for people.
#[derive(Debug)]
pub struct Out {
    stdout: BufWriter<Stdout>,
    json: bool,
    terminal: bool,
    color: bool,
}

impl Out {
    /// Standard output; `json` = for programs.
    pub fn new(json: bool) -> Self {
        let terminal = io::stdout().is_terminal();
        Self { stdout: BufWriter::new(io::stdout()), json, terminal, color: terminal && colors_wanted() }
    }

    /// Whether a program reads it.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// Whether a person looks at it now.
    pub fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// One line.
    pub fn line(&mut self, text: impl Display) -> io::Result<()> {
        writeln!(self.stdout, "{text}")
    }

    /// One JSON document; in one line unless a person looks at it.
    pub fn document(&mut self, value: &Value) -> io::Result<()> {
        if self.terminal { writeln!(self.stdout, "{value:#}") } else { writeln!(self.stdout, "{value}") }
    }

    /// One JSON document in one line, whoever looks: one of many.
    pub fn document_line(&mut self, value: &Value) -> io::Result<()> {
        writeln!(self.stdout, "{value}")
    }

    /// A table.
    pub fn table(&mut self, table: &Table) -> io::Result<()> {
        for (at, line) in table.lines().iter().enumerate() {
            if at == 0 && self.color {
                writeln!(self.stdout, "\x1b[1m{line}\x1b[0m")?;
            } else {
                writeln!(self.stdout, "{line}")?;
            }
        }
        Ok(())
    }

    /// Bytes as they are.
    pub fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stdout.write_all(bytes)
    }

    /// Clears the screen, for a picture that is drawn again.
    pub fn clear(&mut self) -> io::Result<()> {
        write!(self.stdout, "\x1b[2J\x1b[H")
    }

    /// Hands everything over to the reader.
    pub fn flush(&mut self) -> io::Result<()> {
        self.stdout.flush()
    }
}

/// Colours are not forbidden (`NO_COLOR`) nor impossible (`TERM=dumb`).
pub fn colors_wanted() -> bool {
    let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    !set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// A message to the person at the terminal.
pub fn note(text: impl Display) {
    // nobody is left to be told when stderr is closed
    let _ = writeln!(io::stderr(), "{}", clean(&text.to_string()));
}
