//! gRPC on real sockets: how a process and a connection end under calls, and how clients spread theirs over processes.

mod balancing;
mod client;
mod ending;
mod envoy;
mod observed;
mod watching;
mod work;

use api::proto::orders::v1::{CreateOrderRequest, create_order_request::Line};
use devstack::Database;
use sqlx::{Connection, PgConnection};
use tonic::metadata::{Ascii, MetadataValue};

use crate::{
    service::{CUSTOMER, Service, seed},
    wire::sign_in,
};

/// A catalogue that nobody buys empty, and the ids of its products.
async fn stocked(database: &Database, products: usize) -> Vec<String> {
    seed(devstack::shared().await, database, products).await;
    let mut admin = PgConnection::connect(&database.admin_url).await.unwrap();
    let stock = "update products set stock = 1000000 returning id::text";
    sqlx::query_scalar(stock)
        .fetch_all(&mut admin)
        .await
        .unwrap()
}

/// Metadata by which calls are a customer's, who has signed in by HTTP.
async fn bearer(service: &Service) -> MetadataValue<Ascii> {
    let [(_, cookie), _] = sign_in(service.public, CUSTOMER).await;
    let (_, id) = cookie.split_once('=').unwrap();
    format!("Bearer {id}").parse().unwrap()
}

fn one_of(product_id: &str) -> CreateOrderRequest {
    let line = Line {
        product_id: product_id.to_owned(),
        quantity: 1,
    };
    CreateOrderRequest { lines: vec![line] }
}

/// A new key for every order.
fn key() -> MetadataValue<Ascii> {
    format!("{:032x}", fastrand::u128(..)).parse().unwrap()
}
