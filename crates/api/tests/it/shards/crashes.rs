//! Kill -9 at every round trip of an order that is paid, and whose stock is on another cluster than the order.

use std::time::Duration;

use devstack::{Meter, Moment, UpstreamService::Payments};
use nix::sys::signal::Signal;
use sqlx::Executor as _;
use tokio::time::{Instant, sleep};

use super::{Customer, Shop, customer_on, has_all, order, product};
use crate::{
    idempotency::assert_replayed,
    service::{PATIENCE, Service},
    wire::{IDEMPOTENCY_KEY, Reply, borrowed, call},
};

const STOCK: i64 = 1000;
/// More round trips to one cluster than an order makes, with what the process asks for itself meanwhile.
const ROUND_TRIPS_MAX: usize = 60;

/// A shop whose orders are paid, a process that nothing happens to, and what stands between one that is to die and its servers.
struct Scene {
    shop: Shop,
    service: Service,
    customer: Customer,
    product: String,
    home: Meter,
    east: Meter,
}

impl Scene {
    async fn start() -> Self {
        let mut shop = Shop::start().await;
        let own = [
            ("ORDERS__PAYMENTS__URL", shop.stack.upstream_url()),
            ("ORDERS__SWEEP_INTERVAL", "1h".to_owned()),
            ("IDEMPOTENCY__SWEEP_INTERVAL", "1h".to_owned()),
        ];
        let own = own.map(|(key, value)| (format!("HOLDFAST__{key}"), value));
        shop.settings.extend(own);
        let service = shop.serve().await;
        let meter = async |url: &str| Meter::postgres(url, "holdfast").await.unwrap();
        Self {
            product: product(&service, STOCK).await,
            customer: customer_on(&service, true).await,
            home: meter(&shop.home.primary_url).await,
            east: meter(&shop.east.url("east")).await,
            service,
            shop,
        }
    }

    async fn victim(&self) -> Service {
        let mut settings = self.shop.settings();
        settings.extend([
            ("HOLDFAST__POSTGRES__PRIMARY_URL", self.home.url()),
            (
                "HOLDFAST__SHARDS__CLUSTERS__EAST__PRIMARY_URL",
                self.east.url(),
            ),
        ]);
        let victim = Service::start_on(&self.shop.stack, &self.shop.home, &settings).await;
        let deadline = Instant::now() + PATIENCE;
        while !has_all(&victim).await {
            assert!(Instant::now() < deadline, "the map is not read");
            sleep(Duration::from_millis(20)).await;
        }
        let warm = self
            .place(&victim, &format!("{:x}", fastrand::u128(..)))
            .await;
        assert_eq!(warm.status, 201, "{warm:?}");
        victim
    }

    async fn place(&self, service: &Service, key: &str) -> Reply {
        let mut headers = borrowed(&self.customer.headers);
        headers.push((IDEMPOTENCY_KEY, key));
        let order = order(&self.product);
        call(service.public, "POST /v1/orders", &headers, Some(&order)).await
    }

    async fn place_again(&self, key: &str) -> Reply {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let reply = self.place(&self.service, key).await;
            if ![409, 503].contains(&reply.status) {
                return reply;
            }
            assert!(Instant::now() < deadline, "{reply:?}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    async fn lapse(&self) {
        let lapse = "update idempotency_keys set locked_until = now() where status is null";
        self.shop.admin("home").await.execute(lapse).await.unwrap();
    }

    /// Orders, those that are paid, pieces sold, payments made, and what is still held.
    async fn effects(&self) -> [i64; 5] {
        let left = format!(
            "select stock::int8 from products where id = '{}'",
            self.product
        );
        let paid = "select count(*) from orders where status = 'paid'";
        let payments = self.shop.stack.upstream().counters(Payments).effects;
        [
            self.shop.ask("east", "select count(*) from orders").await,
            self.shop.ask("east", paid).await,
            STOCK - self.shop.ask("home", &left).await,
            payments.try_into().unwrap(),
            self.shop
                .ask("home", "select count(*) from stock_holds")
                .await,
        ]
    }

    /// Orders, and kills the process in the middle of its `nth` round trip. False when the order makes fewer.
    async fn is_survived(&self, at: &Meter, nth: usize, moment: Moment) -> bool {
        let mut victim = self.victim().await;
        let before = self.effects().await[0];
        let key = format!("{:x}", fastrand::u128(..));
        at.stop_at(nth, moment);
        let first = tokio::select! {
            first = self.place(&victim, &key) => Some(first),
            () = at.stopped() => None,
        };
        victim.signal(Signal::SIGKILL);
        victim.exited().await;
        at.cut();
        self.lapse().await;

        let again = self.place_again(&key).await;
        let replayed = self.place_again(&key).await;

        assert_eq!(again.status, 201, "{again:?}");
        assert_replayed(&replayed, &again);
        let now = before + 1;
        assert_eq!(
            self.effects().await,
            [now, now, now, now, 0],
            "{moment:?} {nth}"
        );
        first.is_none()
    }
}

#[tokio::test]
async fn whenever_the_process_dies_an_order_on_another_cluster_is_one_and_paid_once() {
    let scene = Scene::start().await;

    for (cluster, at) in [("home", &scene.home), ("east", &scene.east)] {
        for moment in [Moment::Asked, Moment::Answered] {
            let mut deaths = 0;
            while scene.is_survived(at, deaths + 1, moment).await {
                deaths += 1;
                assert!(deaths < ROUND_TRIPS_MAX);
            }
            println!(
                "killed at each of {deaths} round trips to {cluster}, {moment:?}: one effect each"
            );
            assert!(deaths > 0, "{cluster} is not asked");
        }
    }
}

#[tokio::test]
async fn an_order_whose_held_stock_was_given_back_begins_anew() {
    let scene = Scene::start().await;
    let mut victim = scene.victim().await;
    scene.east.stop_at(1, Moment::Asked);
    tokio::select! {
        reply = scene.place(&victim, "the-key") => panic!("{reply:?}"),
        () = scene.east.stopped() => {}
    }
    victim.signal(Signal::SIGKILL);
    victim.exited().await;
    scene.east.cut();
    scene.lapse().await;
    let mut home = scene.shop.admin("home").await;
    home.execute("update products set stock = stock + 1 where exists (select from stock_holds)")
        .await
        .unwrap();
    home.execute("delete from stock_holds").await.unwrap();

    let placed = scene.place_again("the-key").await;

    assert_eq!(placed.status, 201, "{placed:?}");
    assert_eq!(scene.effects().await, [2, 2, 2, 2, 0]);
}
