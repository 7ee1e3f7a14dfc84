//! The live feed, from whole processes: who hears what, what is missed and told later, and how a socket ends.

mod draining;
mod ends;
pub mod rig;

use devstack::{Fault, Stack, Target};
use serde_json::json;
use uuid::Uuid;

use self::rig::{
    NOBODY, Scene,
    client::{Events, Heard, Socket, World, customer, handshake},
    listening, until_metric,
};
use crate::{
    service::{PATIENT, Service, database_on},
    wire::{borrowed, call, get},
};

#[tokio::test]
async fn everybody_hears_of_stock_and_customers_of_their_own_orders() {
    let scene = Scene::start(2, &[]).await;
    let [here, there] = [0, 1].map(|process| scene.services[process].public);
    let (id, session) = customer(here).await;
    let (other, _) = customer(here).await;
    let mut stranger = Socket::open(there, "topics=stock", NOBODY).await;
    let mut ours = Socket::open(there, "topics=orders,stock", &session).await;
    let mut events = Events::open(here, "topics=orders", &session).await;

    let order = json!({ "id": "1", "status": "paid" });
    scene.world.publish("orders", other, &json!({})).await;
    scene.world.publish("orders", id, &order).await;
    let product = Uuid::now_v7();
    let stock = json!({ "product_id": product, "stock": 3 });
    scene.world.publish("stock", product, &stock).await;

    // Both topics come as they please.
    let (one, two) = (ours.next().await, ours.next().await);
    let told = format!("{one:?}{two:?}");
    assert!(
        told.contains("paid") && told.contains(&product.to_string()),
        "{told}"
    );
    assert_eq!(stranger.next_of("stock").await["data"], stock);
    assert_eq!(events.next_of("order").await["data"], order);
    let reply = handshake(here, "topics=orders", &[]).await;
    assert_eq!(reply.status, 401, "{reply:?}");
    drop(scene.database);
}

#[tokio::test]
async fn who_comes_back_to_another_process_gets_what_was_missed_once_and_in_order() {
    let scene = Scene::start(2, &[]).await;
    let [here, there] = [0, 1].map(|process| scene.services[process].public);
    let mut before = Socket::open(here, "", NOBODY).await;
    scene.world.stock(1..=5).await;
    assert_eq!(before.numbers_up_to(5).await, [1, 2, 3, 4, 5]);
    let query = format!("resume={}", before.token);
    drop(before);

    scene.world.stock(6..=50).await;
    let mut after = Socket::open(there, &query, NOBODY).await;
    let mut events = Events::open(there, &query, NOBODY).await;
    scene.world.stock(51..=60).await;

    let missed: Vec<u64> = (6..=60).collect();
    assert_eq!(after.numbers_up_to(60).await, missed);
    for number in missed {
        assert_eq!(events.next_of("stock").await["data"]["n"], number);
    }
}

#[tokio::test]
async fn a_stream_of_events_goes_on_after_the_last_id_on_another_process() {
    let scene = Scene::start(2, &[("HOLDFAST__LIVE__PING_INTERVAL", "11s")]).await;
    let [here, there] = [0, 1].map(|process| scene.services[process].public);
    let mut before = Events::open(here, "", NOBODY).await;
    assert_eq!(before.next().await.unwrap().0["type"], "hello");
    // A browser repeats the first URL, however old its token is.
    let query = format!("resume={}", before.id);
    scene.world.stock(1..=3).await;
    for number in 1..=3 {
        assert_eq!(before.next_of("stock").await["data"]["n"], number);
    }
    let last = [("Last-Event-ID", before.id.clone())];
    drop(before);
    scene.world.stock(4..=6).await;

    let mut after = Events::open(there, &query, &last).await;

    for number in 4..=6 {
        assert_eq!(after.next_of("stock").await["data"]["n"], number);
    }
}

#[tokio::test]
async fn what_cannot_be_told_any_more_is_a_frame_that_says_so() {
    let scene = Scene::start(1, &[("HOLDFAST__LIVE__QUEUE_BYTES_MAX", "4096")]).await;
    let token = Socket::open(scene.address(), "", NOBODY).await.token;
    scene.world.stock(1..=200).await;
    until_metric(
        &scene.services[0],
        r#"feed_messages_total{topic="stock"}"#,
        |messages| messages == 200.0,
    )
    .await;

    for resume in [token.as_str(), "nonsense", "stock.1.2.3"] {
        let query = format!("resume={resume}");
        let mut back = Socket::open(scene.address(), &query, NOBODY).await;
        assert_eq!(back.next_of("refetch").await["topic"], "stock");
        // And from there it goes on.
        let query = format!("resume={}", back.token);
        let mut again = Socket::open(scene.address(), &query, NOBODY).await;
        scene.world.stock([201]).await;
        assert_eq!(again.numbers_up_to(201).await, [201]);
        assert_eq!(back.numbers_up_to(201).await, [201]);
    }
}

#[tokio::test]
async fn a_page_of_another_origin_gets_no_websocket() {
    let scene = Scene::start(
        1,
        &[("HOLDFAST__HTTP__ALLOWED_ORIGINS", "https://shop.example")],
    )
    .await;
    let address = scene.address();
    let (_, session) = customer(address).await;
    let cookie = session[0].1.as_str();
    let foreign = ("Origin", "https://evil.example");

    for headers in [
        vec![foreign],
        vec![("Cookie", cookie), foreign],
        vec![
            ("Cookie", cookie),
            ("Sec-Fetch-Site", "cross-site"),
            foreign,
        ],
        vec![("Cookie", cookie)],
    ] {
        let reply = handshake(address, "topics=stock", &headers).await;
        assert_eq!(
            (reply.status, reply.json()["code"].as_str()),
            (403, Some("forbidden")),
            "{headers:?}"
        );
    }
    for headers in [
        vec![
            ("Origin", "http://shop".to_owned()),
            ("Cookie", cookie.to_owned()),
        ],
        vec![("Origin", "https://shop.example".to_owned())],
        vec![
            ("Sec-Fetch-Site", "same-origin".to_owned()),
            ("Cookie", cookie.to_owned()),
        ],
        vec![],
    ] {
        Socket::open(address, "topics=stock", &headers).await;
    }
}

#[tokio::test]
async fn nobody_has_more_sockets_than_may_be() {
    let settings = [
        ("HOLDFAST__LIVE__SOCKETS_MAX", "6"),
        ("HOLDFAST__LIVE__TENANT_SOCKETS_MAX", "4"),
        ("HOLDFAST__LIVE__CUSTOMER_SOCKETS_MAX", "2"),
        (
            "HOLDFAST__HTTP__CALLER_KEYS",
            "a key that has thirty-two characters or more",
        ),
    ];
    let scene = Scene::start(1, &settings).await;
    let address = scene.address();
    let (_, session) = customer(address).await;
    let named = |tenant: &str| {
        let key = "a key that has thirty-two characters or more";
        [
            ("Caller-Key", key.to_owned()),
            ("Request-Tenant", tenant.to_owned()),
        ]
    };

    let _ours = [
        Socket::open(address, "topics=orders", &session).await,
        Socket::open(address, "topics=orders", &session).await,
    ];
    let third = handshake(address, "topics=orders", &borrowed(&session)).await;
    let mut anyone = vec![
        Socket::open(address, "", NOBODY).await,
        Socket::open(address, "", NOBODY).await,
    ];
    let fifth = handshake(address, "", &[]).await;
    anyone.push(Socket::open(address, "", &named("one")).await);
    anyone.push(Socket::open(address, "", &named("two")).await);
    let seventh = handshake(address, "", &borrowed(&named("three"))).await;

    assert_eq!(third.json()["violated-policies"], json!(["live-customer"]));
    assert_eq!(fifth.json()["violated-policies"], json!(["live-tenant"]));
    for (reply, status) in [(third, 429), (fifth, 429), (seventh, 503)] {
        assert_eq!(reply.status, status, "{reply:?}");
        assert!(reply.header("retry-after").is_some(), "{reply:?}");
    }
    // Requests are answered meanwhile, and a place that is given back is somebody else's.
    assert_eq!(
        call(address, "GET /v1/products", &[], None).await.status,
        200
    );
    anyone.clear();
    until_metric(
        &scene.services[0],
        r#"live_sockets{kind="websocket"}"#,
        |open| open == 2.0,
    )
    .await;
    Socket::open(address, "", &named("three")).await;
}

#[tokio::test]
async fn without_redis_sockets_stay_open_and_hear_later_what_happened() {
    let stack = Stack::start().await.unwrap();
    let database = database_on(&stack).await;
    let settings = [
        &PATIENT[..],
        &[("HOLDFAST__REDIS__RECONNECT_DELAY_MAX", "100ms")],
    ]
    .concat();
    let service = Service::start_on(&stack, &database, &settings).await;
    service.ready().await;
    listening(&service).await;
    let (id, session) = customer(service.public).await;
    let world = World::of(&stack, &database).await;
    let mut before = Socket::open(service.public, "topics=orders,stock", &session).await;

    // Only between this process and Redis.
    stack.proxy(Target::Redis).set(Fault::Down).await;
    let subscribed = r#"feed_subscribed{topic="stock"}"#;
    until_metric(&service, subscribed, |value| value == 0.0).await;
    world.stock(1..=20).await;
    world
        .publish("orders", id, &json!({ "status": "paid" }))
        .await;
    let refused = handshake(service.public, "topics=orders", &borrowed(&session)).await;
    let mut during = Socket::open(service.public, "topics=stock", NOBODY).await;
    let ready = get(service.admin, "/ready").await;
    stack.proxy(Target::Redis).clear().await;
    listening(&service).await;
    world.stock([21]).await;

    assert_eq!((refused.status, ready.status), (503, 200), "{refused:?}");
    assert!(refused.header("retry-after").is_some(), "{refused:?}");
    let (mut orders, mut numbers) = (0, Vec::new());
    while numbers.len() < 21 || orders == 0 {
        let Heard::Frame(frame) = before.next().await else {
            panic!("closed");
        };
        match frame["type"].as_str() {
            Some("order") => orders += 1,
            Some("stock") => numbers.push(frame["data"]["n"].as_u64().unwrap()),
            other => assert_eq!(other, Some("token")),
        }
    }
    assert_eq!(numbers, (1..=21).collect::<Vec<_>>());
    assert_eq!(during.numbers_up_to(21).await.len(), 21);
}
