//! A strict reading of a page: only elements and attributes that our templates have, all of them closed.

/// Elements that have no end.
const VOID: &[&str] = &["meta", "link", "input", "br"];
const ELEMENTS: &[&str] = &[
    "!doctype",
    "html",
    "head",
    "meta",
    "title",
    "link",
    "script",
    "body",
    "a",
    "header",
    "nav",
    "ul",
    "ol",
    "li",
    "p",
    "span",
    "form",
    "button",
    "div",
    "strong",
    "time",
    "main",
    "footer",
    "noscript",
    "section",
    "h1",
    "h2",
    "h3",
    "table",
    "thead",
    "tbody",
    "tr",
    "th",
    "td",
    "meter",
    "label",
    "select",
    "option",
    "input",
    "dl",
    "dt",
    "dd",
    "pre",
    "code",
    "br",
    "b",
    "small",
    "em",
    "i",
    "details",
    "summary",
    "hr",
    "figure",
    "figcaption",
    "svg",
    "path",
    "rect",
    "g",
    "dialog",
    "kbd",
    "textarea",
];
const ATTRIBUTES: &[&str] = &[
    "lang",
    "charset",
    "name",
    "content",
    "rel",
    "href",
    "type",
    "src",
    "defer",
    "class",
    "id",
    "data-events",
    "method",
    "action",
    "role",
    "aria-label",
    "aria-labelledby",
    "aria-hidden",
    "aria-current",
    "tabindex",
    "scope",
    "datetime",
    "title",
    "min",
    "max",
    "low",
    "high",
    "value",
    "selected",
    "autocomplete",
    "spellcheck",
    "for",
    "required",
    "colspan",
    "optimum",
    "placeholder",
    "aria-describedby",
    "hidden",
    "viewBox",
    "data-key",
    "aria-pressed",
    "maxlength",
    "preserveAspectRatio",
    "d",
    "x",
    "y",
    "width",
    "height",
    "rows",
];

/// Fails when `page` holds anything that our templates do not write.
pub fn check(path: &str, page: &str) {
    check_below("", path, page);
}

/// The same of a dashboard below a base path: no address leads out of it.
pub fn check_below(base: &str, path: &str, page: &str) {
    let mut open: Vec<&str> = Vec::new();
    let mut rest = page;
    while let Some(at) = rest.find('<') {
        let text = &rest[..at];
        assert!(!text.contains('>'), "{path}: a bare > in {text:?}");
        let (tag, tail) = element(base, path, &rest[at + 1..]);
        rest = tail;
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name), "{path}: </{name}> closes another element");
        } else if tag != "!doctype" && !VOID.contains(&tag) {
            open.push(tag);
        }
    }
    assert!(open.is_empty(), "{path}: {open:?} stay open");
}

/// The element's name (with `/` of an end), and what follows it.
fn element<'a>(base: &str, path: &str, tag: &'a str) -> (&'a str, &'a str) {
    let end = tag.find([' ', '>']).unwrap_or_else(|| panic!("{path}: an open tag: {tag:.60}"));
    let (name, mut rest) = tag.split_at(end);
    let name = if name.eq_ignore_ascii_case("!doctype") { "!doctype" } else { name };
    let plain = name.trim_start_matches('/');
    assert!(ELEMENTS.contains(&plain), "{path}: <{plain}> is none of ours");
    let mut source = false;
    loop {
        rest = rest.trim_start_matches(' ');
        if let Some(tail) = rest.strip_prefix('>') {
            assert!(name != "script" || source, "{path}: a script without a source");
            return (name, tail);
        }
        let end = rest.find(['=', ' ', '>']).unwrap_or_else(|| panic!("{path}: an open tag: {rest:.60}"));
        let (attribute, tail) = rest.split_at(end);
        let known = ATTRIBUTES.contains(&attribute) || (name == "!doctype" && attribute == "html");
        assert!(known, "{path}: <{name}> has {attribute:?}");
        rest = tail;
        if let Some(tail) = tail.strip_prefix("=\"") {
            let (value, tail) = tail.split_once('"').unwrap_or_else(|| panic!("{path}: an open value: {tail:.60}"));
            assert!(!value.contains(['<', '>']), "{path}: {attribute}={value:?}");
            if matches!(attribute, "href" | "src" | "action" | "data-events") {
                let within = value.starts_with(&format!("{base}/")) && !value.starts_with("//");
                assert!(within || value.starts_with('#'), "{path}: {attribute} leads away: {value}");
            }
            source |= attribute == "src" && value.starts_with(&format!("{base}/assets/"));
            rest = tail;
        }
    }
}

#[test]
fn what_is_not_ours_is_found() {
    check("x", "<p>a &lt;b&gt;<br>c</p>");
    for bad in [
        "<p>",
        "<script>1</script>",
        "<p onclick=\"x\"></p>",
        "<img src=\"/x\">",
        "<a href=\"https://x\">x</a>",
        "a > b<br>",
        "</p>",
    ] {
        assert!(std::panic::catch_unwind(|| check("x", bad)).is_err(), "{bad}");
    }
}
