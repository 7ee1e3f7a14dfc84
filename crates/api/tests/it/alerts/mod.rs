//! The alerts and the dashboard, held against what processes really say: a query for a metric or a label that does not exist is
//! silent for ever, and one by a label that grows with what clients send costs more each day.

mod files;
mod promql;
mod scene;

use std::collections::BTreeSet;

use self::{
    files::Query,
    promql::Selector,
    scene::{Scene, Scraped},
};

/// Labels that Prometheus gives to all series of a process.
const OF_TARGETS: [&str; 3] = ["job", "namespace", "instance"];
/// What Kubernetes adds to those. A label of ours by such a name would be renamed.
const TAKEN: [&str; 7] = [
    "job",
    "namespace",
    "instance",
    "pod",
    "container",
    "endpoint",
    "service",
];
/// Labels of what is recorded by `rules.py`.
const OF_RECORDS: [&str; 3] = ["namespace", "class", "slo"];
/// Which statuses there are is not for one run to show.
const STATUSES: [&str; 2] = ["http_response_status_code", "rpc_response_status_code"];
/// More values than any label needs.
const VALUES_MAX: usize = 40;

#[tokio::test]
async fn every_query_asks_for_what_the_service_has() {
    let scene = Scene::start().await;
    scene.play().await;
    let (alerts, dashboard, cases) = (files::alerts(), files::dashboard(), files::cases());
    let queries = || alerts.iter().chain(&dashboard).chain(&cases);
    let faults = |scraped: &Scraped| -> BTreeSet<String> {
        queries()
            .flat_map(|query| faults_of(query, scraped))
            .collect()
    };

    let scraped = scene
        .scrape_until(|scraped| faults(scraped).is_empty())
        .await;

    let metrics: BTreeSet<_> = queries()
        .flat_map(|query| promql::selectors(&query.text).0)
        .map(|selector| selector.metric)
        .collect();
    println!(
        "{} queries of rules, {} of panels and {} series of cases ask for {} metrics of {}",
        alerts.len(),
        dashboard.len(),
        cases.len(),
        metrics.len(),
        scraped.metrics.len()
    );
    assert!(alerts.len() > 60 && dashboard.len() > 40 && cases.len() > 60);
    let faults = faults(&scraped);
    assert!(faults.is_empty(), "{faults:#?}");
    // It admits nobody, so it has no part in how saturated the service is.
    assert!(!scene.worker().await.contains("admission_"));
}

fn faults_of(query: &Query, scraped: &Scraped) -> Vec<String> {
    let text = query.text.replace("$__rate_interval", "5m");
    let (found, joined) = promql::selectors(&text);
    let mut faults = Vec::new();
    for selector in &found {
        faults.extend(faults_of_selector(selector, scraped));
    }
    for label in &joined {
        if !found.iter().any(|each| has(each, label, scraped)) {
            faults.push(format!("no metric has {label}"));
        }
    }
    for label in &query.shown {
        let is_kept = |each: &Selector| match each.grouped.is_empty() {
            true => has(each, label, scraped),
            false => each.grouped.contains(label),
        };
        if !found.iter().any(is_kept) {
            faults.push(format!("the result has no {label}"));
        }
    }
    let named = |fault| format!("{}: {fault}", query.origin);
    faults.into_iter().map(named).collect()
}

fn faults_of_selector(selector: &Selector, scraped: &Scraped) -> Vec<String> {
    let metric = &selector.metric;
    let is_recorded = metric.starts_with("holdfast:") && files::recorded().contains(metric);
    if !is_recorded && metric != "up" && !scraped.metrics.contains_key(metric) {
        return vec![format!("{metric} does not exist")];
    }
    let mut faults = Vec::new();
    let matched = selector.matchers.iter().map(|(label, ..)| label);
    for label in matched.chain(&selector.grouped) {
        if !has(selector, label, scraped) {
            faults.push(format!("{metric} has no {label}"));
        }
    }
    let Some(labels) = scraped.metrics.get(metric) else {
        return faults;
    };
    for (label, operator, value) in &selector.matchers {
        let is_open =
            STATUSES.contains(&label.as_str()) || label == "http_route" && operator != "=";
        let Some(values) = labels.get(label).filter(|_| !is_open) else {
            continue;
        };
        let is_there = |word: &str| match word.strip_suffix(".*") {
            Some(begin) => values.iter().any(|value| value.starts_with(begin)),
            None => values.contains(word),
        };
        for word in value.split('|').filter(|word| !is_there(word)) {
            faults.push(format!("{metric} has no {label} {word}, but {values:?}"));
        }
    }
    faults
}

fn has(selector: &Selector, label: &str, scraped: &Scraped) -> bool {
    let metric = &selector.metric;
    if metric.starts_with("holdfast:") {
        return OF_RECORDS.contains(&label);
    }
    let own = scraped.metrics.get(metric);
    OF_TARGETS.contains(&label) || own.is_some_and(|labels| labels.contains_key(label))
}

#[tokio::test]
async fn no_label_grows_with_what_clients_send() {
    let scene = Scene::start().await;
    let mut sent = scene.play().await;
    sent.extend(scene.play().await);

    let scraped = scene.scrape_until(|_| true).await;

    let templates = scene.templates().await;
    let mut faults = BTreeSet::new();
    let mut most = (0, String::new());
    for (metric, labels) in &scraped.metrics {
        for (label, values) in labels {
            most = most.max((values.len(), format!("{metric} by {label}")));
            let is_sent = |value: &String| sent.iter().any(|sent| value.contains(sent.as_str()));
            faults.extend(
                values
                    .iter()
                    .filter(|value| is_sent(value))
                    .map(|value| format!("{metric} by {label}: {value}")),
            );
            if TAKEN.contains(&label.as_str()) || values.len() > VALUES_MAX {
                faults.insert(format!("{metric} by {label}: {values:?}"));
            }
            let is_template = |route: &String| {
                templates.contains(route) || ["none", "/openapi.json"].contains(&route.as_str())
            };
            if label == "http_route" && !values.iter().all(is_template) {
                faults.insert(format!("{metric}: no templates: {values:?}"));
            }
        }
    }
    println!(
        "{} series of {} metrics; the label with most values is {} with {}; none of {} things sent is in any",
        scraped.series,
        scraped.metrics.len(),
        most.1,
        most.0,
        sent.len()
    );
    assert!(faults.is_empty(), "{faults:#?}");
}

#[tokio::test]
async fn every_route_is_in_one_class_of_promises() {
    let classes = files::classes();
    for route in Scene::start().await.templates().await {
        let is_in = |class: &&Vec<String>| {
            let below = |begin: &String| route.strip_prefix(begin.as_str());
            let is_below = |rest: &str| rest.is_empty() || rest.starts_with('/');
            class.iter().filter_map(below).any(is_below)
        };
        let number = classes.iter().filter(is_in).count();
        assert_eq!(
            number, 1,
            "{route} is in {number} classes of deploy/slo.toml"
        );
    }
}
