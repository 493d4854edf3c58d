//! As much of PromQL as it takes to see which series an expression reads, and by which labels.

/// `label op "value"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Matcher {
    pub label: String,
    pub op: String,
    pub value: String,
}

/// A series that is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selector {
    pub name: String,
    pub matchers: Vec<Matcher>,
}

/// Words that are followed by a list of labels.
const BEFORE_LABELS: [&str; 4] = ["by", "on", "without", "ignoring"];

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == ':'
}

/// Each word outside of strings and braces, with what follows it.
fn words(expr: &str) -> Vec<(&str, &str)> {
    let (mut found, mut at, mut braces) = (Vec::new(), 0, 0);
    while let Some(c) = expr[at..].chars().next() {
        match c {
            '"' => at += 1 + expr[at + 1..].find('"').expect("a closed string"),
            '{' => braces += 1,
            '}' => braces -= 1,
            c if is_word(c) => {
                let length = expr[at..].find(|c| !is_word(c)).unwrap_or(expr.len() - at);
                if braces == 0 {
                    found.push((&expr[at..at + length], expr[at + length..].trim_start()));
                }
                at += length;
                continue;
            }
            _ => {}
        }
        at += c.len_utf8();
    }
    found
}

fn is_series(word: &str) -> bool {
    word.starts_with("lanes_") || word.contains(':') || word == "up" || word == "ALERTS"
}

/// Every series that `expr` reads.
pub fn selectors(expr: &str) -> Vec<Selector> {
    let series = words(expr).into_iter().filter(|(word, _)| is_series(word) && !word.starts_with(':'));
    series
        .map(|(word, rest)| Selector {
            name: word.to_owned(),
            matchers: rest.strip_prefix('{').map(matchers).unwrap_or_default(),
        })
        .collect()
}

fn matchers(rest: &str) -> Vec<Matcher> {
    let (mut found, mut rest) = (Vec::new(), rest);
    loop {
        rest = rest.trim_start_matches([' ', ',']);
        if rest.starts_with('}') {
            return found;
        }
        let mut parts = rest.splitn(3, '"');
        let (before, value) = (parts.next().expect("a label"), parts.next().expect("a value"));
        let (label, op) = before.split_at(before.find(['=', '!']).expect("an operator"));
        found.push(Matcher { label: label.trim().to_owned(), op: op.trim().to_owned(), value: value.to_owned() });
        rest = parts.next().expect("a closed selector");
    }
}

/// Every label that `expr` groups or joins by.
pub fn grouped(expr: &str) -> Vec<String> {
    let lists = words(expr).into_iter().filter(|(word, _)| BEFORE_LABELS.contains(word));
    let lists = lists.filter_map(|(_, rest)| rest.strip_prefix('(')?.split(')').next());
    lists
        .flat_map(|list| list.split(',').map(|label| label.trim().to_owned()))
        .filter(|label| !label.is_empty())
        .collect()
}

#[test]
fn expressions_are_read() {
    let expr = r#"sum by (job, lane) (rate(lanes_a_total{outcome="x{y", lane=~"$lane"}[5m])) / lane:b:max > 1 unless on (job) up == 0"#;
    let read: Vec<_> = selectors(expr).into_iter().map(|selector| (selector.name, selector.matchers.len())).collect();
    assert_eq!(read, [("lanes_a_total".to_owned(), 2), ("lane:b:max".to_owned(), 0), ("up".to_owned(), 0)]);
    let first = &selectors(expr)[0].matchers;
    assert_eq!((first[0].op.as_str(), first[0].value.as_str()), ("=", "x{y"));
    assert_eq!((first[1].op.as_str(), first[1].value.as_str()), ("=~", "$lane"));
    assert_eq!(grouped(expr), ["job", "lane", "job"]);
}
