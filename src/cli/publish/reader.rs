//! Reads a file or stream line by line in bounded memory, and knows where each line stands.

use std::io::{self, BufRead};

/// One line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line {
    /// 1 for the first.
    pub number: u64,
    /// Where it begins, in bytes.
    pub start: u64,
    /// Where the next one begins.
    pub end: u64,
    /// It is longer than allowed; its text is only a part.
    pub too_long: bool,
}

/// Lines of `input`.
#[derive(Debug)]
pub struct Lines<R> {
    input: R,
    bytes_max: usize,
    number: u64,
    at: u64,
    text: Vec<u8>,
}

impl<R: BufRead> Lines<R> {
    /// The lines of `input`, which stands at byte `at`, after line `number`. Longer ones than `bytes_max` are not kept.
    pub fn new(input: R, bytes_max: usize, number: u64, at: u64) -> Self {
        Self { input, bytes_max, number, at, text: Vec::new() }
    }

    /// The next line; its text is [`Self::text`] until the next call.
    pub fn advance(&mut self) -> io::Result<Option<Line>> {
        self.text.clear();
        let start = self.at;
        let mut too_long = false;
        loop {
            let found = match self.input.fill_buf() {
                Ok(found) => found,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let end = found.iter().position(|byte| *byte == b'\n');
            let taken = end.map_or(found.len(), |at| at + 1);
            let part = &found[..end.unwrap_or(found.len())];
            let room = self.bytes_max - self.text.len().min(self.bytes_max);
            self.text.extend_from_slice(&part[..part.len().min(room)]);
            too_long |= part.len() > room;
            let is_over = end.is_some() || taken == 0;
            self.input.consume(taken);
            self.at += taken as u64;
            if is_over {
                break;
            }
        }
        if self.at == start {
            return Ok(None);
        }
        self.number += 1;
        Ok(Some(Line { number: self.number, start, end: self.at, too_long }))
    }

    /// The text of the line, without the end of line and a byte order mark.
    pub fn text(&self) -> &[u8] {
        let text = self.text.strip_suffix(b"\r").unwrap_or(&self.text);
        if self.number == 1 { text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text) } else { text }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(input: &[u8], bytes_max: usize) -> Vec<(u64, u64, u64, bool, String)> {
        // a reader of three bytes: lines cross the ends of its buffer
        let mut lines = Lines::new(io::BufReader::with_capacity(3, input), bytes_max, 0, 0);
        let mut seen = Vec::new();
        while let Some(line) = lines.advance().expect("memory") {
            let text = String::from_utf8_lossy(lines.text()).into_owned();
            seen.push((line.number, line.start, line.end, line.too_long, text));
        }
        seen
    }

    #[test]
    fn lines_know_their_place() {
        let expected = [
            (1, 0, 6, false, "one".to_owned()),
            (2, 6, 11, false, "two".to_owned()),
            (3, 11, 12, false, String::new()),
            (4, 12, 16, false, "last".to_owned()),
        ];
        assert_eq!(
            all("\u{feff}one\ntwo\r\n\nlast".as_bytes(), 100)[1..],
            expected.map(|mut line| {
                line.1 += 1;
                line.2 += 1;
                line
            })[1..]
        );
        assert_eq!(all("\u{feff}one\n".as_bytes(), 100), [(1, 0, 7, false, "one".to_owned())]);
    }

    #[test]
    fn a_long_line_is_passed_over_without_being_kept() {
        let seen = all(b"0123456789\nok\n", 4);
        assert_eq!(seen[0], (1, 0, 11, true, "0123".to_owned()));
        assert_eq!(seen[1], (2, 11, 14, false, "ok".to_owned()));
        assert!(all(b"", 4).is_empty());
    }
}
