//! The effective configuration for people and programs: every setting, its origin, no secrets.

use std::fmt::Write as _;

use serde_json::json;

use super::Loaded;
use super::reader::Setting;

/// The effective configuration as TOML; a comment says where each value comes from.
pub fn show(loaded: &Loaded) -> String {
    let mut text = format!("# effective configuration, from {}\n", loaded.source);
    for warning in &loaded.warnings {
        line(&mut text, format_args!("# warning: {warning}"));
    }
    let mut tables: Vec<&[String]> = Vec::new();
    for setting in &loaded.settings {
        let table = table_of(setting);
        if !tables.contains(&table) {
            tables.push(table);
        }
    }
    // what stands in no table has to stand before all of them
    tables.sort_by_key(|table| !table.is_empty());
    for table in tables {
        let path: Vec<String> = table.iter().map(|part| key_text(part)).collect();
        let head = if path.is_empty() { String::new() } else { format!("\n[{}]", path.join(".")) };
        line(&mut text, format_args!("{head}"));
        let settings: Vec<_> = loaded.settings.iter().filter(|setting| table_of(setting) == table).collect();
        let pairs: Vec<String> = settings.iter().map(|setting| pair_text(setting)).collect();
        let width = pairs.iter().map(|pair| pair.chars().count()).filter(|width| *width <= 60).max().unwrap_or(0);
        for (pair, setting) in pairs.iter().zip(settings) {
            line(&mut text, format_args!("{pair:width$} # {}", setting.origin));
        }
    }
    text
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    // writing to a String cannot fail
    let _ = writeln!(text, "{line}");
}

fn table_of(setting: &Setting) -> &[String] {
    setting.path.split_last().map_or(&[], |(_, table)| table)
}

fn pair_text(setting: &Setting) -> String {
    let key = setting.path.last().map_or("", String::as_str);
    let value =
        toml::Value::try_from(&setting.value).map_or_else(|_| setting.value.to_string(), |value| value.to_string());
    format!("{} = {value}", key_text(key))
}

fn key_text(key: &str) -> String {
    let bare = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'));
    if bare { key.to_owned() } else { toml::Value::String(key.to_owned()).to_string() }
}

/// The same for programs.
pub fn show_json(loaded: &Loaded) -> serde_json::Value {
    let settings: Vec<_> = loaded
        .settings
        .iter()
        .map(|setting| json!({ "key": setting.path.join("."), "value": setting.value, "origin": setting.origin }))
        .collect();
    json!({ "source": loaded.source, "settings": settings, "warnings": loaded.warnings })
}
