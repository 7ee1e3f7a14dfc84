//! What is asked of Prometheus: by the alerts, by the dashboard, and in the cases by which the alerts are tested.

use std::{fs, path::PathBuf};

use serde_json::Value;

/// A query, with where it stands.
#[derive(Debug)]
pub struct Query {
    pub origin: String,
    pub text: String,
    /// Labels of its result that are shown.
    pub shown: Vec<String>,
}

/// Of helm/holdfast/files/alerts.yaml: each rule's name, its query and the labels that its texts name.
pub fn alerts() -> Vec<Query> {
    let text = read("helm/holdfast/files/alerts.yaml");
    let rules = text.split("\n      - ").skip(1);
    rules.map(rule).collect()
}

fn rule(text: &str) -> Query {
    let mut lines = text.lines();
    let origin = lines.next().expect("a rule has a name").to_owned();
    let block = lines.skip_while(|line| line.trim() != "expr: |-").skip(1);
    let expr: Vec<_> = block
        .take_while(|line| line.starts_with("          "))
        .collect();
    assert!(!expr.is_empty(), "no query in {text}");
    Query {
        origin,
        text: expr.join("\n"),
        shown: between(text, "$labels.", |c| !c.is_ascii_alphanumeric() && c != '_'),
    }
}

/// What is recorded by them.
pub fn recorded() -> Vec<String> {
    let records = alerts().into_iter();
    records
        .filter_map(|rule| Some(rule.origin.strip_prefix("record: ")?.to_owned()))
        .collect()
}

/// Of helm/holdfast/files/dashboard.json: panels and annotations.
pub fn dashboard() -> Vec<Query> {
    let file = read("helm/holdfast/files/dashboard.json");
    assert!(file.len() < 1_000_000, "too large for a ConfigMap");
    let dashboard: Value = serde_json::from_str(&file).unwrap();
    let mut queries = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        let targets = panel["targets"].as_array();
        queries.extend(
            targets
                .into_iter()
                .flatten()
                .map(|target| shown(&panel["title"], target)),
        );
    }
    let annotations = dashboard["annotations"]["list"].as_array().unwrap();
    let named = annotations.iter().map(|each| shown(&each["name"], each));
    queries.extend(named);
    queries
}

fn shown(title: &Value, target: &Value) -> Query {
    let legend = target["legendFormat"].as_str().unwrap_or_default();
    Query {
        origin: format!("panel {title}"),
        text: target["expr"].as_str().unwrap().to_owned(),
        shown: between(legend, "{{", |c| c == '}'),
    }
}

/// Of deploy/alerts/cases.toml: the series that are given, as queries.
pub fn cases() -> Vec<Query> {
    let file: toml::Table = toml::from_str(&read("deploy/alerts/cases.toml")).unwrap();
    let mut queries = Vec::new();
    for (alert, case) in &file {
        series(alert, case.as_table().unwrap(), &mut queries);
    }
    queries
}

/// All that has values, but for the labels that an alert is expected to have.
fn series(alert: &str, table: &toml::Table, queries: &mut Vec<Query>) {
    for (key, value) in table {
        match value {
            toml::Value::Table(inner) if key != "labels" => series(alert, inner, queries),
            toml::Value::String(_) if !["at", "scrape", "summary"].contains(&key.as_str()) => {
                queries.push(Query {
                    origin: format!("cases.toml, {alert}"),
                    text: key.clone(),
                    shown: Vec::new(),
                });
            }
            _ => {}
        }
    }
}

/// The routes of each class of deploy/slo.toml.
pub fn classes() -> Vec<Vec<String>> {
    let file: toml::Table = toml::from_str(&read("deploy/slo.toml")).unwrap();
    let classes = file["class"].as_array().unwrap().iter();
    let routes = |class: &toml::Value| {
        let routes = class.get("routes")?.as_array()?.iter();
        Some(
            routes
                .map(|route| route.as_str().unwrap().to_owned())
                .collect(),
        )
    };
    classes.filter_map(routes).collect()
}

fn read(path: &str) -> String {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    fs::read_to_string(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// What stands after each `before`, up to the first character that `ends` it.
fn between(text: &str, before: &str, ends: impl Fn(char) -> bool) -> Vec<String> {
    let after = text.split(before).skip(1);
    after
        .map(|rest| rest.split(&ends).next().unwrap_or_default().to_owned())
        .collect()
}
