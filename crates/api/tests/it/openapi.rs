//! The document at `/openapi.json` and the routes of the public listener are the same, both ways, and what the routes
//! let a stranger do is on a list.

use std::collections::{BTreeMap, BTreeSet};

use api::{http::observe::ObserveLayer, settings::Settings, state::AppState};
use devstack::Database;
use prometheus_client::registry::Registry;
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use telemetry::trace::Sampling;

use crate::{
    service::{PATIENT, STAFF, Service, database, seed},
    wire::{Wire, borrowed, call, get, sign_in},
};

/// Routes that are no part of the API.
const UNDOCUMENTED: [&str; 5] = ["/docs", "/docs/", "/health", "/openapi.json", "/ready"];
/// Writes that need no session.
const PUBLIC_WRITES: [&str; 3] = ["POST /v1/events", "POST /v1/session", "POST /v1/users"];
const METHODS: [&str; 8] = [
    "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE",
];

#[tokio::test]
async fn the_router_and_the_document_have_the_same_paths() {
    let database = database().await;
    let service = Service::start(&database, &PATIENT).await;

    let mut documented: BTreeSet<_> = document(&service).await.into_keys().collect();

    documented.extend(UNDOCUMENTED.map(str::to_owned));
    assert_eq!(routed(), documented);
}

#[tokio::test]
async fn every_path_serves_the_documented_methods_and_refuses_all_others() {
    let database = database().await;
    let service = Service::start(&database, &PATIENT).await;

    for (path, documented) in document(&service).await {
        let mut served = documented.clone();
        if served.contains("GET") {
            served.insert("HEAD".to_owned());
        }
        for method in METHODS {
            let line = format!("{method} {}", concrete(&path));
            let mut wire = Wire::connect(service.public).await.unwrap();
            let reply = wire.call(&line, &[], None).await.unwrap();
            assert_eq!(
                reply.status != 405,
                served.contains(method),
                "{line}: {reply:?}"
            );
            assert!(reply.status < 500, "{line}: {reply:?}");
            if reply.status == 405 {
                let allow = reply.header("allow").unwrap_or_default().split(',');
                let allowed: BTreeSet<_> = allow.map(|method| method.trim().to_owned()).collect();
                assert_eq!(allowed, served, "{line}");
                assert_eq!(
                    reply.header("content-type"),
                    Some("application/problem+json")
                );
            }
        }
    }
}

#[tokio::test]
async fn a_write_without_a_session_is_401_unless_it_is_listed_as_public() {
    let database = database().await;
    let service = Service::start(&database, &PATIENT).await;

    let mut public = BTreeSet::new();
    for line in operations(&document(&service).await, |method| method != "GET") {
        let reply = call(service.public, &concrete(&line), &[], Some(&Value::Null)).await;
        match reply.status {
            401 => assert_eq!(reply.json()["code"], "unauthenticated", "{line}"),
            _ => assert!(public.insert(line)),
        }
    }

    assert_eq!(public, PUBLIC_WRITES.map(str::to_owned).into());
}

#[tokio::test]
async fn a_read_changes_no_row() {
    let database = database().await;
    seed(devstack::shared().await, &database, 50).await;
    let service = Service::start(&database, &PATIENT).await;
    let staff = sign_in(service.public, STAFF).await;
    let products = get(service.public, "/v1/products").await.json();
    let id = products["items"][0]["id"].as_str().unwrap();
    let before = rows(&database).await;

    for line in operations(&document(&service).await, |method| method == "GET") {
        let line = line.replace("{id}", id);
        let reply = call(service.public, &line, &borrowed(&staff), None).await;
        assert!([200, 404].contains(&reply.status), "{line}: {reply:?}");
    }

    assert_eq!(rows(&database).await, before);
}

#[tokio::test]
async fn every_reference_in_the_document_leads_somewhere() {
    let database = database().await;
    let service = Service::start(&database, &PATIENT).await;

    let document = get(service.public, "/openapi.json").await.json();

    let references = references(&document);
    assert!(!references.is_empty());
    for reference in references {
        let target = document.pointer(reference.trim_start_matches('#'));
        assert!(target.is_some(), "{reference}");
    }
}

fn references(part: &Value) -> Vec<&str> {
    match part {
        Value::Array(items) => items.iter().flat_map(references).collect(),
        Value::Object(fields) => {
            let own = fields.get("$ref").and_then(Value::as_str);
            fields.values().flat_map(references).chain(own).collect()
        }
        _ => Vec::new(),
    }
}

/// The documented methods of every documented path.
async fn document(service: &Service) -> BTreeMap<String, BTreeSet<String>> {
    let document = get(service.public, "/openapi.json").await.json();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    let paths = document["paths"].as_object().unwrap();
    let methods = |item: &Value| {
        let names = item
            .as_object()
            .unwrap()
            .keys()
            .map(|name| name.to_uppercase());
        names
            .filter(|name| METHODS.contains(&name.as_str()))
            .collect()
    };
    paths
        .iter()
        .map(|(path, item)| (path.clone(), methods(item)))
        .collect()
}

/// Each operation as a request line.
fn operations(
    document: &BTreeMap<String, BTreeSet<String>>,
    wanted: impl Fn(&str) -> bool,
) -> Vec<String> {
    let lines = document.iter().flat_map(|(path, methods)| {
        methods
            .iter()
            .filter(|method| wanted(method))
            .map(move |method| format!("{method} {path}"))
    });
    lines.collect()
}

fn concrete(path: &str) -> String {
    path.replace("{id}", "0199f0a0-0000-7000-8000-000000000000")
}

/// The paths of the router. It cannot be asked for them, but its `Debug` output lists them, one a line:
/// `): "/v1/products",`. Swagger's own files are one more, with a wildcard.
fn routed() -> BTreeSet<String> {
    let settings = Settings::default();
    let mut registry = Registry::default();
    let state = AppState::new(&settings, &mut registry).unwrap();
    let observe = ObserveLayer::new(
        &settings.http,
        Sampling::new(&settings.telemetry),
        state.degradations.clone(),
        &mut registry,
    );
    let shown = format!("{:#?}", api::app(state, observe));
    let (listed, _) = shown.split_once("fallback_router:").unwrap();
    let paths = listed
        .lines()
        .filter_map(|line| line.trim().strip_prefix("): \"")?.strip_suffix("\","));
    let paths: BTreeSet<_> = paths
        .filter(|path| !path.contains("{*"))
        .map(str::to_owned)
        .collect();
    assert!(paths.len() > UNDOCUMENTED.len(), "{shown}");
    paths
}

/// A digest of every row of every table.
async fn rows(database: &Database) -> Vec<(String, Option<String>)> {
    let mut connection = PgConnection::connect(&database.admin_url).await.unwrap();
    let tables: Vec<String> =
        sqlx::query_scalar("select tablename::text from pg_tables where schemaname = 'public'")
            .fetch_all(&mut connection)
            .await
            .unwrap();
    let mut digests = Vec::new();
    for table in tables {
        let sql =
            format!(r#"select md5(string_agg(t::text, '' order by t::text)) from "{table}" t"#);
        let digest = sqlx::query_scalar(AssertSqlSafe(sql))
            .fetch_one(&mut connection)
            .await;
        digests.push((table, digest.unwrap()));
    }
    digests.sort();
    digests
}
