//! The catalogue, seen by clients of gRPC.

use serde_json::json;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::{
    proto::catalog::v1::{
        GetProductRequest, ListProductsRequest, ListProductsResponse, Product, Sort,
        catalog_client::CatalogClient,
    },
    testing::{RpcChannel, TestApp},
};

/// A shop with three cups, the last of which is the newest.
async fn shop() -> (TestApp, CatalogClient<RpcChannel>) {
    let app = TestApp::start().await;
    let staff = app.staff().await;
    for (name, price_cents) in [("Cup", 250), ("Mug", 100), ("Bowl", 900)] {
        let new = json!({
            "sku": format!("T-{name}"), "name": name, "description": "round", "category": "cups",
            "price_cents": price_cents, "stock": 5,
        });
        staff.post("/v1/products", &new).await;
    }
    let client = CatalogClient::new(app.rpcs());
    (app, client)
}

async fn list(
    client: &mut CatalogClient<RpcChannel>,
    request: ListProductsRequest,
) -> ListProductsResponse {
    client.list_products(request).await.unwrap().into_inner()
}

fn names(products: &[Product]) -> Vec<&str> {
    products.iter().map(|product| &*product.name).collect()
}

async fn get(client: &mut CatalogClient<RpcChannel>, id: &str) -> Result<Product, Status> {
    let request = GetProductRequest { id: id.to_owned() };
    Ok(client.get_product(request).await?.into_inner())
}

#[tokio::test]
async fn a_product_is_the_one_that_json_shows() {
    let (app, mut client) = shop().await;
    let page = app.anonymous().get("/v1/products?limit=1").await.json();
    let id = page["items"][0]["id"].as_str().unwrap();
    let shown = app.anonymous().get(&format!("/v1/products/{id}")).await;
    let shown = shown.json();

    let product = get(&mut client, id).await.unwrap();

    assert_eq!(
        json!({
            "id": product.id, "sku": product.sku, "name": product.name, "description": product.description,
            "category": product.category, "price_cents": product.price_cents, "stock": product.stock,
            "version": product.version, "created_at": shown["created_at"], "updated_at": shown["updated_at"],
        }),
        shown
    );
    let created_at = product.created_at.unwrap().to_string();
    assert_eq!(created_at, shown["created_at"].as_str().unwrap());
}

#[tokio::test]
async fn what_is_no_product_is_not_found() {
    let (_app, mut client) = shop().await;

    for id in ["", "cup", &uuid::Uuid::nil().to_string()] {
        let refused = get(&mut client, id).await.unwrap_err();
        assert_eq!(refused.code(), Code::NotFound, "{id:?}: {refused:?}");
    }
}

#[tokio::test]
async fn a_list_is_continued_in_its_order_to_its_end() {
    let (_app, mut client) = shop().await;
    let mut request = ListProductsRequest {
        sort: Sort::Cheapest.into(),
        limit: 2,
        ..ListProductsRequest::default()
    };

    let first = list(&mut client, request.clone()).await;
    request.cursor.clone_from(&first.next_cursor);
    let last = list(&mut client, request).await;

    assert_eq!(names(&first.products), ["Mug", "Cup"]);
    assert_eq!(names(&last.products), ["Bowl"]);
    assert_eq!(last.next_cursor, "");
    assert!(first.products[0].description.is_none(), "{first:?}");
}

#[tokio::test]
async fn an_empty_request_asks_for_the_newest_of_all() {
    let (_app, mut client) = shop().await;

    let all = list(&mut client, ListProductsRequest::default()).await;

    assert_eq!(names(&all.products), ["Bowl", "Mug", "Cup"]);
}

#[tokio::test]
async fn a_field_that_cannot_be_accepted_is_named() {
    let (_app, mut client) = shop().await;
    let too_many = ListProductsRequest {
        limit: 1_000_000,
        ..ListProductsRequest::default()
    };
    let no_cursor = ListProductsRequest {
        cursor: "next".to_owned(),
        ..ListProductsRequest::default()
    };

    for (request, field) in [(too_many, "limit"), (no_cursor, "cursor")] {
        let refused = client.list_products(request).await.unwrap_err();
        let violations = refused.get_details_bad_request().unwrap().field_violations;
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
        assert_eq!(violations[0].field, field, "{violations:?}");
    }
}
