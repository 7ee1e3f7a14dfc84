//! What the service says that it does without, in each of the four places where it does.

use std::collections::BTreeSet;

use serde_json::Value;
use tokio::time::{Duration, Instant, sleep};

use crate::{
    service::{PATIENCE, Service},
    wire::{Reply, get},
};

pub type Names = BTreeSet<String>;

/// What the header of an answer says.
pub fn header(reply: &Reply) -> Names {
    listed(reply.header("degraded").unwrap_or_default())
}

/// What the probe says.
pub async fn readiness(service: &Service) -> Names {
    let ready = get(service.admin, "/ready").await.json();
    let names = ready["degraded"].as_array().unwrap().iter();
    names
        .map(|name| name.as_str().unwrap().to_owned())
        .collect()
}

/// Every name that the metric has, and those that are active.
pub async fn metric(service: &Service) -> (Names, Names) {
    let metrics = get(service.admin, "/metrics").await.body;
    let samples = metrics.lines().filter_map(|line| {
        let sample = line.strip_prefix("degradation_active{name=\"")?;
        sample.split_once("\"} ")
    });
    let (mut all, mut active) = (Names::new(), Names::new());
    for (name, value) in samples {
        all.insert(name.to_owned());
        if value == "1" {
            active.insert(name.to_owned());
        }
    }
    (all, active)
}

/// What the log says of the answered request.
pub async fn log(service: &Service, reply: &Reply) -> Names {
    let id = reply.header("x-request-id").unwrap();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let log = service.log();
        let line = log
            .lines()
            .find(|line| line.contains(id) && line.contains("took_ms"));
        if let Some(line) = line {
            let line: Value = serde_json::from_str(line).unwrap();
            return listed(line["degraded"].as_str().unwrap_or_default());
        }
        assert!(Instant::now() < deadline, "{id} is not in the log");
        sleep(Duration::from_millis(5)).await;
    }
}

/// The names in a list separated by commas.
pub fn listed(names: &str) -> Names {
    let names = names.split(", ").filter(|name| !name.is_empty());
    names.map(str::to_owned).collect()
}
