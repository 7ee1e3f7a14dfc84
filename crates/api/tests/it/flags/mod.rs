//! Flags: set by hand on one process and heard of by all, whatever becomes of the way there.

mod boot;
mod by_hand;
mod remote;

use std::net::SocketAddr;

use serde_json::{Value, json};
use tokio::time::{Duration, Instant, sleep};

use crate::{
    service::{PATIENCE, Service},
    wire::{Reply, call, get},
};

const TOKEN: &str = "an operator's token";
const SET_TOKEN: (&str, &str) = ("HOLDFAST__ADMIN__TOKEN", TOKEN);
/// How late a flip may reach any process.
const FLEET: Duration = Duration::from_secs(5);
/// What switches off in these tests.
const FLAG: &str = "recommendations";

/// A request to the admin listener by who has its token.
async fn operate(admin: SocketAddr, line: &str, body: Option<&Value>) -> Reply {
    let token = format!("Bearer {TOKEN}");
    call(admin, line, &[("Authorization", &token)], body).await
}

/// Sets the flag on one process, for the fleet.
async fn set(service: &Service, value: bool, ttl: &str) {
    let order = json!({ "value": value, "reason": "the recommender is ill", "changed_by": "Ann", "ttl": ttl });
    let line = format!("PUT /flags/{FLAG}");
    let reply = operate(service.admin, &line, Some(&order)).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(reply.json()["value"], value, "{reply:?}");
}

/// How the process goes by the flag.
async fn flag(service: &Service) -> Value {
    let flags = get(service.admin, "/flags").await.json();
    let flags = flags.as_array().unwrap();
    let found = flags.iter().find(|flag| flag["name"] == FLAG);
    found.unwrap().clone()
}

/// Waits until the process says of the flag what is expected; how long that was since `since`.
async fn says(service: &Service, since: Instant, expected: &[(&str, Value)]) -> Duration {
    loop {
        let flag = flag(service).await;
        let took = since.elapsed();
        if expected.iter().all(|(field, value)| flag[field] == *value) {
            return took;
        }
        assert!(
            took < PATIENCE,
            "not {expected:?}: {flag}\n{}",
            service.log()
        );
        sleep(Duration::from_millis(5)).await;
    }
}

/// Whether the page of recommendations is switched off.
async fn is_off(service: &Service, product: &str) -> bool {
    let path = format!("/v1/products/{product}/recommendations");
    let reply = get(service.public, &path).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let is_off = reply.json()["source"] == "off";
    let degraded = reply.header("degraded").unwrap_or_default();
    assert_eq!(
        degraded.contains("recommendations_off"),
        is_off,
        "{reply:?}"
    );
    is_off
}
