//! No N+1: whatever a list loads, it loads for all of its rows at once. The lists are found in the document, so a new one
//! is held to it from the day it is there.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Cost, Metered, order_of};
use crate::{
    service::STAFF,
    wire::{borrowed, call, sign_in},
};

/// Orders of the one customer: as many as the longest list that is compared.
const ORDERS: usize = 50;
/// The lengths of lists that must cost the same.
const LENGTHS: [usize; 2] = [1, 50];

#[tokio::test]
async fn no_list_costs_more_statements_for_being_longer() {
    let metered = Metered::start().await;
    let products = metered.products().await;
    let staff = sign_in(metered.address(), STAFF).await;
    for n in 0..ORDERS {
        let order = order_of(&products[n..n + 3]);
        let placed = call(
            metered.address(),
            "POST /v1/orders",
            &borrowed(&staff),
            Some(&order),
        )
        .await;
        assert_eq!(placed.status, 201, "{placed:?}");
    }
    let lists = lists(&metered.document().await);
    assert!(lists.len() >= 2, "{lists:?}");

    for (path, queries) in &lists {
        for query in queries {
            let mut costs = Vec::new();
            for length in LENGTHS {
                let line = format!("GET {path}?limit={length}{query}");
                let ask = async |_| call(metered.address(), &line, &borrowed(&staff), None).await;
                let (reply, cost) = metered.cost(ask).await;
                let shown = reply.json()["items"].as_array().map_or(0, Vec::len);
                assert_eq!(shown, length, "{line}: give the test more rows of it");
                let [primary, replica, redis] = cost.each_ref().map(|traffic| traffic.round_trips);
                println!(
                    "{line}: {primary} on the primary, {replica} on the replica, {redis} to Redis"
                );
                costs.push(asked(cost));
            }
            assert_eq!(costs[0], costs[1], "{path}?{query}");
        }
    }
}

/// The routes that answer with a page, and what each can include.
fn lists(document: &Value) -> BTreeMap<String, Vec<String>> {
    let mut found = BTreeMap::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        let Some(parameters) = item["get"]["parameters"].as_array() else {
            continue;
        };
        let named = |name: &str| {
            parameters
                .iter()
                .find(|parameter| parameter["name"] == name)
        };
        if named("cursor").is_none() {
            continue;
        }
        let mut queries = vec![String::new()];
        if let Some(include) = named("include") {
            let relations = relations(include);
            assert!(
                !relations.is_empty(),
                "{path} does not document what it includes: {include}"
            );
            queries.extend(relations.iter().map(|name| format!("&include={name}")));
            queries.push(format!("&include={}", relations.join(",")));
        }
        found.insert(path.clone(), queries);
    }
    found
}

/// What the document says can be included: of one relation a constant or an enum, of several one or the other each.
fn relations(parameter: &Value) -> Vec<String> {
    let schema = &parameter["schema"]["items"];
    let each = schema["oneOf"]
        .as_array()
        .cloned()
        .unwrap_or_else(|| vec![schema.clone()]);
    let names = each
        .iter()
        .flat_map(|schema| match schema["enum"].as_array() {
            Some(names) => names.clone(),
            None => vec![schema["const"].clone()],
        });
    names
        .filter_map(|name| name.as_str().map(str::to_owned))
        .collect()
}

/// The statements, whichever node has run them, and the round trips to Redis.
fn asked([primary, replica, redis]: Cost) -> (Vec<String>, usize) {
    let mut statements = [primary.statements, replica.statements].concat();
    statements.sort();
    (statements, redis.round_trips)
}
