//! The round trips of every route, as `deploy/bench/RESULTS.md` lists them.

use std::{collections::BTreeSet, fmt::Write as _, fs, path::Path};

use serde_json::{Value, json};

use super::{Metered, order_of, text};
use crate::{
    service::STAFF,
    wire::{IDEMPOTENCY_KEY, Reply, borrowed, call, get, sign_in},
};

const UNKNOWN: &str = "0199f0a0-0000-7000-8000-000000000000";

/// The headers of a session.
type Cookie = [(&'static str, String); 2];

/// One row for each way a route can go.
struct Table<'a> {
    metered: &'a Metered,
    page: String,
    operations: BTreeSet<String>,
}

impl<'a> Table<'a> {
    fn new(metered: &'a Metered) -> Self {
        Self {
            metered,
            page: String::from(
                "| request | | primary | replica | Redis |\n|---|---|---:|---:|---:|\n",
            ),
            operations: BTreeSet::new(),
        }
    }

    /// Adds a row for `operation`, as the document names it. `request` is given 0 for the first time, then 1.
    async fn row(&mut self, operation: &str, when: &str, request: impl AsyncFn(usize) -> Reply) {
        let (reply, cost) = self.metered.cost(request).await;
        assert!(
            (200..300).contains(&reply.status) || reply.status == 404,
            "{operation} {when}: {reply:?}"
        );
        for node in &cost[..2] {
            assert_eq!(
                node.round_trips,
                node.statements.len(),
                "{operation} {when}: {cost:?}"
            );
        }
        let [primary, replica, redis] = cost.map(|traffic| traffic.round_trips);
        writeln!(
            self.page,
            "| `{operation}` | {when} | {primary} | {replica} | {redis} |"
        )
        .unwrap();
        self.operations
            .insert(operation.split('?').next().unwrap().to_owned());
    }

    /// A row for a GET without a session.
    async fn get(&mut self, operation: &str, when: &str, path: impl Fn(usize) -> String) {
        let address = self.metered.address();
        self.row(operation, when, async |n| get(address, &path(n)).await)
            .await;
    }

    /// A row for anything with a session.
    async fn with(
        &mut self,
        operation: &str,
        when: &str,
        session: &Cookie,
        request: impl Fn(usize) -> (String, Option<Value>),
    ) {
        let address = self.metered.address();
        let ask = async |n| {
            let (line, body) = request(n);
            let mut headers = borrowed(session);
            headers.push(("If-Match", "*"));
            call(address, &line, &headers, body.as_ref()).await
        };
        self.row(operation, when, ask).await;
    }
}

#[tokio::test]
async fn every_route_makes_the_round_trips_on_the_list() {
    let metered = Metered::start().await;
    let products = metered.products().await;
    let staff = sign_in(metered.address(), STAFF).await;
    let mut table = Table::new(&metered);

    probes(&mut table).await;
    catalogue(&mut table, &products, &staff).await;
    orders(&mut table, &products, &staff).await;
    recommendations(&mut table, &products).await;
    events(&mut table).await;
    live(&mut table).await;
    sessions(&mut table).await;

    let documented = operations(&metered.document().await);
    let missing: Vec<_> = documented.difference(&table.operations).collect();
    assert!(missing.is_empty(), "routes without a row: {missing:?}");
    hold(&table.page);
}

async fn probes(table: &mut Table<'_>) {
    for path in ["/health", "/ready", "/openapi.json"] {
        table
            .get(&format!("GET {path}"), "", |_| path.to_owned())
            .await;
    }
}

async fn catalogue(table: &mut Table<'_>, products: &[String], staff: &Cookie) {
    let new = |n| json!({ "sku": format!("RT-{n}"), "name": "Cup", "description": "", "category": "cups", "price_cents": 1, "stock": 1 });
    let path = |id: &str| format!("/v1/products/{id}");
    let neighbour = table.metered.neighbour.public;
    for id in &products[2..4] {
        assert_eq!(get(neighbour, &path(id)).await.status, 200);
    }

    table
        .get("GET /v1/products", "", |_| "/v1/products".to_owned())
        .await;
    let one = "GET /v1/products/{id}";
    table
        .get(one, "cached nowhere", |n| path(&products[n]))
        .await;
    table.get(one, "in Redis", |n| path(&products[2 + n])).await;
    table.get(one, "in process", |_| path(&products[0])).await;
    table
        .get(one, "no such product", |n| {
            path(&UNKNOWN.replace("8000", &format!("800{n}")))
        })
        .await;
    table
        .with("POST /v1/products", "", staff, |n| {
            ("POST /v1/products".to_owned(), Some(new(n)))
        })
        .await;
    table
        .with("PUT /v1/products/{id}", "", staff, |n| {
            (format!("PUT {}", path(&products[4 + n])), Some(new(2 + n)))
        })
        .await;
}

async fn orders(table: &mut Table<'_>, products: &[String], session: &Cookie) {
    let list = "GET /v1/orders";
    let place = |lines: usize| {
        move |_: usize| {
            (
                "POST /v1/orders".to_owned(),
                Some(order_of(&products[10..10 + lines])),
            )
        }
    };
    table
        .with("POST /v1/orders", "1 line", session, place(1))
        .await;
    table
        .with("POST /v1/orders", "20 lines", session, place(20))
        .await;
    let address = table.metered.address();
    let mut keyed = borrowed(session);
    keyed.push((IDEMPOTENCY_KEY, "one"));
    let order = order_of(&products[10..11]);
    let again = async |_| call(address, "POST /v1/orders", &keyed, Some(&order)).await;
    // No other request has asked this connection what answering again asks.
    for _ in 0..2 {
        again(0).await;
    }
    table.row("POST /v1/orders", "answered before", again).await;

    let newest = call(table.metered.address(), list, &borrowed(session), None)
        .await
        .json();
    let id = text(&newest["items"][0]["id"]);
    let one = |query: &'static str| {
        let line = format!("GET /v1/orders/{id}{query}");
        move |_: usize| (line.clone(), None)
    };
    table
        .with("GET /v1/orders/{id}", "", session, one(""))
        .await;
    table
        .with(
            "GET /v1/orders/{id}?include=products",
            "",
            session,
            one("?include=products"),
        )
        .await;
    table
        .with(list, "", session, |_| (list.to_owned(), None))
        .await;
    let included = "GET /v1/orders?include=products";
    table
        .with(included, "", session, |_| (included.to_owned(), None))
        .await;
}

async fn recommendations(table: &mut Table<'_>, products: &[String]) {
    let operation = "GET /v1/products/{id}/recommendations";
    let path = format!("/v1/products/{}/recommendations", products[0]);
    // The list of what sells best is in process after the first, and holds what was ordered above.
    let found = get(table.metered.address(), &path).await.json();
    assert!(!found["items"].as_array().unwrap().is_empty(), "{found}");
    table
        .get(operation, "what sells best", |_| path.clone())
        .await;
}

async fn events(table: &mut Table<'_>) {
    let address = table.metered.address();
    let operation = "POST /v1/events";
    let events = json!({ "events": [{ "name": "product_viewed" }] });
    table
        .row(operation, "", async |_| {
            call(address, operation, &[], Some(&events)).await
        })
        .await;
}

async fn live(table: &mut Table<'_>) {
    // Over a WebSocket it is the same.
    table
        .get("GET /v1/live", "a stream of events", |_| {
            "/v1/live".to_owned()
        })
        .await;
}

async fn sessions(table: &mut Table<'_>) {
    let address = table.metered.address();
    let credentials =
        |n: usize| json!({ "email": format!("rt{n}@example.com"), "password": STAFF.1 });
    let sign_in_as =
        async |n: usize| sign_in(address, (&format!("rt{n}@example.com"), STAFF.1)).await;

    table
        .row("POST /v1/users", "", async |n| {
            call(address, "POST /v1/users", &[], Some(&credentials(n))).await
        })
        .await;
    table
        .row("POST /v1/session", "", async |n| {
            call(address, "POST /v1/session", &[], Some(&credentials(n))).await
        })
        .await;
    let sessions = [sign_in_as(0).await, sign_in_as(1).await];
    table
        .with("GET /v1/session", "", &sessions[0], |_| {
            ("GET /v1/session".to_owned(), None)
        })
        .await;
    for operation in ["DELETE /v1/session", "DELETE /v1/sessions"] {
        let sessions = [sign_in_as(0).await, sign_in_as(1).await];
        table
            .row(operation, "", async |n| {
                call(address, operation, &borrowed(&sessions[n]), None).await
            })
            .await;
    }
}

/// Every operation of the document, as `GET /v1/orders/{id}`.
fn operations(document: &Value) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            found.insert(format!("{} {path}", method.to_uppercase()));
        }
    }
    found
}

/// Compares the table with the one on the page, or leaves what the page should be where it can be copied from.
fn hold(table: &str) {
    println!("{table}");
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/bench/RESULTS.md");
    let kept = fs::read_to_string(&page).unwrap();
    let start = kept.find("| request |").unwrap();
    let length = kept[start..]
        .find("\n\n")
        .map_or(kept.len() - start, |end| end + 1);
    let counted = format!("{}{table}{}", &kept[..start], &kept[start + length..]);
    if kept != counted {
        let copy = Path::new(env!("CARGO_TARGET_TMPDIR")).join("RESULTS.md");
        fs::write(&copy, counted).unwrap();
        panic!(
            "the routes make other round trips than deploy/bench/RESULTS.md says; if they should:\n\
             cp {} deploy/bench/",
            copy.display()
        );
    }
}
