//! Two processes that serve everything there is are restarted again and again, one at a time, under clients of every kind: requests
//! on connections that are kept, slow uploads, orders with their jobs, a stream over gRPC, WebSockets. Nobody loses anything.

mod clients;
mod hearing;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use devstack::Database;
use nix::sys::signal::Signal;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use self::clients::Tally;
use crate::{
    rig::listening,
    service::{CUSTOMER, PATIENCE, PATIENT, Service, database, seed},
    wire::sign_in,
};

const RESTARTS: usize = 20;
/// Requests that are answered between one restart and the next.
const BETWEEN: usize = 100;
const READERS: usize = 8;
const UPLOADERS: usize = 2;
const BUYERS: usize = 2;
const SOCKETS: usize = 50;
const STREAMS: usize = 5;
/// Pieces of the product that is bought; more than are.
const STOCK: i64 = 1_000_000;

const SETTINGS: [(&str, &str); 4] = [
    ("HOLDFAST__JOBS__RUN_IN_SERVE", "true"),
    ("HOLDFAST__LIVE__DRAIN_WINDOW", "1s"),
    ("HOLDFAST__LIVE__RECONNECT_SPREAD", "200ms"),
    ("HOLDFAST__JOBS__POLL_INTERVAL", "200ms"),
];

/// Where a process listens, before its restart and after.
#[derive(Clone, Copy)]
pub struct Place {
    pub public: SocketAddr,
    pub rpcs: SocketAddr,
}

async fn start(database: &Database, place: Option<Place>) -> Service {
    let addresses =
        place.map(|place| [place.public, place.rpcs].map(|address| address.to_string()));
    let listen = addresses.iter().flat_map(|[public, rpcs]| {
        [
            ("HOLDFAST__HTTP__LISTEN", public.as_str()),
            ("HOLDFAST__GRPC__LISTEN", rpcs.as_str()),
        ]
    });
    let settings: Vec<_> = PATIENT.into_iter().chain(SETTINGS).chain(listen).collect();
    let service = Service::start(database, &settings).await;
    service.ready().await;
    listening(&service).await;
    service
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_restarts_lose_nothing_of_any_kind() {
    let database = database().await;
    seed(devstack::shared().await, &database, 20).await;
    let product = only_product(&database).await;
    let mut services = [start(&database, None).await, start(&database, None).await];
    let places = [0, 1].map(|process| {
        let Service { public, rpcs, .. } = services[process];
        Place { public, rpcs }
    });
    let session = sign_in(places[0].public, CUSTOMER).await;
    let tally = Arc::new(Tally::default());
    let mut sockets = JoinSet::new();
    for client in 0..SOCKETS {
        sockets.spawn(hearing::socket(places, client % 2, Arc::clone(&tally)));
    }
    let mut streams = JoinSet::new();
    for client in 0..STREAMS {
        streams.spawn(hearing::stream(places, client % 2, Arc::clone(&tally)));
    }
    tally.all_hear(SOCKETS + STREAMS).await;
    let mut load = JoinSet::new();
    for client in 0..READERS {
        load.spawn(clients::read(places, client % 2, Arc::clone(&tally)));
    }
    for client in 0..UPLOADERS {
        load.spawn(clients::upload(places, client % 2, Arc::clone(&tally)));
    }
    for client in 0..BUYERS {
        let (product, session) = (product.clone(), session.clone());
        load.spawn(clients::buy(
            places,
            client % 2,
            product,
            session,
            Arc::clone(&tally),
        ));
    }

    for restart in 0..RESTARTS {
        tally.answered_more(BETWEEN).await;
        tally.all_hear(SOCKETS + STREAMS).await;
        let ending = &mut services[restart % 2];
        ending.signal(Signal::SIGTERM);
        let code = ending.exited().await.code();
        assert_eq!(code, Some(0), "restart {restart}: {}", ending.log());
        services[restart % 2] = start(&database, Some(places[restart % 2])).await;
    }
    tally.stop();
    load.join_all().await;
    let orders = tally.orders.count() + 1;
    tally.sell_out(STOCK - orders);
    clients::buy(places, 0, product, session, Arc::clone(&tally)).await;
    let heard: Vec<_> = sockets.join_all().await;
    let streamed: Vec<_> = streams.join_all().await;

    println!("over {RESTARTS} restarts:");
    println!("{tally}");
    assert_eq!(tally.failures(), Vec::<String>::new());
    let expected: Vec<i64> = (STOCK - orders..STOCK).rev().collect();
    for (kind, all) in [("WebSockets", heard), ("gRPC streams", streamed)] {
        let complete = all.iter().filter(|left| **left == expected).count();
        println!(
            "{complete} of {} {kind} heard each of {orders} changes, once and in order",
            all.len()
        );
        assert_eq!(complete, all.len());
    }
    for (what, rows, wanted) in [
        ("orders", "orders", orders),
        ("of them confirmed", "order_notices", orders),
        ("of them fulfilled", "order_fulfilments", orders),
        ("events", "events", tally.events.count()),
        ("jobs that died", "jobs_dead", 0),
    ] {
        let found = until(&database, rows, wanted).await;
        println!("{found} {what}");
        assert_eq!(found, wanted, "{what}");
    }
    for service in services {
        assert_eq!(service.stop().await, Some(0));
    }
}

/// Leaves one product with a round number of pieces.
async fn only_product(database: &Database) -> String {
    let mut admin = PgConnection::connect(&database.admin_url).await.unwrap();
    let stock = "update products set stock = $1
         where id = (select min(id::text)::uuid from products) returning id::text";
    let product = sqlx::query_scalar(stock).bind(i32::try_from(STOCK).unwrap());
    product.fetch_one(&mut admin).await.unwrap()
}

/// How many rows there are, once there are as many as wanted or it has been waited long enough for them.
async fn until(database: &Database, rows: &'static str, wanted: i64) -> i64 {
    let mut admin = PgConnection::connect(&database.admin_url).await.unwrap();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let count = AssertSqlSafe(format!("select count(*) from {rows}"));
        let found = sqlx::query_scalar(count)
            .fetch_one(&mut admin)
            .await
            .unwrap();
        if found == wanted || Instant::now() > deadline {
            return found;
        }
        sleep(Duration::from_millis(50)).await;
    }
}
