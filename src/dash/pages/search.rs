//! The filter as one line of text: `state:waiting tenant:acme`, and back.

use maud::{Markup, html};

use crate::dash::place::link;

/// Longest text that is read.
const TEXT_MAX: usize = 1_000;
/// A word is taken for a misspelt one when so many letters differ at most.
const DIFFERS_MAX: usize = 2;
/// What a word without a qualifier means.
const BARE: &str = "id";

/// Something to filter by, and the words that it may be; none = any text.
#[derive(Debug)]
pub(super) struct Qualifier<'a> {
    pub name: &'static str,
    pub words: Vec<&'a str>,
}

/// What a text asks for: pairs of qualifier and value; or what is wrong with it, as a sentence.
pub(super) fn parse(text: &str, known: &[Qualifier<'_>]) -> Result<Vec<(&'static str, String)>, String> {
    if text.len() > TEXT_MAX {
        return Err(format!("The filter is longer than {TEXT_MAX} bytes."));
    }
    let mut pairs: Vec<(&'static str, String)> = Vec::new();
    for term in terms(text)? {
        let (name, value) = match term.split_once(':') {
            Some((name, value)) => (name, value),
            None => (BARE, term.as_str()),
        };
        let Some(found) = known.iter().find(|qualifier| qualifier.name == name) else {
            return Err(unknown(&term, name, known));
        };
        if value.is_empty() {
            return Err(format!("{name}: says nothing; write it like {name}:VALUE."));
        }
        if !found.words.is_empty() && !found.words.contains(&value) {
            return Err(no_word(name, value, &found.words));
        }
        if pairs.iter().any(|(given, _)| *given == found.name) {
            return Err(format!("{name}: is given twice; one value of each can be asked for."));
        }
        pairs.push((found.name, value.to_owned()));
    }
    Ok(pairs)
}

fn unknown(term: &str, name: &str, known: &[Qualifier<'_>]) -> String {
    let names: Vec<String> = known.iter().map(|qualifier| format!("{}:", qualifier.name)).collect();
    let names = names.join(", ");
    if !term.contains(':') {
        return format!(
            "{term:?} has no qualifier. Write it like {}{term}; there are {names}.",
            known.first().map_or(String::new(), |first| format!("{}:", first.name))
        );
    }
    match similar(name, known.iter().map(|qualifier| qualifier.name)) {
        Some(meant) => format!("{name:?} is no qualifier here; did you mean {meant}:? There are {names}."),
        None => format!("{name:?} is no qualifier here. There are {names}."),
    }
}

fn no_word(name: &str, value: &str, words: &[&str]) -> String {
    let all = words.join(", ");
    match similar(value, words.iter().copied()) {
        Some(meant) => format!("{value:?} is no {name}; did you mean {name}:{meant}? One of: {all}."),
        None => format!("{value:?} is no {name}. One of: {all}."),
    }
}

fn similar<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_ascii_lowercase();
    let near = known.map(|known| (strsim::damerau_levenshtein(&word, known), known));
    near.filter(|(distance, _)| *distance <= DIFFERS_MAX).min_by_key(|(distance, _)| *distance).map(|(_, known)| known)
}

/// Words; one in quotes may hold spaces (`tenant:"acme corp"`), and `""` in it is a quote.
fn terms(text: &str) -> Result<Vec<String>, String> {
    let mut terms = Vec::new();
    let mut term = String::new();
    let mut quoted = false;
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '"' if quoted && letters.peek() == Some(&'"') => {
                letters.next();
                term.push('"');
            }
            '"' => quoted = !quoted,
            letter if letter.is_whitespace() && !quoted => terms.push(std::mem::take(&mut term)),
            letter => term.push(letter),
        }
    }
    if quoted {
        return Err("A quote is not closed: write values with spaces like tenant:\"acme corp\".".to_owned());
    }
    terms.push(term);
    terms.retain(|term| !term.is_empty());
    Ok(terms)
}

/// The text of a filter.
pub(super) fn text(pairs: &[(&str, &str)]) -> String {
    let given = pairs.iter().filter(|(_, value)| !value.trim().is_empty());
    let shown = given.map(|(name, value)| {
        let value = value.trim();
        if value.contains(|c: char| c.is_whitespace() || c == '"') {
            format!("{name}:\"{}\"", value.replace('"', "\"\""))
        } else {
            format!("{name}:{value}")
        }
    });
    shown.collect::<Vec<_>>().join(" ")
}

/// The box; `/` on the keyboard leads here.
pub(super) fn form(action: &str, label: &str, shown: &str, known: &[Qualifier<'_>]) -> Markup {
    let names: Vec<String> = known.iter().map(|qualifier| format!("{}:", qualifier.name)).collect();
    html! {
        form.search action=(link(action)) role="search" aria-label=(label) {
            input #q name="q" value=(shown) aria-label=(label) placeholder=(names.join(" ")) autocomplete="off" spellcheck="false" maxlength=(TEXT_MAX);
            button { "Find" }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> Vec<Qualifier<'static>> {
        let any = |name| Qualifier { name, words: Vec::new() };
        vec![Qualifier { name: "state", words: vec!["waiting", "dead"] }, any("tenant"), any("endpoint"), any("id")]
    }

    fn found(text: &str) -> String {
        match parse(text, &known()) {
            Ok(pairs) => pairs.iter().map(|(name, value)| format!("{name}={value};")).collect::<Vec<_>>().concat(),
            Err(wrong) => wrong,
        }
    }

    #[test]
    fn a_line_says_what_to_show() {
        assert_eq!(found(" state:waiting  tenant:acme "), "state=waiting;tenant=acme;");
        assert_eq!(found("contact-42"), "id=contact-42;", "a bare word is an id");
        assert_eq!(found(r#"tenant:"acme ""north"" corp" endpoint:crm"#), r#"tenant=acme "north" corp;endpoint=crm;"#);
        assert_eq!(found("id:a:b"), "id=a:b;");
        assert_eq!(found(""), "");
    }

    #[test]
    fn what_is_wrong_is_said_with_what_was_meant() {
        for (text, part) in [
            (
                "tennant:acme",
                "\"tennant\" is no qualifier here; did you mean tenant:? There are state:, tenant:, endpoint:, id:.",
            ),
            ("colour:red", "\"colour\" is no qualifier here. There are"),
            ("state:wating", "\"wating\" is no state; did you mean state:waiting? One of: waiting, dead."),
            ("state:nonsense", "\"nonsense\" is no state. One of"),
            ("tenant:a tenant:b", "tenant: is given twice"),
            ("tenant:", "tenant: says nothing"),
            ("tenant:\"a", "A quote is not closed"),
        ] {
            assert!(found(text).contains(part), "{text}: {}", found(text));
        }
        let only = [Qualifier { name: "tenant", words: Vec::new() }];
        assert!(parse("acme", &only).expect_err("no id here").contains("Write it like tenant:acme"));
        assert!(parse(&"a".repeat(2_000), &known()).is_err());
    }

    #[test]
    fn what_was_read_is_written_again() {
        for pairs in [&[("state", "dead"), ("tenant", "acme corp")][..], &[("id", "say \"hi\"")], &[]] {
            let read = parse(&text(pairs), &known()).expect("our own text");
            let read: Vec<(&str, &str)> = read.iter().map(|(name, value)| (*name, value.as_str())).collect();
            assert_eq!(read, pairs);
        }
        assert_eq!(text(&[("state", ""), ("id", " ")]), "");
    }
}
