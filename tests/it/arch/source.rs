//! Reads Rust source as plain text: what is code, what is a string, and which paths of the crate it names.

/// A source file taken apart. Unit tests and comments are gone.
pub struct Source {
    /// Path from the repository's root, `src/engine/lane.rs`.
    pub path: String,
    /// The file as it is.
    pub text: String,
    /// Code without comments, `#[cfg(test)]` items and the contents of strings; line breaks are kept.
    pub code: String,
    /// Contents of the string literals outside of `#[cfg(test)]` items.
    pub strings: Vec<String>,
}

impl Source {
    /// Takes `text` apart.
    pub fn new(path: &str, text: &str) -> Self {
        let (code, strings) = without_test_items(&blank(text));
        Self { path: path.to_owned(), text: text.to_owned(), code, strings }
    }

    /// The room: the first part of the path below `src`.
    pub fn room(&self) -> &str {
        let inner = self.path.strip_prefix("src/").unwrap_or(&self.path);
        let first = inner.split('/').next().unwrap_or(inner);
        first.strip_suffix(".rs").unwrap_or(first)
    }

    /// Lines before the unit tests.
    pub fn lines_without_tests(&self) -> usize {
        self.text.lines().take_while(|line| *line != "#[cfg(test)]").count()
    }

    /// Every path of this crate that the code names, written from the root: `store::postgres::Jobs`.
    pub fn crate_paths(&self) -> Vec<String> {
        let module = self.module();
        let mut paths = self.paths_from("crate", "");
        if self.path == "src/main.rs" {
            paths.extend(self.paths_from("lanes", ""));
        }
        for at in words(&self.code, "super") {
            if self.code[..at].trim_end().ends_with("::") {
                continue; // the second of `super::super`, seen with the first
            }
            let (mut up, mut rest) = (0, &self.code[at..]);
            while let Some(more) = rest.strip_prefix("super::") {
                (up, rest) = (up + 1, more);
            }
            if up == 0 {
                continue; // `pub(super)`
            }
            let mut prefix = module[..module.len().saturating_sub(up)].join("::");
            if !prefix.is_empty() {
                prefix.push_str("::");
            }
            expand(rest.as_bytes(), &mut 0, &prefix, &mut paths);
        }
        paths
    }

    /// Every path that begins with the crate `root`, written with `prefix` in its place.
    pub fn paths_from(&self, root: &str, prefix: &str) -> Vec<String> {
        let mut paths = Vec::new();
        for at in words(&self.code, root) {
            if let Some(tree) = self.code[at + root.len()..].trim_start().strip_prefix("::") {
                expand(tree.as_bytes(), &mut 0, prefix, &mut paths);
            }
        }
        paths
    }

    /// The module's path: `["engine", "lane"]`.
    fn module(&self) -> Vec<String> {
        let inner = self.path.trim_start_matches("src/").trim_end_matches(".rs");
        let inner = inner.strip_suffix("/mod").unwrap_or(inner);
        if matches!(inner, "lib" | "main") { Vec::new() } else { inner.split('/').map(str::to_owned).collect() }
    }
}

/// Places where `word` stands in `code` as a whole identifier.
pub fn words(code: &str, word: &str) -> Vec<usize> {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word)
        .map(|(at, _)| at)
        .filter(|&at| !code[..at].ends_with(part) && !code[at + word.len()..].starts_with(part))
        .collect()
}

/// Follows a use tree or a path from `at` and adds what it names.
fn expand(code: &[u8], at: &mut usize, prefix: &str, paths: &mut Vec<String>) {
    let skip_space = |at: &mut usize| {
        while code.get(*at).is_some_and(u8::is_ascii_whitespace) {
            *at += 1;
        }
    };
    skip_space(at);
    if code.get(*at) == Some(&b'{') {
        *at += 1;
        loop {
            // `as name` and the comma after an entry
            while code.get(*at).is_some_and(|c| !matches!(c, b',' | b'}' | b'{')) {
                let before = *at;
                expand(code, at, prefix, paths);
                if *at == before {
                    *at += 1;
                }
                skip_space(at);
                if code[*at..].starts_with(b"as ") {
                    *at += 3;
                    while code.get(*at).is_some_and(|c| !matches!(c, b',' | b'}')) {
                        *at += 1;
                    }
                }
            }
            *at += 1;
            if code.get(*at - 1) != Some(&b',') {
                return;
            }
        }
    }
    let start = *at;
    while code.get(*at).is_some_and(|c| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'*' | b'#')) {
        *at += 1;
    }
    let path = format!("{prefix}{}", String::from_utf8_lossy(&code[start..*at]));
    let mut next = *at;
    skip_space(&mut next);
    if *at > start && code[next..].starts_with(b"::") && code.get(next + 2) != Some(&b'<') {
        *at = next + 2;
        expand(code, at, &format!("{path}::"), paths);
    } else if *at > start {
        // `{self, ..}` names the module itself
        paths.push(path.strip_suffix("::self").unwrap_or(&path).to_owned());
    }
}

/// A piece of source: code, or the content of a string.
enum Piece {
    Code(char),
    Text(String),
}

/// Cuts comments away and strings out.
fn blank(text: &str) -> Vec<Piece> {
    let chars: Vec<char> = text.chars().collect();
    let mut pieces = Vec::with_capacity(chars.len());
    let mut at = 0;
    while at < chars.len() {
        let rest = &chars[at..];
        let after_word = at > 0 && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_');
        if rest.starts_with(&['/', '/']) {
            at += rest.iter().position(|c| *c == '\n').unwrap_or(rest.len());
        } else if rest.starts_with(&['/', '*']) {
            at += block_comment(rest, &mut pieces);
        } else if let Some(hashes) = raw_string(rest).filter(|_| !after_word || chars[at - 1] == 'b') {
            let body = at + hashes + 2;
            let end = closing_raw(&chars[body..], hashes);
            push_text(&mut pieces, &chars[body..body + end]);
            at = body + end + 1 + hashes;
        } else if rest[0] == '"' {
            let end = closing(&rest[1..], '"');
            push_text(&mut pieces, &rest[1..=end]);
            at += end + 2;
        } else if rest[0] == '\'' && is_char_literal(rest) {
            let end = closing(&rest[1..], '\'');
            pieces.extend(['\'', '\''].map(Piece::Code));
            at += end + 2;
        } else {
            pieces.push(Piece::Code(rest[0]));
            at += 1;
        }
    }
    pieces
}

fn push_text(pieces: &mut Vec<Piece>, text: &[char]) {
    pieces.push(Piece::Code('"'));
    pieces.push(Piece::Text(text.iter().collect()));
    pieces.push(Piece::Code('"'));
}

fn block_comment(rest: &[char], pieces: &mut Vec<Piece>) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < rest.len() {
        match rest[at..] {
            ['/', '*', ..] => (depth, at) = (depth + 1, at + 2),
            ['*', '/', ..] => (depth, at) = (depth - 1, at + 2),
            [c, ..] => {
                if c == '\n' {
                    pieces.push(Piece::Code('\n'));
                }
                at += 1;
            }
            [] => break,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

/// Number of hashes when a raw string begins here.
fn raw_string(rest: &[char]) -> Option<usize> {
    let hashes = rest.strip_prefix(&['r'])?.iter().take_while(|c| **c == '#').count();
    (rest.get(hashes + 1) == Some(&'"')).then_some(hashes)
}

fn closing_raw(body: &[char], hashes: usize) -> usize {
    let end: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
    body.windows(end.len()).position(|window| window == end).unwrap_or(body.len())
}

fn closing(body: &[char], quote: char) -> usize {
    let mut at = 0;
    while at < body.len() && body[at] != quote {
        at += if body[at] == '\\' { 2 } else { 1 };
    }
    at.min(body.len())
}

/// Tells `'a'` from the lifetime `'a`.
fn is_char_literal(rest: &[char]) -> bool {
    rest.get(1) == Some(&'\\') || rest.get(2) == Some(&'\'')
}

/// Drops every item under `#[cfg(test)]`, and splits code from strings.
fn without_test_items(pieces: &[Piece]) -> (String, Vec<String>) {
    const MARK: &str = "#[cfg(test)]";
    let (mut code, mut strings, mut at) = (String::new(), Vec::new(), 0);
    while at < pieces.len() {
        match &pieces[at] {
            Piece::Text(text) => strings.push(text.clone()),
            Piece::Code(c) => code.push(*c),
        }
        at += 1;
        if code.ends_with(MARK) {
            code.truncate(code.len() - MARK.len());
            at += item_end(&pieces[at..]);
        }
    }
    (code, strings)
}

/// Length of the item that begins here: up to its `;` or comma, or the brace that closes its first one.
fn item_end(pieces: &[Piece]) -> usize {
    let (mut braces, mut brackets) = (0_i32, 0_i32);
    for (at, piece) in pieces.iter().enumerate() {
        let Piece::Code(c) = piece else { continue };
        match c {
            '{' => braces += 1,
            '}' => braces -= 1,
            '(' | '[' => brackets += 1,
            ')' | ']' => brackets -= 1,
            _ => {}
        }
        if braces == 0 && brackets == 0 && matches!(c, '}' | ';' | ',') {
            return at + 1;
        }
        if braces < 0 || brackets < 0 {
            return at; // a field or a variant, the last of its list
        }
    }
    pieces.len()
}
