//! What the catalogue must do, seen by its clients.

use std::time::Duration;

use http::{Method, StatusCode, header};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::testing::{Answer, Client, TestApp};

/// A product as staff would send it, named and priced.
fn thing(name: &str, category: &str, price_cents: i64) -> Value {
    json!({
        "sku": format!("T-{:x}", fastrand::u64(..)),
        "name": name,
        "description": format!("Notes on {name}"),
        "category": category,
        "price_cents": price_cents,
        "stock": 5,
    })
}

/// Adds products, and waits until every reader sees them all.
async fn stock(app: &TestApp, things: &[Value]) -> Client {
    let staff = app.staff().await;
    for thing in things {
        let answer = staff.post("/v1/products", thing).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
    }
    until(async || listed(app, "limit=100").await.len() == things.len()).await;
    staff
}

/// Waits for what a replica may show a little later.
async fn until(condition: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition().await {
        assert!(Instant::now() < deadline, "it did not come true in time");
        sleep(Duration::from_millis(10)).await;
    }
}

async fn list(app: &TestApp, query: &str) -> Answer {
    app.anonymous().get(&format!("/v1/products?{query}")).await
}

fn names(answer: &Answer) -> Vec<String> {
    let items = answer.json()["items"]
        .as_array()
        .unwrap_or_else(|| panic!("{answer:?}"))
        .clone();
    items
        .iter()
        .map(|item| item["name"].as_str().unwrap().to_owned())
        .collect()
}

async fn listed(app: &TestApp, query: &str) -> Vec<String> {
    names(&list(app, query).await)
}

/// Every page of a list, put together by following its cursors.
async fn walked(app: &TestApp, query: &str) -> Vec<String> {
    let mut all = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = list(app, &format!("{query}&limit=2{cursor}")).await;
        all.extend(names(&page));
        match page.json()["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return all,
        }
    }
}

#[tokio::test]
async fn pages_show_every_product_once_in_each_order() {
    let app = TestApp::start().await;
    let things = [("C", 300), ("A", 100), ("E", 100), ("B", 100), ("D", 200)];
    stock(
        &app,
        &things.map(|(name, price)| thing(name, "cups", price)),
    )
    .await;

    for (sort, expected) in [
        ("newest", "DBEAC"),
        ("name", "ABCDE"),
        ("price", "AEBDC"),
        ("-price", "CDBEA"),
    ] {
        for filter in ["", "&category=cups", "&q=notes", "&q=notes&category=cups"] {
            let walked = walked(&app, &format!("sort={sort}{filter}")).await;

            assert_eq!(walked.concat(), expected, "{sort}{filter}");
        }
    }
}

#[tokio::test]
async fn a_search_finds_words_of_the_name_and_of_the_description() {
    let app = TestApp::start().await;
    let mut kettle = thing("Copper Kettle", "kitchen", 100);
    kettle["description"] = json!("Whistles when the water boils.");
    stock(
        &app,
        &[
            kettle,
            thing("Steel Kettle", "camping", 200),
            thing("Copper Pan", "kitchen", 300),
        ],
    )
    .await;

    assert_eq!(
        listed(&app, "q=kettles&sort=price").await,
        ["Copper Kettle", "Steel Kettle"]
    );
    assert_eq!(listed(&app, "q=boiling").await, ["Copper Kettle"]);
    assert_eq!(listed(&app, "q=kettle+-copper").await, ["Steel Kettle"]);
    assert_eq!(
        listed(&app, "q=copper&category=kitchen&sort=-price").await,
        ["Copper Pan", "Copper Kettle"]
    );
    assert_eq!(listed(&app, "category=camping").await, ["Steel Kettle"]);
    assert_eq!(listed(&app, "q=%27%29%3B--+%26+%7C+%21").await, [""; 0]);
}

#[tokio::test]
async fn only_the_fields_asked_for_are_sent() {
    let app = TestApp::start().await;
    stock(&app, &[thing("Cup", "cups", 100)]).await;

    let default = list(&app, "").await.json()["items"][0].clone();
    let chosen = list(&app, "fields=name,description,name").await;

    assert!(default.get("description").is_none(), "{default}");
    assert_eq!(default.as_object().unwrap().len(), 9);
    assert_eq!(
        chosen.body,
        r#"{"items":[{"name":"Cup","description":"Notes on Cup"}]}"#
    );
}

#[tokio::test]
async fn what_is_not_on_the_lists_of_fields_orders_and_limits_is_refused() {
    let app = TestApp::start().await;

    for query in [
        "fields=id,search",
        "fields=",
        "sort=stock",
        "limit=x",
        "page=2",
        "cursor=",
        "cursor=bm90IGpzb24",
    ] {
        assert_eq!(
            list(&app, query).await.status,
            StatusCode::BAD_REQUEST,
            "{query}"
        );
    }
    for query in [
        "limit=0",
        "limit=101",
        "q=",
        "q=a%00b",
        "category=%0a",
        &format!("q={}", "x".repeat(101)),
    ] {
        assert_eq!(
            list(&app, query).await.status,
            StatusCode::UNPROCESSABLE_ENTITY,
            "{query}"
        );
    }
}

#[tokio::test]
async fn a_cursor_continues_its_own_order_and_no_other() {
    let app = TestApp::start().await;
    stock(&app, &[thing("A", "cups", 100), thing("B", "cups", 200)]).await;
    let cursor = list(&app, "sort=price&limit=1").await.json()["next_cursor"]
        .as_str()
        .unwrap()
        .to_owned();

    let without_sort = listed(&app, &format!("cursor={cursor}")).await;
    let other_sort = list(&app, &format!("sort=name&cursor={cursor}")).await;

    assert_eq!(without_sort, ["B"]);
    assert_eq!(
        (other_sort.status, other_sort.code().as_str()),
        (StatusCode::UNPROCESSABLE_ENTITY, "validation_failed")
    );
}

#[tokio::test]
async fn what_the_client_holds_already_is_not_sent_again() {
    let app = TestApp::start().await;
    let staff = stock(&app, &[thing("Cup", "cups", 100)]).await;
    let new = staff.post("/v1/products", &thing("Mug", "cups", 100)).await;

    for path in ["/v1/products?q=cup", new.header(header::LOCATION)] {
        let first = app.anonymous().get(path).await;
        let tag = first.header(header::ETAG);
        let held = app
            .anonymous()
            .get_with(path, &[(header::IF_NONE_MATCH, &format!("\"x\", W/{tag}"))])
            .await;
        let other = app
            .anonymous()
            .get_with(path, &[(header::IF_NONE_MATCH, "\"x\"")])
            .await;

        assert_eq!(
            (held.status, held.body.len()),
            (StatusCode::NOT_MODIFIED, 0)
        );
        assert_eq!(held.header(header::ETAG), tag);
        assert!(
            held.header(header::CACHE_CONTROL)
                .contains("stale-while-revalidate"),
            "{held:?}"
        );
        assert_eq!(other.body, first.body);
    }
}

#[tokio::test]
async fn a_product_that_was_just_read_is_not_read_from_the_database_again() {
    let app = TestApp::start().await;
    let staff = app.staff().await;
    let new = staff.post("/v1/products", &thing("Cup", "cups", 100)).await;
    let path = new.header(header::LOCATION);

    app.execute("update products set name = 'changed behind the cache'")
        .await;
    let answer = app.anonymous().get(path).await;

    assert_eq!(answer.json()["name"], "Cup");
}

#[tokio::test]
async fn a_product_is_the_same_whether_or_not_all_its_fields_are_named() {
    let app = TestApp::start().await;
    let staff = app.staff().await;
    let new = staff.post("/v1/products", &thing("Cup", "cups", 100)).await;
    let path = new.header(header::LOCATION);

    let whole = app.anonymous().get(path).await;
    let fields = "id,sku,name,description,category,price_cents,stock,version,created_at,updated_at";
    let named = app
        .anonymous()
        .get(&format!("{path}?fields={fields}"))
        .await;

    assert_eq!(whole.body, named.body);
    assert_eq!(whole.body, new.body);
    assert_eq!(whole.header(header::ETAG), named.header(header::ETAG));
    assert_eq!(whole.header("degraded"), "");
}

#[tokio::test]
async fn an_id_that_names_nothing_is_not_found() {
    let app = TestApp::start().await;

    for id in ["00000000-0000-0000-0000-000000000000", "x", "1%27--"] {
        assert_eq!(
            app.anonymous()
                .get(&format!("/v1/products/{id}"))
                .await
                .status,
            StatusCode::NOT_FOUND,
            "{id}"
        );
    }
}

#[tokio::test]
async fn only_staff_writes_the_catalogue() {
    let app = TestApp::start().await;
    let new = app
        .staff()
        .await
        .post("/v1/products", &thing("Cup", "cups", 100))
        .await;
    let path = new.header(header::LOCATION);
    let any = [(header::IF_MATCH, "*")];
    let customer = app.customer().await;

    for (client, expected) in [
        (app.anonymous(), StatusCode::UNAUTHORIZED),
        (customer, StatusCode::FORBIDDEN),
    ] {
        assert_eq!(
            client
                .post("/v1/products", &thing("Mug", "cups", 1))
                .await
                .status,
            expected
        );
        assert_eq!(
            client
                .put(path, &any, &thing("Mug", "cups", 1))
                .await
                .status,
            expected
        );
    }
    assert_eq!(app.anonymous().get(path).await.json()["name"], "Cup");
}

#[tokio::test]
async fn what_the_service_decides_cannot_be_sent() {
    let app = TestApp::start().await;
    let staff = app.staff().await;
    let new = staff.post("/v1/products", &thing("Cup", "cups", 100)).await;
    let path = new.header(header::LOCATION);

    for field in ["id", "version", "created_at", "updated_at", "search"] {
        let mut forged = thing("Forged", "cups", 1);
        forged[field] = json!("9");

        let created = staff.post("/v1/products", &forged).await;
        let updated = staff.put(path, &[(header::IF_MATCH, "*")], &forged).await;

        assert_eq!(
            [created.status, updated.status],
            [StatusCode::UNPROCESSABLE_ENTITY; 2],
            "{field}"
        );
    }
    assert_eq!(app.anonymous().get(path).await.json(), new.json());
}

#[tokio::test]
async fn a_change_needs_the_version_it_was_made_from() {
    let app = TestApp::start().await;
    let staff = app.staff().await;
    let new = staff.post("/v1/products", &thing("Cup", "cups", 100)).await;
    let path = new.header(header::LOCATION);
    let mut change = thing("Mug", "cups", 200);
    change["sku"] = new.json()["sku"].clone();

    let blind = staff.put(path, &[], &change).await;
    let changed = staff
        .put(path, &[(header::IF_MATCH, "\"7\", \"1\"")], &change)
        .await;
    let again = staff
        .put(path, &[(header::IF_MATCH, "\"1\"")], &change)
        .await;
    let weak = staff
        .put(path, &[(header::IF_MATCH, "W/\"2\"")], &change)
        .await;

    assert_eq!(blind.status, StatusCode::PRECONDITION_REQUIRED);
    assert_eq!(
        (changed.status, changed.header(header::ETAG)),
        (StatusCode::OK, "\"2\"")
    );
    assert_eq!(
        [again.status, weak.status],
        [StatusCode::PRECONDITION_FAILED; 2]
    );
}

#[tokio::test]
async fn of_two_changes_made_from_one_version_exactly_one_is_kept() {
    let app = TestApp::start().await;
    let staff = app.staff().await;
    let new = staff.post("/v1/products", &thing("Cup", "cups", 100)).await;
    let path = new.header(header::LOCATION);
    let from_one = [(header::IF_MATCH, "\"1\"")];
    let changes: Vec<Value> = (0..8).map(|price| thing("Mug", "cups", price)).collect();

    let answers = changes
        .iter()
        .map(|change| staff.put(path, &from_one, change));
    let answers = futures::future::join_all(answers).await;

    let kept: Vec<&Answer> = answers
        .iter()
        .filter(|answer| answer.status == StatusCode::OK)
        .collect();
    assert_eq!(kept.len(), 1, "{answers:?}");
    assert_eq!(
        app.execute("select from products where version = 2").await,
        1
    );
}

#[tokio::test]
async fn a_change_is_seen_by_the_next_reader() {
    let app = TestApp::start().await;
    let staff = app.staff().await;
    let new = staff.post("/v1/products", &thing("Cup", "cups", 100)).await;
    let path = new.header(header::LOCATION);
    let before = app.anonymous().get(path).await;

    let changed = staff
        .put(
            path,
            &[(header::IF_MATCH, before.header(header::ETAG))],
            &thing("Mug", "cups", 1),
        )
        .await;
    let after = app.anonymous().get(path).await;

    assert_eq!(after.json(), changed.json());
}

#[tokio::test]
async fn one_sku_is_one_product() {
    let app = TestApp::start().await;
    let staff = app.staff().await;
    let cup = thing("Cup", "cups", 100);
    let other = staff.post("/v1/products", &thing("Mug", "cups", 100)).await;

    let first = staff.post("/v1/products", &cup).await;
    let second = staff.post("/v1/products", &cup).await;
    let renamed = staff
        .put(
            other.header(header::LOCATION),
            &[(header::IF_MATCH, "*")],
            &cup,
        )
        .await;

    assert_eq!(first.status, StatusCode::CREATED);
    assert_eq!([second.code(), renamed.code()], ["sku_taken", "sku_taken"]);
}

#[tokio::test]
async fn no_text_breaks_a_statement() {
    let app = TestApp::start().await;
    let staff = app.staff().await;
    let hostile = [
        "'; drop table products; --",
        "\" or \"\"=\"",
        "\\",
        "%",
        "$1",
        "\u{0}",
        "\u{202e}",
        "🦀",
        "a\tb",
        "-1",
        "null",
    ];

    for text in hostile {
        for field in ["sku", "name", "description", "category"] {
            let mut new = thing("Cup", "cups", 100);
            new[field] = json!(text);
            let created = staff.post("/v1/products", &new).await;

            let is_kept = created.status == StatusCode::CREATED && created.json()[field] == text;
            let is_refused =
                [StatusCode::UNPROCESSABLE_ENTITY, StatusCode::CONFLICT].contains(&created.status);
            assert!(is_kept || is_refused, "{field}={text:?}: {created:?}");
        }
        let text: String = text.bytes().map(|byte| format!("%{byte:02x}")).collect();
        for query in [
            format!("q={text}"),
            format!("category={text}"),
            format!("cursor={text}"),
        ] {
            assert!(list(&app, &query).await.status.as_u16() < 500, "{query}");
        }
    }
}

#[tokio::test]
async fn the_catalogue_answers_to_its_own_methods_only() {
    let app = TestApp::start().await;

    let answer = app
        .anonymous()
        .send(Method::DELETE, "/v1/products", &[], None)
        .await;

    assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED);
}
