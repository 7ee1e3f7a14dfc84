//! Orders while their bucket moves.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use futures::future::join_all;
use tokio::time::Instant;

use super::{Customer, Shop, customer_on, place, product};
use crate::{
    service::Service,
    wire::{borrowed, call},
};

const STOCK: i64 = 100_000;

/// What came of one customer's visit.
#[derive(Default)]
struct Visit {
    orders: usize,
    refusals: Vec<String>,
    stale: usize,
    longest: Duration,
}

/// Places orders and looks each time whether the newest is listed first.
async fn visit(service: &Service, customer: &Customer, product: &str, stop: &AtomicBool) -> Visit {
    let mut visit = Visit::default();
    while !stop.load(Ordering::Relaxed) {
        let start = Instant::now();
        let placed = place(service, customer, product).await;
        visit.longest = visit.longest.max(start.elapsed());
        if placed.status != 201 {
            visit.refusals.push(placed.head);
            continue;
        }
        visit.orders += 1;
        let list = "GET /v1/orders?limit=1";
        let listed = call(service.public, list, &borrowed(&customer.headers), None).await;
        if listed.status != 200 {
            visit.refusals.push(listed.head);
        } else if listed.json()["items"][0]["id"] != placed.json()["id"] {
            visit.stale += 1;
        }
    }
    visit
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn customers_of_a_moving_bucket_see_no_error_and_no_piece_is_lost() {
    let shop = Shop::start().await;
    let service = shop.serve().await;
    let product = product(&service, STOCK).await;
    let customers = [
        customer_on(&service, false).await,
        customer_on(&service, false).await,
        customer_on(&service, true).await,
    ];
    let bucket = customers[0].bucket().to_string();
    let stop = AtomicBool::new(false);

    let visits = customers
        .iter()
        .map(|customer| visit(&service, customer, &product, &stop));
    let moves = async {
        let mut said = String::new();
        for target in ["east", "home"] {
            said += &shop.run(&["shard", "move", &bucket, "--to", target]).await;
        }
        stop.store(true, Ordering::Relaxed);
        said
    };
    let (visits, said) = tokio::join!(join_all(visits), moves);

    print!("{said}");
    let orders: usize = visits.iter().map(|visit| visit.orders).sum();
    for visit in &visits {
        println!(
            "{} orders, {} refused, {} stale, longest {:?}",
            visit.orders,
            visit.refusals.len(),
            visit.stale,
            visit.longest
        );
        assert_eq!((&visit.refusals, visit.stale), (&Vec::new(), 0));
    }
    let left = format!("select stock::int8 from products where id = '{product}'");
    assert_eq!(
        shop.ask("home", &left).await,
        STOCK - i64::try_from(orders).unwrap()
    );
    let kept =
        "select (select count(*) from orders) * 1000000 + (select count(*) from order_lines)";
    let kept = [shop.ask("home", kept).await, shop.ask("east", kept).await];
    let count = i64::try_from(orders).unwrap();
    assert_eq!(kept[0] + kept[1], count * 1_000_000 + count);
    assert_eq!(
        shop.ask("home", "select count(*) from stock_holds").await,
        0
    );
    let map = shop.run(&["shard", "map"]).await;
    assert!(
        map.contains("version 3\neast: 512 of 1024: 512..1023\nhome: 512"),
        "{map}"
    );
}

#[tokio::test]
async fn the_plan_for_a_cluster_is_made_of_commands_that_work() {
    let shop = Shop::start().await;

    let has_its_share = shop.run(&["shard", "plan", "--to", "east"]).await;
    shop.run(&["shard", "move", "512..527", "--to", "home"])
        .await;
    let plan = shop.run(&["shard", "plan", "--to", "east"]).await;

    assert_eq!(has_its_share, "# east has its share\n");
    assert_eq!(
        plan,
        "# 16 from home\nholdfast shard move 512..527 --to east\n"
    );
}
