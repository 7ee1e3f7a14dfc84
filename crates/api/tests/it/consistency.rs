//! Read-your-writes through the API: a client that brings its token back is served nothing older than what it wrote, by any
//! process, with the standby five seconds behind.

use std::time::Duration;

use devstack::{Database, Stack};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::{
    service::{PATIENCE, STAFF, Service, database_on, seed},
    wire::{Reply, borrowed, call, get, sign_in},
};

/// Longer than the test takes, so that every read without a token is stale.
const DELAY: Duration = Duration::from_secs(40);

/// The replica stays in use however far it is behind, and tokens outlast that.
const SETTINGS: [(&str, &str); 5] = [
    ("HOLDFAST__POSTGRES__LAG_MAX", "50s"),
    ("HOLDFAST__POSTGRES__TOKEN_TTL", "2m"),
    ("HOLDFAST__CACHE__REMOVAL_HOLD", "60s"),
    (
        "HOLDFAST__POSTGRES__TOKEN_KEYS",
        "a key that both of the processes know of",
    ),
    ("HOLDFAST__POSTGRES__CONNECT_TIMEOUT", "900ms"),
];

/// Two processes of the service on one stack.
struct Pair {
    here: Service,
    there: Service,
    staff: [(&'static str, String); 2],
    _database: Database,
    stack: Stack,
}

impl Pair {
    /// With a standby that shows nothing new from now on.
    async fn start() -> Self {
        let stack = Stack::start().await.unwrap();
        let database = database_on(&stack).await;
        seed(&stack, &database, 50).await;
        let here = Service::start_on(&stack, &database, &SETTINGS).await;
        let there = Service::start_on(&stack, &database, &SETTINGS).await;
        let staff = sign_in(here.public, STAFF).await;
        for service in [&here, &there] {
            service.ready().await;
            replica_takes_reads(service).await;
        }
        stack.standby().apply_delay(DELAY).await.unwrap();
        Self {
            here,
            there,
            staff,
            _database: database,
            stack,
        }
    }

    /// Adds a product here.
    async fn create(&self, sku: &str) -> Reply {
        let product = json!({
            "sku": sku, "name": "Anvil", "description": "", "category": sku, "price_cents": 100, "stock": 9,
        });
        let headers = borrowed(&self.staff);
        let reply = call(
            self.here.public,
            "POST /v1/products",
            &headers,
            Some(&product),
        )
        .await;
        assert_eq!(reply.status, 201, "{reply:?}");
        reply
    }
}

/// Waits until a fresh catalogue is read from the replica, so that its delay is what a test sees.
async fn replica_takes_reads(service: &Service) {
    let deadline = Instant::now() + PATIENCE;
    while get(service.public, "/v1/products?limit=1").await.json()["items"] == json!([]) {
        assert!(Instant::now() < deadline, "the replica has no products");
        sleep(Duration::from_millis(20)).await;
    }
}

/// How many products of its own category the list shows.
async fn listed(service: &Service, category: &str, headers: &[(&str, &str)]) -> usize {
    let path = format!("GET /v1/products?category={category}");
    let reply = call(service.public, &path, headers, None).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.json()["items"].as_array().map_or(0, Vec::len)
}

fn token(reply: &Reply) -> String {
    reply.header("consistency-token").unwrap().to_owned()
}

#[tokio::test]
async fn who_has_just_registered_is_known_though_no_replica_has_heard() {
    let pair = Pair::start().await;
    let account = ("newcomer@example.com", "correct horse battery staple");
    let user = json!({ "email": account.0, "password": account.1 });
    let registered = call(pair.here.public, "POST /v1/users", &[], Some(&user)).await;
    assert_eq!(registered.status, 201, "{registered:?}");

    let session = sign_in(pair.there.public, account).await;
    let me = call(
        pair.there.public,
        "GET /v1/session",
        &borrowed(&session),
        None,
    )
    .await;

    assert_eq!(me.status, 200, "{me:?}");
}

#[tokio::test]
async fn a_token_makes_any_process_show_what_was_written() {
    let pair = Pair::start().await;

    let created = pair.create("anvils").await;
    let token = token(&created);
    let cookie = format!("consistency={token}");

    for service in [&pair.here, &pair.there] {
        assert_eq!(
            listed(service, "anvils", &[]).await,
            0,
            "nothing was delayed"
        );
        assert_eq!(
            listed(service, "anvils", &[("Consistency-Token", &token)]).await,
            1
        );
        assert_eq!(listed(service, "anvils", &[("Cookie", &cookie)]).await, 1);
    }
    let set = created.header("set-cookie").unwrap();
    assert!(
        set.starts_with(&cookie) && set.contains("HttpOnly"),
        "{set}"
    );
}

#[tokio::test]
async fn a_token_that_is_not_ours_is_as_none() {
    let pair = Pair::start().await;
    let token = token(&pair.create("anvils").await);
    let mut changed = token.clone().into_bytes();
    changed[20] = if changed[20] == b'A' { b'B' } else { b'A' };
    let changed = String::from_utf8(changed).unwrap();

    for forged in [&changed, "x", "", "a b", &token[1..], &"A".repeat(4000)] {
        assert_eq!(
            listed(&pair.here, "anvils", &[("Consistency-Token", forged)]).await,
            0
        );
    }
}

#[tokio::test]
async fn a_token_works_without_redis() {
    let pair = Pair::start().await;
    let token = token(&pair.create("anvils").await);

    pair.stack.redis().kill().await.unwrap();

    for service in [&pair.here, &pair.there] {
        assert_eq!(
            listed(service, "anvils", &[("Consistency-Token", &token)]).await,
            1
        );
    }
}

/// The order took its stock; what a process loads from the standby for its cache was read before.
#[tokio::test]
async fn a_client_that_has_written_is_not_served_from_the_cache() {
    let pair = Pair::start().await;
    let page = get(pair.here.public, "/v1/products?limit=1").await.json();
    let (id, stock) = (&page["items"][0]["id"], &page["items"][0]["stock"]);
    let order = json!({ "lines": [{ "product_id": id, "quantity": 1 }] });

    let headers = borrowed(&pair.staff);
    let placed = call(pair.here.public, "POST /v1/orders", &headers, Some(&order)).await;
    let token = token(&placed);
    let path = format!("GET /v1/products/{}", id.as_str().unwrap());
    let shown = async |service: &Service, headers: &[(&str, &str)]| {
        let product = call(service.public, &path, headers, None).await;
        product.json()["stock"].clone()
    };

    for service in [&pair.here, &pair.there] {
        assert_eq!(shown(service, &[]).await, *stock);
        let seen = shown(service, &[("Consistency-Token", &token)]).await;
        assert_eq!(seen, stock.as_i64().unwrap() - 1);
    }
}

/// A phone does not have the cookies of the laptop, but it may have its session.
#[tokio::test]
async fn a_session_remembers_what_it_wrote_for_clients_without_a_token() {
    let pair = Pair::start().await;
    let page = get(pair.here.public, "/v1/products?limit=1").await.json();
    let order = json!({ "lines": [{ "product_id": page["items"][0]["id"], "quantity": 1 }] });
    let headers = borrowed(&pair.staff);

    let placed = call(pair.here.public, "POST /v1/orders", &headers, Some(&order)).await;
    assert_eq!(placed.status, 201, "{placed:?}");
    let orders = async |service: &Service| -> Value {
        let reply = call(service.public, "GET /v1/orders", &headers, None).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        reply.json()["items"].clone()
    };

    for service in [&pair.here, &pair.there] {
        assert_eq!(orders(service).await[0]["id"], placed.json()["id"]);
    }
    // Who brought nothing along is told nothing.
    let read = get(pair.here.public, "/v1/products?limit=1").await;
    assert_eq!(read.header("consistency-token"), None);
}
