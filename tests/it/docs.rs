//! What the documents show is what the repository holds.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use lanes::config;

fn read(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Contents of the code blocks of a Markdown text that are marked `language`.
fn blocks(markdown: &str, language: &str) -> Vec<String> {
    let start = format!("```{language}\n");
    markdown.split(&start).skip(1).map(|rest| rest.split("```").next().unwrap_or_default().to_owned()).collect()
}

/// Targets of the links of a Markdown text that lead to a file of the repository.
fn file_links(markdown: &str) -> Vec<String> {
    let targets = markdown.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let files = targets.filter(|target| !target.contains("://") && !target.starts_with('#'));
    files.map(|target| target.split('#').next().unwrap_or_default().to_owned()).collect()
}

#[test]
fn the_readme_shows_the_examples_as_they_are() {
    let readme = read("README.md");
    for (language, file) in [("python", "examples/publish.py"), ("js", "examples/publish.js")] {
        assert_eq!(blocks(&readme, language), [read(file)], "README.md and {file} differ");
    }
}

/// Pictures that pages show by HTML are there too.
#[test]
fn pictures_are_there() {
    let readme = read("README.md");
    let shown: Vec<&str> = readme.split('"').filter(|word| word.starts_with("docs/dashboard")).collect();
    assert_eq!(shown, ["docs/dashboard-dark.png", "docs/dashboard-light.png"]);
    for picture in shown {
        let bytes = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(picture)).expect(picture);
        assert!(bytes.starts_with(b"\x89PNG") && bytes.len() > 10_000, "{picture}");
    }
}

#[test]
fn links_lead_somewhere() {
    for document in ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "docs/runbook.md"] {
        let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join(document);
        for file in file_links(&read(document)) {
            let target = beside.parent().expect("a directory").join(&file);
            assert!(target.exists(), "{document} links to {file}");
        }
    }
}

/// Writes `more` into `settings`, as somebody does who adds it to his file.
fn merge(settings: &mut toml::Table, more: toml::Table) {
    for (key, value) in more {
        match (settings.get_mut(&key), value) {
            (Some(toml::Value::Table(old)), toml::Value::Table(new)) => merge(old, new),
            (_, value) => drop(settings.insert(key, value)),
        }
    }
}

#[test]
fn toml_blocks_of_the_readme_are_valid_settings() {
    let blocks = blocks(&read("README.md"), "toml");
    assert!(!blocks.is_empty());
    for block in blocks {
        // a block shows some tables; the rest is the default's
        let mut settings: toml::Table = read("lanes.toml").parse().expect("lanes.toml is TOML");
        merge(&mut settings, block.parse().unwrap_or_else(|error| panic!("README.md: {error}\n{block}")));
        let text = toml::to_string(&settings).expect("tables become text");
        let secrets = [
            ("DASHBOARD_ALICE", "a-token-that-is-long-enough"),
            ("SLACK_URL", "https://hooks.slack.com/services/T0/B0/X"),
            ("NOTIFY_SECRET", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
        ];
        let secrets = secrets.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let loaded = config::read("README.md", &text, &secrets, &|path| fs::read_to_string(path));
        loaded.unwrap_or_else(|problems| panic!("{problems}\n{block}"));
    }
}

#[test]
fn environment_variables_of_the_readme_are_settings() {
    let readme = read("README.md");
    let names = readme.split('`').filter(|word| word.starts_with("LANES_") && word.contains("__"));
    let environment: BTreeMap<String, String> = names
        .map(|name| {
            let value = match name {
                "LANES_BROKER__URL" => "amqp://broker/%2f",
                "LANES_STORE__URL" => "postgres://store/lanes",
                "LANES_LANES__BULK__CONCURRENCY" => "3",
                other => panic!("README.md names {other}: give it a value here"),
            };
            (name.to_owned(), value.to_owned())
        })
        .collect();
    assert_eq!(environment.len(), 3);
    let loaded = config::read_default(&environment, &|path| fs::read_to_string(path));
    loaded.unwrap_or_else(|problems| panic!("{problems}"));
}

/// Commands of `lanes` in a Markdown text: lines of its shell blocks, and code spans.
fn commands(markdown: &str) -> Vec<String> {
    let lines = blocks(markdown, "sh").join("\n");
    let lines = lines.lines().map(|line| line.replace("cargo run --release -- ", "lanes "));
    let prose: String = markdown.split("```").step_by(2).collect();
    let spans = prose.split('`').skip(1).step_by(2).map(str::to_owned);
    lines.chain(spans).filter(|command| command.starts_with("lanes ")).collect()
}

/// Splits at spaces outside of single quotes, as a shell would.
fn words(command: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quoted = false;
    for c in command.chars() {
        match c {
            '\'' => quoted = !quoted,
            ' ' if !quoted => words.push(String::new()),
            c => words.last_mut().expect("never empty").push(c),
        }
    }
    words
}

#[test]
fn commands_of_the_documents_exist_with_their_options() {
    let mut shown = ["README.md", "ARCHITECTURE.md", "docs/runbook.md"].map(|name| commands(&read(name))).concat();
    assert!(shown.len() > 10, "{shown:?}");
    shown.sort_unstable();
    shown.dedup();
    let an_id = uuid::Uuid::nil().to_string();
    let mut unknown = Vec::new();
    for command in shown {
        // everything before --help has to be understood
        let arguments = words(&command).into_iter().skip(1).map(|word| if word == "ID" { an_id.clone() } else { word });
        let output = Command::new(env!("CARGO_BIN_EXE_lanes")).args(arguments).arg("--help").output().expect("it runs");
        if !output.status.success() {
            unknown.push(format!("{command}: {}", String::from_utf8_lossy(&output.stderr)));
        }
    }
    assert!(unknown.is_empty(), "{}", unknown.join("\n"));
}

#[test]
fn the_changelog_has_an_entry_for_this_version() {
    let heading = format!("## [{}]", env!("CARGO_PKG_VERSION"));
    assert!(read("CHANGELOG.md").contains(&heading), "CHANGELOG.md lacks {heading}");
}
