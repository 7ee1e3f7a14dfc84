//! What recommendations must be, whoever answers.

use http::{StatusCode, header};
use serde_json::{Value, json};

use crate::testing::{Answer, Client, TestApp};

/// Adds a product; its id.
async fn product(staff: &Client, name: &str) -> String {
    let sku = format!("T-{:x}", fastrand::u64(..));
    let new = json!({
        "sku": sku, "name": name, "description": "", "category": "cups", "price_cents": 250, "stock": 100,
    });
    let answer = staff.post("/v1/products", &new).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
    answer.json()["id"].as_str().unwrap().to_owned()
}

/// A service without replicas, so that what was ordered is seen at once.
async fn shop(recommender: Option<&str>) -> TestApp {
    TestApp::with(|settings| {
        settings.postgres.replica_urls.clear();
        settings.recommendations.upstream.url = recommender.map(str::to_owned);
    })
    .await
}

async fn recommendations(app: &TestApp, id: &str) -> Answer {
    let path = format!("/v1/products/{id}/recommendations");
    app.anonymous().get(&path).await
}

fn names(answer: &Answer) -> Vec<Value> {
    let items = answer.json()["items"].as_array().unwrap().clone();
    items.iter().map(|item| item["name"].clone()).collect()
}

#[tokio::test]
async fn without_a_recommender_it_is_what_sells_best_and_nothing_is_missing() {
    let app = shop(None).await;
    let staff = app.staff().await;
    let cup = product(&staff, "Cup").await;
    let mug = product(&staff, "Mug").await;
    let jug = product(&staff, "Jug").await;
    product(&staff, "Pot").await;
    let customer = app.customer().await;
    for (id, quantity) in [(&cup, 9), (&mug, 1), (&jug, 2), (&mug, 3)] {
        let order = json!({ "lines": [{ "product_id": id, "quantity": quantity }] });
        let placed = customer.post("/v1/orders", &order).await;
        assert_eq!(placed.status, StatusCode::CREATED, "{placed:?}");
    }

    let answer = recommendations(&app, &cup).await;

    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.json()["source"], "best_sellers");
    assert_eq!(names(&answer), ["Mug", "Jug"]);
    assert_eq!(answer.header("degraded"), "");
}

#[tokio::test]
async fn a_recommender_that_is_away_is_replaced_and_the_answer_says_so() {
    let app = shop(Some("http://127.0.0.1:1")).await;
    let cup = product(&app.staff().await, "Cup").await;

    let answer = recommendations(&app, &cup).await;

    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    assert_eq!(answer.json()["source"], "best_sellers");
    assert_eq!(answer.header("degraded"), "recommendations_fallback");
    assert_eq!(answer.header(header::CACHE_CONTROL), "no-store");
}

#[tokio::test]
async fn switched_off_they_are_none_and_cost_no_server_anything() {
    let app = TestApp::metered_without("recommendations").await;
    let client = app.anonymous();
    let path = "/v1/products/0199f0a0-0000-7000-8000-000000000000/recommendations";

    let (answer, cost) = app.cost(async || client.get(path).await).await;

    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    assert_eq!(answer.json(), json!({ "source": "off", "items": [] }));
    assert_eq!(answer.header("degraded"), "recommendations_off");
    assert_eq!(answer.header(header::CACHE_CONTROL), "no-store");
    assert_eq!(cost.statements(), [0, 0]);
    assert_eq!(cost.redis.round_trips, 0);
}

#[tokio::test]
async fn a_product_that_is_not_there_has_no_recommendations() {
    let app = shop(None).await;

    for id in ["0199f0a0-0000-7000-8000-000000000000", "cup"] {
        let answer = recommendations(&app, id).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND);
    }
}
