//! What is wrong with a configuration, shown with its place, the offending line and a way out.

use std::fmt;
use std::ops::Range;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub place: Place,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
}

/// Where something is configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A place in a file.
    File {
        /// The file.
        file: String,
        /// 1 for the first line.
        line: usize,
        /// In characters, 1 for the first.
        column: usize,
        /// The line's text; what may be a secret is masked.
        text: String,
        /// Characters that the caret underlines.
        width: usize,
    },
    /// An environment variable.
    Variable(String),
    /// A file as a whole, or nothing that can be pointed to.
    Whole(String),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let message = &self.message;
        match &self.place {
            Place::File { file, line, column, text, width } => {
                let gutter = line.to_string().len();
                write!(f, "{file}:{line}:{column}: {message}\n{:gutter$} |\n{line} | {text}\n{:gutter$} | ", "", "")?;
                // tabs stay tabs, so that the caret stands under its text
                let before: String =
                    text.chars().take(column - 1).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
                write!(f, "{before}{}", "^".repeat((*width).max(1)))?;
            }
            Place::Variable(name) => write!(f, "{name}: {message}")?,
            Place::Whole(what) => write!(f, "{what}: {message}")?,
        }
        match &self.help {
            Some(help) => write!(f, "\n  = help: {help}"),
            None => Ok(()),
        }
    }
}

impl Place {
    /// The place in a few words: `lanes.toml:3`, a variable's name.
    pub fn short(&self) -> String {
        match self {
            Self::File { file, line, .. } => format!("{file}:{line}"),
            Self::Variable(name) | Self::Whole(name) => name.clone(),
        }
    }

    fn order(&self) -> (u8, usize, usize, &str) {
        match self {
            Self::Whole(what) => (0, 0, 0, what),
            Self::File { file, line, column, .. } => (1, *line, *column, file),
            Self::Variable(name) => (2, 0, 0, name),
        }
    }
}

/// Everything that is wrong, in the order of the file, then by variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl Problems {
    /// Puts `problems` in order.
    pub fn new(mut problems: Vec<Problem>) -> Self {
        problems.sort_by(|a, b| a.place.order().cmp(&b.place.order()));
        Self(problems)
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.0 {
            write!(f, "{problem}\n\n")?;
        }
        let count = self.0.len();
        write!(f, "{count} {} in the configuration", if count == 1 { "problem" } else { "problems" })
    }
}

impl std::error::Error for Problems {}

/// A file's text, and which parts of it must not be shown.
#[derive(Debug)]
pub struct Source<'a> {
    /// The file's name as shown.
    pub name: &'a str,
    /// Its text.
    pub text: &'a str,
    /// Byte ranges whose characters are masked.
    pub secret: Vec<Range<usize>>,
}

impl Source<'_> {
    /// The place of a byte range. Ranges outside of the text are pulled into it.
    pub fn place(&self, span: &Range<usize>) -> Place {
        let text = self.text;
        let start = floor_char(text, span.start);
        let end = floor_char(text, span.end).max(start);
        let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
        let line_end = line_start + text[line_start..line_end].trim_end_matches('\r').len();
        let shown = text[line_start..line_end].char_indices().map(|(at, c)| {
            let hidden = self.secret.iter().any(|secret| secret.contains(&(line_start + at)));
            match c {
                _ if hidden => '*',
                '\t' => c,
                c if c.is_control() => '\u{fffd}',
                c => c,
            }
        });
        Place::File {
            file: self.name.to_owned(),
            line: text[..line_start].matches('\n').count() + 1,
            column: text[line_start..start.max(line_start)].chars().count() + 1,
            text: shown.collect(),
            width: text[start..end.min(line_end).max(start)].chars().count(),
        }
    }
}

fn floor_char(text: &str, at: usize) -> usize {
    text.floor_char_boundary(at.min(text.len()))
}

/// The one of `known` that `word` was probably meant to be.
pub fn similar<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |text: &str| text.to_ascii_lowercase().replace('-', "_");
    let word = plain(word);
    known
        .into_iter()
        .map(|known| (strsim::damerau_levenshtein(&word, &plain(known)), known))
        .filter(|&(distance, known)| distance <= 1 + known.len() / 5 && distance * 2 <= known.len())
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, known)| known)
}
