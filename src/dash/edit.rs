//! A payload in a form and back: secrets stay on this side, and come back into what somebody has edited.

use bytes::Bytes;
use serde::de::IgnoredAny;

use super::mask::{self, MASK};

/// A body that can be edited on a page.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Editable {
    /// As it is shown.
    pub text: String,
    /// JSON; else it is plain text.
    is_json: bool,
    /// It was written in one line.
    is_dense: bool,
    /// What was masked.
    secrets: Vec<String>,
}

impl Editable {
    /// A body, as far as it may be shown.
    ///
    /// # Errors
    /// Why it can't be edited here, for a person.
    pub fn new(body: &[u8]) -> Result<Self, String> {
        if body.len() > mask::SHOWN_BYTES_MAX {
            return Err(format!("its body has {} bytes: publish it anew with lanes publish", body.len()));
        }
        if let Some((text, secrets)) = mask::numbered(body) {
            return Ok(Self { text, is_json: true, is_dense: !body.contains(&b'\n'), secrets });
        }
        let text = std::str::from_utf8(body)
            .map_err(|_| "its body is no text: publish it anew with lanes publish".to_owned())?;
        if text.contains(['\r', '\0']) || mask::text(text) != text {
            let why =
                "its body is no JSON, and holds what a page can't give back as it is, or what looks like a secret";
            return Err(format!("{why}: publish it anew with lanes publish"));
        }
        Ok(Self { text: text.to_owned(), is_json: false, is_dense: false, secrets: Vec::new() })
    }

    /// The body that somebody made of it, with the secrets that he left where they were, or moved.
    ///
    /// # Errors
    /// What is wrong with it, for a person.
    pub fn read(&self, text: &str) -> Result<Bytes, String> {
        // browsers send line breaks of their own
        let text = text.replace("\r\n", "\n");
        if text == self.text {
            return Err("nothing was changed: retry the job instead".to_owned());
        }
        if !self.is_json {
            return Ok(text.into());
        }
        let is_json =
            |text: &str| serde_json::from_str::<IgnoredAny>(text).map_err(|error| format!("this is no JSON: {error}"));
        is_json(&text)?;
        let (mut body, mut used) = (text, Vec::new());
        for (nth, secret) in self.secrets.iter().enumerate() {
            let shown = format!("\"{MASK}{}\"", nth + 1);
            used.push((secret, body.matches(&shown).count()));
            body = body.replace(&shown, secret);
        }
        let left = self.secrets.iter().fold(body.clone(), |left, secret| left.replace(secret.as_str(), ""));
        if left.contains(MASK) {
            return Err(format!("{MASK} stands for a masked value only where it is a whole one, with its number"));
        }
        is_json(&body)?;
        // moved below another name it would be shown to everybody
        let masked = mask::numbered(body.as_bytes()).map(|(_, secrets)| secrets).unwrap_or_default();
        let is_masked =
            |(secret, times): &(&String, usize)| masked.iter().filter(|one| one == secret).count() >= *times;
        if !used.iter().all(is_masked) {
            return Err(format!(
                "a masked value ({MASK}1) can stay where it is, or move below a name that tells of a secret"
            ));
        }
        Ok(if self.is_dense { dense(&body).into() } else { body.into() })
    }
}

/// JSON without the space between its parts.
fn dense(json: &str) -> String {
    let (mut text, mut quoted, mut escaped) = (String::with_capacity(json.len()), false, false);
    for c in json.chars().filter(|c| {
        let is_end = quoted && *c == '"' && !escaped;
        escaped = quoted && *c == '\\' && !escaped;
        let stays = quoted || !c.is_ascii_whitespace();
        quoted = if quoted { !is_end } else { *c == '"' };
        stays
    }) {
        text.push(c);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &str =
        r#"{"n": 1.50, "note": "a \" b", "token": "abc", "list": [{"password": 12345678901234567890}, "Bearer xyz"]}"#;

    #[test]
    fn what_is_masked_comes_back_wherever_it_is() {
        let form = Editable::new(BODY.as_bytes()).expect("editable");
        for secret in ["abc", "1234567890", "xyz"] {
            assert!(!form.text.contains(secret), "{}", form.text);
        }
        let edited = form.text.replace("1.50", "2").replace('\n', "\r\n");
        let expected = BODY.replace("1.50", "2").replace(": ", ":").replace(", ", ",");
        assert_eq!(form.read(&edited).expect("read"), expected.as_bytes(), "numbers and order as they were");
        let moved = format!(r#"[{{"secret": "{MASK}2"}}, {{"token": "new"}}]"#);
        assert_eq!(form.read(&moved).expect("read"), &b"[{\"secret\":12345678901234567890},{\"token\":\"new\"}]"[..]);
        for bared in [format!(r#"["{MASK}2"]"#), format!(r#"{{"note": "{MASK}1"}}"#)] {
            assert!(form.read(&bared).expect_err("refused").contains("tells of a secret"), "{bared}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let form = Editable::new(BODY.as_bytes()).expect("editable");
        let wrong = |text: &str| form.read(text).expect_err("refused");
        assert!(wrong(&form.text).contains("nothing was changed"));
        assert!(wrong("{").contains("no JSON"));
        assert!(wrong(&format!(r#"["{MASK}9"]"#)).contains("with its number"));
        assert!(wrong(&format!(r#"["a {MASK}1"]"#)).contains("with its number"));
        assert!(wrong(&format!(r#"["{MASK}"]"#)).contains("with its number"));
        for body in [&b"\xff\xfe"[..], b"token=abc", b"a\r\nb"] {
            assert!(Editable::new(body).is_err(), "{body:?}");
        }
        let plain = Editable::new(b"hello\nworld").expect("editable");
        assert_eq!(plain.read("hello\r\nyou").expect("read"), &b"hello\nyou"[..]);
    }

    #[test]
    fn only_space_between_parts_goes() {
        assert_eq!(
            dense("{ \"a b\" : \"c \\\" d \\\\\" ,\n \"e\": [ 1 , 2 ] }"),
            "{\"a b\":\"c \\\" d \\\\\",\"e\":[1,2]}"
        );
    }
}
