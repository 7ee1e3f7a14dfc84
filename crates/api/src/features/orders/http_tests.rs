//! What ordering must do, seen by customers.

use std::time::Duration;

use futures::future::join_all;
use http::{StatusCode, header};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::testing::{Answer, Client, TestApp};

/// Adds a product; its id.
async fn product(staff: &Client, name: &str, price_cents: i64, stock: i32) -> String {
    let sku = format!("T-{:x}", fastrand::u64(..));
    let new = json!({
        "sku": sku, "name": name, "description": "", "category": "cups", "price_cents": price_cents, "stock": stock,
    });
    let answer = staff.post("/v1/products", &new).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
    answer.json()["id"].as_str().unwrap().to_owned()
}

fn order(lines: &[(&str, i32)]) -> Value {
    let lines: Vec<Value> = lines
        .iter()
        .map(|(id, quantity)| json!({ "product_id": id, "quantity": quantity }))
        .collect();
    json!({ "lines": lines })
}

/// Orders as a client does that is told to come again: many at once wait for the same rows, and not all get their turn
/// in time.
async fn buy(client: &Client, order: &Value) -> Answer {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let answer = client.post("/v1/orders", order).await;
        if answer.status != StatusCode::SERVICE_UNAVAILABLE || Instant::now() > deadline {
            return answer;
        }
        sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn an_order_shows_what_was_bought_at_the_price_of_the_moment() {
    let app = TestApp::start().await;
    let staff = app.staff().await;
    let (cup, mug) = (
        product(&staff, "Cup", 250, 10).await,
        product(&staff, "Mug", 400, 10).await,
    );
    let customer = app.customer().await;

    let placed = customer
        .post("/v1/orders", &order(&[(&mug, 2), (&cup, 3)]))
        .await;
    app.execute("update products set price_cents = 1, name = 'Other'")
        .await;
    let read = customer.get(placed.header(header::LOCATION)).await;

    assert_eq!(placed.status, StatusCode::CREATED);
    assert_eq!(read.json(), placed.json());
    assert_eq!(read.json()["total_cents"], 2 * 400 + 3 * 250);
    assert_eq!(
        read.json()["lines"],
        json!([
            { "product_id": mug, "name": "Mug", "quantity": 2, "price_cents": 400 },
            { "product_id": cup, "name": "Cup", "quantity": 3, "price_cents": 250 },
        ])
    );
}

#[tokio::test]
async fn two_hundred_buyers_of_fifty_pieces_get_exactly_fifty() {
    let app = TestApp::start().await;
    let cup = product(&app.staff().await, "Cup", 250, 50).await;
    let customer = app.customer().await;
    let one = order(&[(&cup, 1)]);

    let answers = join_all((0..200).map(|_| buy(&customer, &one))).await;

    let sold = answers
        .iter()
        .filter(|answer| answer.status == StatusCode::CREATED)
        .count();
    let refused = answers
        .iter()
        .filter(|answer| answer.code() == "out_of_stock")
        .count();
    assert_eq!((sold, refused), (50, 150));
    assert_eq!(
        app.execute("select from products where stock = 0 and version = 51")
            .await,
        1
    );
    assert_eq!(
        app.execute("select from order_lines where quantity = 1")
            .await,
        50
    );
}

#[tokio::test]
async fn orders_of_the_same_products_in_any_order_never_block_each_other_for_good() {
    // Longer than Postgres takes to notice a deadlock, which would otherwise look like any other long wait.
    let app =
        TestApp::with(|settings| settings.postgres.lock_timeout = Duration::from_secs(20)).await;
    // So many that Postgres looks each line's product up by itself, in the order of the lines.
    app.execute(
        "insert into products (id, sku, name, description, category, price_cents, stock)
         select md5(n::text)::uuid, n, n, '', 'filler', 1, 1 from generate_series(1, 5000) as n",
    )
    .await;
    let staff = app.staff().await;
    let mut ids = Vec::new();
    for name in ["A", "B", "C", "D"] {
        ids.push(product(&staff, name, 1, 99).await);
    }
    app.execute("analyze products").await;
    let customer = app.customer().await;
    let mut lines: Vec<(&str, i32)> = ids.iter().map(|id| (id.as_str(), 1)).collect();
    let forth = order(&lines);
    lines.reverse();
    let back = order(&lines);

    let orders = (0..60).map(|n| buy(&customer, if n % 2 == 0 { &forth } else { &back }));
    let answers = join_all(orders).await;

    let placed = answers
        .iter()
        .filter(|answer| answer.status == StatusCode::CREATED)
        .count();
    let deadlocks = app
        .execute(
            "select from pg_stat_database where datname = current_database() and deadlocks > 0",
        )
        .await;
    assert_eq!((placed, deadlocks), (60, 0));
    assert_eq!(
        app.execute("select from products where stock = 39").await,
        4
    );
}

#[tokio::test]
async fn an_order_takes_all_it_asks_for_or_nothing() {
    let app = TestApp::start().await;
    let staff = app.staff().await;
    let (plenty, scarce) = (
        product(&staff, "Cup", 1, 10).await,
        product(&staff, "Mug", 1, 2).await,
    );
    let customer = app.customer().await;

    let answer = customer
        .post("/v1/orders", &order(&[(&plenty, 6), (&scarce, 3)]))
        .await;

    assert_eq!(
        (answer.status, answer.code().as_str()),
        (StatusCode::CONFLICT, "out_of_stock")
    );
    let detail = answer.json()["detail"].to_string();
    assert!(
        detail.contains(&format!("2 of 3 wanted of product {scarce}")),
        "{detail}"
    );
    assert!(!detail.contains(&plenty), "{detail}");
    assert_eq!(
        app.execute("select from products where stock in (10, 2) and version = 1")
            .await,
        2
    );
    assert_eq!(app.execute("select from orders").await, 0);
}

#[tokio::test]
async fn a_line_that_names_no_product_is_pointed_out() {
    let app = TestApp::start().await;
    let cup = product(&app.staff().await, "Cup", 1, 10).await;
    let customer = app.customer().await;

    let unknown = "00000000-0000-0000-0000-000000000000";
    let answer = customer
        .post("/v1/orders", &order(&[(&cup, 1), (unknown, 1)]))
        .await;

    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(answer.json()["errors"][0]["field"], "lines[1].product_id");
    assert_eq!(
        app.execute("select from products where stock = 10").await,
        1
    );
}

#[tokio::test]
async fn an_order_outside_its_limits_is_refused() {
    let app = TestApp::start().await;
    let cup = product(&app.staff().await, "Cup", 1, 10).await;
    let customer = app.customer().await;
    let line = json!({ "product_id": cup, "quantity": 1 });
    let many: Vec<Value> = (0..51)
        .map(|n| json!({ "product_id": uuid::Uuid::from_u128(n), "quantity": 1 }))
        .collect();
    let mut with_price = line.clone();
    with_price["price_cents"] = json!(1);

    for lines in [
        json!([]),
        json!(many),
        json!([line, line]),
        json!([with_price]),
    ] {
        assert_eq!(
            customer
                .post("/v1/orders", &json!({ "lines": lines }))
                .await
                .status,
            StatusCode::UNPROCESSABLE_ENTITY
        );
    }
    for quantity in [0, -1, 1001] {
        let answer = customer
            .post("/v1/orders", &order(&[(&cup, quantity)]))
            .await;
        assert_eq!(
            answer.json()["errors"][0]["field"],
            "lines[0].quantity",
            "{quantity}"
        );
    }
    for field in ["id", "customer_id", "status", "total_cents"] {
        let forged = json!({ "lines": [line], field: "1" });
        assert_eq!(
            customer.post("/v1/orders", &forged).await.status,
            StatusCode::UNPROCESSABLE_ENTITY,
            "{field}"
        );
    }
    assert_eq!(app.execute("select from orders").await, 0);
}

#[tokio::test]
async fn nobody_sees_the_order_of_somebody_else() {
    let app = TestApp::start().await;
    let staff = app.staff().await;
    let cup = product(&staff, "Cup", 1, 10).await;
    let (owner, other) = (app.customer().await, app.customer().await);

    let placed = owner.post("/v1/orders", &order(&[(&cup, 1)])).await;
    let path = placed.header(header::LOCATION);

    for (client, expected) in [
        (owner, StatusCode::OK),
        (other, StatusCode::NOT_FOUND),
        (staff, StatusCode::NOT_FOUND),
        (app.anonymous(), StatusCode::UNAUTHORIZED),
    ] {
        assert_eq!(client.get(path).await.status, expected);
        let list = client.get("/v1/orders").await;
        let listed = list.json()["items"].as_array().map_or(0, Vec::len);
        assert_eq!(listed, usize::from(expected == StatusCode::OK));
    }
}

#[tokio::test]
async fn the_newest_order_comes_first_and_pages_show_each_once() {
    let app = TestApp::start().await;
    let cup = product(&app.staff().await, "Cup", 1, 100).await;
    let customer = app.customer().await;
    let mut placed = Vec::new();
    for quantity in 1..=5 {
        placed.push(
            customer
                .post("/v1/orders", &order(&[(&cup, quantity)]))
                .await
                .json(),
        );
    }
    placed.reverse();

    let mut listed = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = customer
            .get(&format!("/v1/orders?limit=2{cursor}"))
            .await
            .json();
        listed.extend(page["items"].as_array().unwrap().clone());
        let Some(next) = page["next_cursor"].as_str() else {
            break;
        };
        cursor = format!("&cursor={next}");
    }

    assert_eq!(listed, placed);
}

#[tokio::test]
async fn an_included_product_is_what_the_catalogue_says_now_and_null_when_it_is_gone() {
    let app = TestApp::start().await;
    let staff = app.staff().await;
    let (cup, mug) = (
        product(&staff, "Cup", 250, 10).await,
        product(&staff, "Mug", 400, 10).await,
    );
    let customer = app.customer().await;
    let placed = customer
        .post("/v1/orders", &order(&[(&cup, 3), (&mug, 1)]))
        .await;
    app.execute("update products set price_cents = 199, name = 'Bowl' where name = 'Cup'")
        .await;
    app.execute("delete from products where name = 'Mug'").await;

    let path = format!("{}?include=products", placed.header(header::LOCATION));
    let now = json!([{ "name": "Bowl", "price_cents": 199, "stock": 7 }, null]);
    let one = eventually(&customer, &path, |one| products_of(one) == now).await;
    let listed = customer.get("/v1/orders?include=products").await.json();
    let plain = customer.get(placed.header(header::LOCATION)).await;

    // The receipt stays what it was.
    assert_eq!(one["lines"][0]["price_cents"], 250);
    assert_eq!(listed["items"], json!([one]));
    assert_eq!(plain.json(), placed.json());
    assert!(plain.json()["lines"][0].get("product").is_none());
}

/// Asks until the answer is as wanted: a product is read from a replica, which follows a moment later.
async fn eventually(client: &Client, path: &str, is_wanted: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let answer = client.get(path).await.json();
        if is_wanted(&answer) {
            return answer;
        }
        assert!(Instant::now() < deadline, "still {answer}");
        sleep(Duration::from_millis(10)).await;
    }
}

fn products_of(order: &Value) -> Value {
    let lines = order["lines"].as_array().unwrap();
    lines.iter().map(|line| line["product"].clone()).collect()
}

#[tokio::test]
async fn an_unknown_relation_is_refused_with_those_there_are() {
    let app = TestApp::start().await;
    let customer = app.customer().await;

    for path in [
        "/v1/orders?include=lines",
        "/v1/orders?include=",
        "/v1/orders/00000000-0000-0000-0000-000000000000?include=products,customer",
    ] {
        let answer = customer.get(path).await;
        let problem = answer.json();

        // No order was looked for.
        assert_eq!(
            (answer.status, problem["code"].as_str()),
            (StatusCode::BAD_REQUEST, Some("invalid_query"))
        );
        assert!(
            problem["detail"]
                .as_str()
                .unwrap()
                .contains("expected `products`"),
            "{problem}"
        );
    }
}

#[tokio::test]
async fn a_list_of_orders_costs_two_statements_and_one_more_for_products_however_long_it_is() {
    let app = TestApp::metered().await;
    let staff = app.staff().await;
    let mut cups = Vec::new();
    for n in 0..5 {
        cups.push(product(&staff, &format!("Cup {n}"), 1, 1000).await);
    }
    let lines: Vec<(&str, i32)> = cups.iter().map(|id| (id.as_str(), 1)).collect();
    let customer = app.customer().await;
    for _ in 0..50 {
        customer.post("/v1/orders", &order(&lines)).await;
    }

    for limit in [1, 50] {
        let list = format!("/v1/orders?limit={limit}");
        let with_products = format!("{list}&include=products");
        let (answer, plain) = app.cost(async || customer.get(&list).await).await;
        let (_, with_products) = app.cost(async || customer.get(&with_products).await).await;

        println!("{limit} orders: {plain:?}\n  and their products: {with_products:?}");
        assert_eq!(answer.json()["items"].as_array().unwrap().len(), limit);
        assert_eq!(
            (plain.statements(), with_products.statements()),
            ([0, 2], [0, 3])
        );
        assert_eq!(
            (plain.redis.round_trips, with_products.redis.round_trips),
            (1, 1)
        );
    }
}

#[tokio::test]
async fn an_order_of_many_lines_costs_as_many_statements_as_one_of_one() {
    let app = TestApp::metered().await;
    let staff = app.staff().await;
    let mut ids = Vec::new();
    for n in 0..20 {
        ids.push(product(&staff, &format!("Cup {n}"), 1, 1000).await);
    }
    let lines: Vec<(&str, i32)> = ids.iter().map(|id| (id.as_str(), 1)).collect();
    let customer = app.customer().await;

    for lines in [&lines[..1], &lines] {
        let (answer, cost) = app
            .cost(async || customer.post("/v1/orders", &order(lines)).await)
            .await;

        assert_eq!(answer.status, StatusCode::CREATED);
        // Claim the key; take the stock, keep the order, keep its lines, say so, finish the claim, have it confirmed; begin and
        // commit around them.
        assert_eq!(cost.statements(), [9, 0], "{cost:?}");
    }
}

#[tokio::test]
async fn with_their_products_switched_off_orders_come_without_them_and_cost_a_statement_less() {
    let app = TestApp::metered_without("order_products").await;
    let staff = app.staff().await;
    let cup = product(&staff, "Cup", 250, 10).await;
    let customer = app.customer().await;
    customer.post("/v1/orders", &order(&[(&cup, 1)])).await;

    let list = "/v1/orders?include=products";
    let (with, cost) = app.cost(async || customer.get(list).await).await;
    let without = customer.get("/v1/orders").await;

    assert_eq!(with.status, StatusCode::OK, "{with:?}");
    assert_eq!(with.json(), without.json());
    assert_eq!(with.header("degraded"), "order_products_off");
    assert_eq!(without.header("degraded"), "");
    assert_eq!(cost.statements().iter().sum::<usize>(), 2);
}
