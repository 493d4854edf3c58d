//! Reads what is shipped for Prometheus and Grafana: rules, their tests, dashboards, and every query in them.

use std::fs;
use std::path::PathBuf;

use serde_json::Value as Json;
use serde_yaml_ng::Value;

pub const RULES: &str = "lanes.rules.yml";
/// Cases of promtool for the rules: of hours, and of days.
pub const TESTS: [&str; 2] = ["lanes.rules.test.yml", "lanes.trends.test.yml"];
/// What Grafana puts in for its own variables begins like this.
const BUILT_IN: &str = "__";

pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

pub fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// A file of deploy/prometheus.
pub fn yaml(name: &str) -> Value {
    let text = read(&format!("deploy/prometheus/{name}"));
    serde_yaml_ng::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"))
}

pub fn rules() -> Value {
    yaml(RULES)
}

/// An alert or a recorded series.
pub struct Rule {
    pub name: String,
    pub expr: String,
    pub body: Value,
}

fn rules_of(kind: &str) -> Vec<Rule> {
    let file = rules();
    let groups = file["groups"].as_sequence().expect("groups");
    let all = groups.iter().flat_map(|group| group["rules"].as_sequence().expect("rules"));
    let text =
        |body: &Value, key: &str| body[key].as_str().unwrap_or_else(|| panic!("{body:?} has no {key}")).to_owned();
    all.filter(|body| body.get(kind).is_some())
        .map(|body| Rule { name: text(body, kind), expr: text(body, "expr"), body: body.clone() })
        .collect()
}

pub fn alerts() -> Vec<Rule> {
    rules_of("alert")
}

pub fn recordings() -> Vec<Rule> {
    rules_of("record")
}

/// Every dashboard with its file name.
pub fn dashboards() -> Vec<(String, Json)> {
    let dir = root().join("deploy/grafana/dashboards");
    let mut all: Vec<_> = fs::read_dir(&dir)
        .expect("dashboards")
        .map(|entry| {
            let path = entry.expect("an entry").path();
            let name = path.file_name().and_then(|name| name.to_str()).expect("a name").to_owned();
            let text = fs::read_to_string(&path).expect("readable");
            (name.clone(), serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}")))
        })
        .collect();
    all.sort_by(|(a, _), (b, _)| a.cmp(b));
    all
}

/// Something that is asked of Prometheus, and where it stands.
pub struct Query {
    pub place: String,
    pub title: String,
    pub expr: String,
}

/// The queries of all panels.
pub fn panels() -> Vec<Query> {
    let mut all = Vec::new();
    for (file, board) in dashboards() {
        for panel in board["panels"].as_array().expect("panels").iter().filter(|panel| panel["type"] != "row") {
            let title = panel["title"].as_str().expect("a title");
            let targets = panel["targets"].as_array().unwrap_or_else(|| panic!("{file}: {title:?} asks nothing"));
            all.extend(targets.iter().map(|target| Query {
                place: format!("{file}: {title}"),
                title: title.to_owned(),
                expr: target["expr"].as_str().expect("an expression").to_owned(),
            }));
        }
    }
    assert!(all.len() > 40, "{} queries", all.len());
    all
}

/// The queries of panels, alerts and recorded series.
pub fn queries() -> Vec<Query> {
    let of_rules = alerts().into_iter().chain(recordings()).map(|rule| Query {
        place: format!("{RULES}: {}", rule.name),
        title: rule.name,
        expr: rule.expr,
    });
    of_rules.chain(panels()).collect()
}

/// What the dashboards' own variables are filled with: the series and the label, `label_values(series, label)`.
pub fn variables() -> Vec<(String, String)> {
    let boards = dashboards();
    let lists = boards.iter().flat_map(|(_, board)| board["templating"]["list"].as_array().expect("variables"));
    let definitions = lists.filter_map(|variable| variable["definition"].as_str());
    definitions
        .map(|text| {
            let inner = text.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')')).expect("a query");
            let (series, label) = inner.rsplit_once(", ").expect("series and label");
            (series.to_owned(), label.to_owned())
        })
        .collect()
}

/// Names of variables in a text (`$lane`, `${datasource}`) but Grafana's own.
pub fn variables_in(text: &str) -> Vec<String> {
    let starts = text.split('$').skip(1).map(|rest| rest.trim_start_matches('{'));
    let names = starts.map(|rest| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>());
    names.filter(|name| !name.is_empty() && !name.starts_with(BUILT_IN)).collect()
}

/// Titles of panels that a line of the runbook names: what stands in quotes where it speaks of panels.
pub fn panels_named(line: &str) -> Vec<String> {
    if !line.to_lowercase().contains("panel") {
        return Vec::new();
    }
    line.split('"').skip(1).step_by(2).map(|quoted| quoted.trim_end_matches(',').to_owned()).collect()
}
