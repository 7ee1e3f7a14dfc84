//! Orders whose stock is on another cluster, cut off between one step and the next.

use devstack::Fault;
use nix::sys::signal::Signal;
use sqlx::Executor as _;

use super::{Customer, Shop, customer_on, order, place, product};
use crate::{
    service::Service,
    wire::{Wire, borrowed},
};

const HOLDS: &str = "select count(*) from stock_holds";
const ORDERS: &str = "select count(*) from orders";

/// A shop with ten pieces of one product, and a customer on the other cluster than these.
struct Scene {
    shop: Shop,
    service: Service,
    product: String,
    customer: Customer,
}

impl Scene {
    async fn start() -> Self {
        let shop = Shop::start().await;
        let service = shop.serve().await;
        Self {
            product: product(&service, 10).await,
            customer: customer_on(&service, true).await,
            service,
            shop,
        }
    }

    async fn stock(&self) -> i64 {
        let product = &self.product;
        let query = format!("select stock::int8 from products where id = '{product}'");
        self.shop.ask("home", &query).await
    }

    /// Sends an order and does not wait for what comes of it.
    async fn begin(&self) -> Wire {
        let body = order(&self.product).to_string();
        let headers: String = borrowed(&self.customer.headers)
            .iter()
            .map(|(name, value)| format!("{name}: {value}\r\n"))
            .collect();
        let mut wire = Wire::connect(self.service.public).await.unwrap();
        wire.send(&format!(
            "POST /v1/orders HTTP/1.1\r\nhost: x\r\n{headers}idempotency-key: one\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        ))
        .await;
        wire
    }

    /// Kill -9, and another process in its place that finds the holds old enough to look at.
    async fn killed_and_started_again(&mut self) {
        self.service.signal(Signal::SIGKILL);
        self.service.exited().await;
        let mut home = self.shop.admin("home").await;
        home.execute("update stock_holds set created_at = created_at - interval '1 hour'")
            .await
            .unwrap();
        self.service = self.shop.serve().await;
    }
}

#[tokio::test]
async fn stock_is_given_back_when_the_process_dies_before_the_order_is_kept() {
    let mut scene = Scene::start().await;
    let mut east = scene.shop.admin("east").await;
    east.execute("begin; lock table orders in access exclusive mode")
        .await
        .unwrap();

    let wire = scene.begin().await;
    scene.shop.until("home", HOLDS, 1).await;
    let held = scene.stock().await;
    // Its transaction waits for the table, and ends with its connection once it gets it.
    scene.killed_and_started_again().await;
    east.execute("rollback").await.unwrap();
    scene.shop.until("home", HOLDS, 0).await;

    println!("stock: {held} held, {} after", scene.stock().await);
    assert_eq!((held, scene.stock().await), (9, 10));
    assert_eq!(scene.shop.ask("east", ORDERS).await, 0);
    drop(wire);
}

#[tokio::test]
async fn stock_stays_sold_when_the_process_dies_after_the_order_is_kept() {
    let mut scene = Scene::start().await;
    let mut east = scene.shop.admin("east").await;
    let mut home = scene.shop.admin("home").await;
    east.execute("begin; lock table orders in access exclusive mode")
        .await
        .unwrap();

    let wire = scene.begin().await;
    scene.shop.until("home", HOLDS, 1).await;
    home.execute("begin; lock table stock_holds in share mode")
        .await
        .unwrap();
    east.execute("rollback").await.unwrap();
    scene.shop.until("east", ORDERS, 1).await;
    scene.service.signal(Signal::SIGKILL);
    home.execute("rollback").await.unwrap();
    scene.killed_and_started_again().await;
    scene.shop.until("home", HOLDS, 0).await;

    println!("stock: {} after", scene.stock().await);
    assert_eq!(scene.stock().await, 9);
    assert_eq!(scene.shop.ask("east", ORDERS).await, 1);
    drop(wire);
}

#[tokio::test]
async fn without_its_cluster_an_order_is_refused_and_takes_no_stock() {
    let scene = Scene::start().await;
    let at_home = customer_on(&scene.service, false).await;
    scene.shop.east.proxy().set(Fault::Down).await;

    let refused = place(&scene.service, &scene.customer, &scene.product).await;
    let placed = place(&scene.service, &at_home, &scene.product).await;

    assert_eq!((refused.status, placed.status), (503, 201));
    assert!(refused.header("retry-after").is_some());
    assert_eq!(scene.stock().await, 9);
    assert_eq!(scene.shop.ask("home", HOLDS).await, 0);
}
