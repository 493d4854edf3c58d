//! Which paths a job may ask for: never out of its endpoint's origin, never past the endpoint's patterns.

use url::form_urlencoded;

/// Longest path, query included, that a job may ask for.
pub const PATH_BYTES_MAX: usize = 4096;
/// How often a path is decoded to look for tricks behind double encoding.
const DECODE_ROUNDS_MAX: usize = 4;

/// The paths of one endpoint.
///
/// In a pattern `*` stands for any text within one segment and a whole segment `**` for any number of segments.
#[derive(Debug)]
pub struct PathRules {
    own_path: String,
    own_parameters: Vec<String>,
    patterns: Vec<Pattern>,
}

#[derive(Debug)]
struct Pattern {
    text: String,
    segments: Vec<String>,
}

/// A path that was allowed, split for the request.
#[derive(Debug, PartialEq, Eq)]
pub struct AllowedPath<'a> {
    /// As the job wrote it.
    pub path: &'a str,
    /// What follows the `?`.
    pub query: Option<&'a str>,
}

impl PathRules {
    /// Rules of an endpoint with this path and query of its own.
    ///
    /// # Errors
    /// A sentence naming the pattern that can never match.
    pub fn new(own_path: &str, own_query: Option<&str>, allow: &[String]) -> Result<Self, String> {
        let patterns = allow.iter().map(|text| Pattern::new(text)).collect::<Result<_, _>>()?;
        let own_parameters = form_urlencoded::parse(own_query.unwrap_or_default().as_bytes())
            .map(|(name, _)| name.into_owned())
            .collect();
        Ok(Self { own_path: own_path.to_owned(), own_parameters, patterns })
    }

    /// Checks what a job asks for.
    ///
    /// # Errors
    /// A sentence for a person: what is wrong and what the endpoint allows.
    pub fn check<'a>(&self, wanted: &'a str) -> Result<AllowedPath<'a>, String> {
        let shown: String = wanted.chars().take(128).collect();
        check_characters(wanted).map_err(|why| format!("path {shown:?} {why}"))?;
        let (path, query) = match wanted.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (wanted, None),
        };
        let decoded = decode_checked(path).map_err(|why| format!("path {shown:?} {why}"))?;
        if path != self.own_path && !self.patterns.iter().any(|pattern| pattern.matches(&decoded)) {
            return Err(format!("path {shown:?} is not allowed; {}", self.allowed_text()));
        }
        for (name, _) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            if self.own_parameters.iter().any(|own| *own == name) {
                return Err(format!("path {shown:?} sets the query parameter {name:?}, which the endpoint's url sets"));
            }
        }
        Ok(AllowedPath { path, query })
    }

    fn allowed_text(&self) -> String {
        if self.patterns.is_empty() {
            return "the endpoint allows no path but its own (see allow_paths)".to_owned();
        }
        let texts: Vec<_> = self.patterns.iter().map(|pattern| pattern.text.as_str()).collect();
        format!("the endpoint allows {}", texts.join(", "))
    }
}

impl Pattern {
    fn new(text: &str) -> Result<Self, String> {
        if !text.starts_with('/') {
            return Err(format!("allow_paths pattern {text:?} must start with '/'"));
        }
        let decoded = check_characters(text)
            .and_then(|()| decode_checked(text))
            .map_err(|why| format!("allow_paths pattern {text:?} {why}, so no path can ever match it"))?;
        Ok(Self { text: text.to_owned(), segments: decoded[1..].split('/').map(str::to_owned).collect() })
    }

    fn matches(&self, decoded: &str) -> bool {
        let segments: Vec<&str> = decoded[1..].split('/').collect();
        wildcard(
            &self.segments,
            &segments,
            |pattern| pattern == "**",
            |pattern, segment| wildcard(pattern.as_bytes(), segment.as_bytes(), |byte| *byte == b'*', |a, b| a == b),
        )
    }
}

/// What no path may hold, encoded or not.
fn check_characters(wanted: &str) -> Result<(), String> {
    if wanted.len() > PATH_BYTES_MAX {
        return Err(format!("is longer than {PATH_BYTES_MAX} bytes"));
    }
    if !wanted.starts_with('/') {
        return Err("must start with '/'".to_owned());
    }
    match wanted.chars().find(|c| !c.is_ascii_graphic() || matches!(c, '\\' | '#')) {
        Some(c) => Err(format!("holds {c:?}; percent-encode what is not plain ASCII")),
        None => Ok(()),
    }
}

/// The path decoded once; refuses what some server on the way could read as another path.
fn decode_checked(path: &str) -> Result<String, String> {
    let once = decode(path)?;
    let mut level = once.clone();
    check_segments(path)?;
    if level.matches('/').count() != path.matches('/').count() {
        return Err("holds an encoded '/'".to_owned());
    }
    for _ in 0..DECODE_ROUNDS_MAX {
        check_segments(&level)?;
        // after the first round a '%' may be an honest one: stop at what does not decode
        match decode(&level) {
            Ok(next) if next == level => return Ok(once),
            Ok(next) if next.matches('/').count() != level.matches('/').count() => {
                return Err("holds an encoded '/'".to_owned());
            }
            Ok(next) => level = next,
            Err(_) => return Ok(once),
        }
    }
    Err("is percent-encoded too many times".to_owned())
}

fn check_segments(path: &str) -> Result<(), String> {
    if let Some(c) = path.chars().find(|c| c.is_control() || *c == '\\') {
        return Err(format!("holds {c:?}"));
    }
    if path.contains("//") {
        return Err("holds an empty segment".to_owned());
    }
    // some servers cut a segment at ';' before they look for dots
    let is_dots = |segment: &str| matches!(segment.split(';').next(), Some("." | ".."));
    if path.split('/').any(is_dots) {
        return Err("holds a '.' or '..' segment".to_owned());
    }
    Ok(())
}

fn decode(text: &str) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        if first != b'%' {
            bytes.push(first);
            rest = tail;
            continue;
        }
        let hex = tail.get(..2).and_then(|digits| Some((hex_value(digits[0])?, hex_value(digits[1])?)));
        let (high, low) = hex.ok_or("holds a '%' without two hex digits")?;
        bytes.push(high << 4 | low);
        rest = &tail[2..];
    }
    String::from_utf8(bytes).map_err(|_| "does not decode to UTF-8".to_owned())
}

fn hex_value(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// Wildcard match in time `pattern x text`: only the last star ever takes one more.
fn wildcard<P, T>(pattern: &[P], text: &[T], is_star: impl Fn(&P) -> bool, same: impl Fn(&P, &T) -> bool) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut last_star: Option<(usize, usize)> = None;
    while t < text.len() {
        if p < pattern.len() && is_star(&pattern[p]) {
            last_star = Some((p, t));
            p += 1;
        } else if p < pattern.len() && same(&pattern[p], &text[t]) {
            p += 1;
            t += 1;
        } else if let Some((star, taken)) = last_star {
            last_star = Some((star, taken + 1));
            p = star + 1;
            t = taken + 1;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(is_star)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(allow: &[&str]) -> PathRules {
        let allow: Vec<_> = allow.iter().map(|&text| text.to_owned()).collect();
        PathRules::new("/contacts", Some("api_key=s3cret"), &allow).expect("rules")
    }

    #[test]
    fn allowed_paths() {
        let rules = rules(&["/contacts/*", "/v*/deals/*/notes", "/files/**", "/caf%C3%A9/*"]);
        for path in [
            "/contacts",
            "/contacts/42",
            "/contacts/a%20b",
            "/contacts/50%25",
            "/contacts/..x",
            "/contacts/x..",
            "/contacts/42?expand=1&x=%2F..",
            "/v3/deals/7/notes",
            "/files/a/b/c",
            "/files/a",
            "/caf%c3%a9/1",
            "/%63ontacts/1",
        ] {
            assert!(rules.check(path).is_ok(), "{path}: {:?}", rules.check(path));
        }
        assert_eq!(rules.check("/contacts/1?a=b?c"), Ok(AllowedPath { path: "/contacts/1", query: Some("a=b?c") }));
    }

    #[test]
    fn paths_that_escape_are_refused() {
        let rules = rules(&["/contacts/*", "/files/**"]);
        for path in [
            "",
            "contacts/1",
            "/",
            "/admin",
            "/contacts/1/notes",
            "/contactsx/1",
            "//evil.example/contacts/1",
            "/\\evil.example/",
            "/contacts/\\..\\admin",
            "https://evil.example/contacts/1",
            "@evil.example/",
            "/contacts/..",
            "/contacts/../admin",
            "/files/../admin",
            "/files/./x",
            "/files/%2e%2e/admin",
            "/files/.%2E/admin",
            "/files/%252e%252e/admin",
            "/files/%25252e%25252e/admin",
            "/files/..%2fadmin",
            "/files/a%2fb",
            "/contacts/a%2Fb",
            "/contacts/a%252Fb",
            "/contacts/a%5cb",
            "/files/..;/admin",
            "/files/..;a=b/admin",
            "/files/..%3b/admin",
            "/files//admin",
            "/contacts/a%00",
            "/contacts/a%0d%0aHost:%20evil",
            "/contacts/a b",
            "/contacts/a\tb",
            "/contacts/a#b",
            "/contacts/%zz",
            "/contacts/%2",
            "/contacts/%ff",
            "/contacts/\u{ff0e}\u{ff0e}",
            "/contacts/1?api_key=mine",
            "/contacts/1?a=1&api%5fkey=mine",
        ] {
            assert!(rules.check(path).is_err(), "{path}");
        }
        assert!(rules.check(&format!("/contacts/{}", "x".repeat(PATH_BYTES_MAX))).is_err());
    }

    #[test]
    fn a_refusal_says_what_is_allowed_and_no_secret() {
        let text = rules(&["/contacts/*"]).check("/admin").expect_err("refused");
        assert!(text.contains("/contacts/*") && !text.contains("s3cret"), "{text}");
        let text = rules(&[]).check("/admin").expect_err("refused");
        assert!(text.contains("allow_paths"), "{text}");
    }

    #[test]
    fn a_pattern_that_cannot_match_is_an_error() {
        for pattern in ["contacts/*", "/a/../b", "/a b", "/%2f"] {
            assert!(PathRules::new("/", None, &[pattern.to_owned()]).is_err(), "{pattern}");
        }
    }

    #[test]
    fn many_stars_stay_cheap() {
        let pattern = format!("/{}b", "*a".repeat(200));
        let rules = PathRules::new("/", None, &[pattern]).expect("rules");
        assert!(rules.check(&format!("/{}", "a".repeat(4000))).is_err());
    }
}
