//! Holds the dependencies to deny.toml (licences, bans, sources) without cargo-deny, from what cargo itself resolves.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// The rules that are held here; deny.toml is their one source.
struct Rules {
    licences: BTreeSet<String>,
    banned: BTreeMap<String, String>,
    registries: BTreeSet<String>,
}

fn rules(text: &str) -> Rules {
    let table: toml::Table = text.parse().unwrap_or_else(|error| panic!("deny.toml: {error}"));
    let list = |section: &str, key: &str| -> Vec<toml::Value> {
        table[section][key].as_array().unwrap_or_else(|| panic!("deny.toml: [{section}] {key} is no list")).clone()
    };
    let text = |value: &toml::Value| value.as_str().expect("deny.toml: text").to_owned();
    Rules {
        licences: list("licenses", "allow").iter().map(text).collect(),
        banned: list("bans", "deny").iter().map(|ban| (text(&ban["crate"]), text(&ban["reason"]))).collect(),
        registries: list("sources", "allow-registry").iter().map(text).collect(),
    }
}

/// What is wrong with one package of `cargo metadata`.
fn problems(package: &Value, rules: &Rules) -> Vec<String> {
    let name = package["name"].as_str().expect("a package has a name");
    let version = package["version"].as_str().expect("a package has a version");
    let mut problems = Vec::new();
    match package["license"].as_str() {
        None => problems.push(format!("{name} {version} names no licence")),
        Some(licence) if !allowed(licence, &rules.licences) => {
            problems.push(format!("{name} {version}: its licence {licence:?} is not allowed by deny.toml"));
        }
        Some(_) => {}
    }
    if let Some(reason) = rules.banned.get(name) {
        problems
            .push(format!("{name} {version} is banned by deny.toml: {reason} (find it with: cargo tree -i {name})"));
    }
    // without a source it is a package of this repository
    if let Some(source) = package["source"].as_str()
        && !source.strip_prefix("registry+").is_some_and(|registry| rules.registries.contains(registry))
    {
        problems.push(format!("{name} {version} comes from {source}, which deny.toml does not allow"));
    }
    problems
}

/// Whether an SPDX expression (or the older `A/B`) can be met with the allowed licences.
fn allowed(expression: &str, licences: &BTreeSet<String>) -> bool {
    let spaced =
        expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ").replace(" WITH ", "\u{a0}WITH\u{a0}");
    let tokens: Vec<String> =
        spaced.split([' ', '\t']).filter(|t| !t.is_empty()).map(|t| t.replace('\u{a0}', " ")).collect();
    let mut at = 0;
    let met = any(&tokens, &mut at, licences);
    met && at == tokens.len()
}

fn any(tokens: &[String], at: &mut usize, licences: &BTreeSet<String>) -> bool {
    let mut met = all(tokens, at, licences);
    while tokens.get(*at).is_some_and(|token| token == "OR") {
        *at += 1;
        met |= all(tokens, at, licences);
    }
    met
}

fn all(tokens: &[String], at: &mut usize, licences: &BTreeSet<String>) -> bool {
    let mut met = one(tokens, at, licences);
    while tokens.get(*at).is_some_and(|token| token == "AND") {
        *at += 1;
        met &= one(tokens, at, licences);
    }
    met
}

fn one(tokens: &[String], at: &mut usize, licences: &BTreeSet<String>) -> bool {
    let Some(token) = tokens.get(*at) else { return false };
    *at += 1;
    if token != "(" {
        return licences.contains(token);
    }
    let met = any(tokens, at, licences);
    let closed = tokens.get(*at).is_some_and(|token| token == ")");
    *at += usize::from(closed);
    met && closed
}

/// The packages that cargo builds for this machine, tests and build scripts included.
fn resolved() -> Vec<Value> {
    let run = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).output();
        let output = output.unwrap_or_else(|error| panic!("{program} {arguments:?}: {error}"));
        assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    let version = run("rustc", &["-vV"]);
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).expect("rustc names its host");
    let metadata =
        run(env!("CARGO"), &["metadata", "--format-version", "1", "--locked", "--offline", "--filter-platform", host]);
    let mut metadata: Value = serde_json::from_str(&metadata).expect("cargo metadata is JSON");
    let nodes = metadata["resolve"]["nodes"].as_array().expect("a resolved graph").clone();
    let used: BTreeSet<&str> = nodes.iter().filter_map(|node| node["id"].as_str()).collect();
    let Value::Array(packages) = metadata["packages"].take() else { panic!("cargo metadata lists no packages") };
    packages.into_iter().filter(|package| package["id"].as_str().is_some_and(|id| used.contains(id))).collect()
}

fn deny_toml() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("deny.toml")).expect("deny.toml is there")
}

#[test]
fn every_dependency_keeps_to_deny_toml() {
    let (rules, packages) = (rules(&deny_toml()), resolved());
    assert!(packages.len() > 100, "cargo metadata shows {} packages only", packages.len());
    let problems: Vec<String> = packages.iter().flat_map(|package| problems(package, &rules)).collect();
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}

#[test]
fn every_ignored_advisory_has_a_reason_and_is_still_needed() {
    let table: toml::Table = deny_toml().parse().expect("deny.toml is TOML");
    let names: BTreeSet<String> =
        resolved().iter().filter_map(|package| package["name"].as_str().map(str::to_owned)).collect();
    for ignored in table["advisories"]["ignore"].as_array().expect("a list") {
        let (id, reason) = (ignored["id"].as_str().expect("an id"), ignored["reason"].as_str().expect("a reason"));
        let name = reason.split(' ').next().expect("a reason begins with the crate's name");
        assert!(names.contains(name), "{id}: {name} has left the tree: take the advisory out of deny.toml");
    }
}

#[test]
fn expressions_of_licences_are_understood() {
    let licences = ["MIT", "ISC", "Apache-2.0 WITH LLVM-exception"].map(str::to_owned).into();
    for met in
        ["MIT", "MIT/GPL-3.0", "GPL-3.0 OR MIT", "(GPL-3.0 OR MIT) AND ISC", "Apache-2.0 WITH LLVM-exception OR X"]
    {
        assert!(allowed(met, &licences), "{met}");
    }
    for unmet in ["", "GPL-3.0", "MIT AND GPL-3.0", "GPL-3.0 AND MIT OR X", "(MIT", "MIT)", "MIT ISC", "Apache-2.0"] {
        assert!(!allowed(unmet, &licences), "{unmet}");
    }
}

#[test]
fn a_bad_package_is_named_with_its_fault() {
    let rules = rules(&deny_toml());
    let registry = "registry+https://github.com/rust-lang/crates.io-index";
    let package = |name: &str, licence: Option<&str>, source: &str| {
        problems(&serde_json::json!({"name": name, "version": "1.0.0", "license": licence, "source": source}), &rules)
    };
    assert_eq!(package("fine", Some("MIT"), registry), Vec::<String>::new());
    assert!(package("copyleft", Some("GPL-3.0-only"), registry)[0].contains("GPL-3.0-only"));
    assert!(package("silent", None, registry)[0].contains("names no licence"));
    assert!(package("elsewhere", Some("MIT"), "git+https://example.com/x")[0].contains("does not allow"));
    for name in ["openssl", "native-tls", "aws-lc-rs", "rsa"] {
        assert!(package(name, Some("MIT"), registry)[0].contains("is banned"), "{name}");
    }
}
