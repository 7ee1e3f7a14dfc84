//! Orders: placing one takes its stock, and only its customer ever sees it. They are where their customer's rows are, which
//! may be another cluster than the stock's.

mod checkout;
mod completing;
mod config;
mod holds;
mod jobs;
mod model;
mod payments;
mod placing;
mod rpc;
mod store;
mod told;

#[cfg(test)]
mod http_tests;
#[cfg(test)]
mod payment_http_tests;
#[cfg(test)]
mod rpc_http_tests;

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use data::postgres::shards::Table;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use self::model::{NewOrder, Order, OrderFilter, OrderParts, Relation};
use crate::{
    features::products,
    flags::{Flag, Flags},
    http::{
        ApiError, ApiResult, Body, Caller, Db, Keyed, Path, Query,
        degraded::{self, Degradation},
        idempotency::{IdempotencyKey, Outcome},
        include::Include,
        page::Page,
        session::Session,
    },
    state::AppState,
};

pub use checkout::Checkout;
pub use completing::Completer;
pub use config::Config;
pub use holds::sweep;
pub use jobs::{SendConfirmation, register};
pub use payments::{Payment, PaymentError, Payments};
pub use rpc::rpcs;

/// The tables that are spread over the clusters by customer, what is referred to first.
pub const SHARDED: [Table; 2] = [
    Table {
        name: "orders",
        key: "customer_id",
    },
    Table {
        name: "order_lines",
        key: "customer_id",
    },
];

/// What placing an order is called among the requests with a key.
const OPERATION: &str = "POST /v1/orders";

pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list_orders, create_order))
        .routes(routes!(get_order))
}

/// Places an order at the prices of this moment and has it paid, or says what is missing.
#[utoipa::path(post, path = "/", tag = "orders", extensions(("x-criticality" = json!("critical_plus"))),
    params(IdempotencyKey),
    request_body = NewOrder,
    responses((status = 201, body = Order, headers(("idempotency-expires" = String), ("idempotent-replayed" = Option<String>))),
        (status = 400), (status = 401), (status = 402), (status = 403), (status = 409), (status = 422)))]
async fn create_order(
    session: Session,
    State(checkout): State<Checkout>,
    db: Db,
    caller: Caller,
    new: Keyed<NewOrder>,
) -> ApiResult<Outcome> {
    checkout.order(&session, &db, &caller, new).await
}

/// The caller's orders, newest first.
#[utoipa::path(get, path = "/", tag = "orders", extensions(("x-criticality" = json!("critical"))),
    params(OrderFilter),
    responses((status = 200, body = Page<Order>, headers(("degraded" = Option<String>,
        description = "`order_products_off`: without the products that were to be included"))),
        (status = 400), (status = 401), (status = 422)))]
async fn list_orders(
    session: Session,
    State(flags): State<Flags>,
    db: Db,
    Query(filter): Query<OrderFilter>,
) -> ApiResult<Response> {
    let orders = store::list(&db.shard(session.user_id).read(), &filter).await?;

    let mut page = Page::cut(orders, filter.limit, |last| last.id);
    let included = include(&filter.include, &flags, &db, &mut page.items).await?;
    Ok(answer(Body(page), included))
}

/// One of the caller's orders.
#[utoipa::path(get, path = "/{id}", tag = "orders", extensions(("x-criticality" = json!("critical"))),
    params(("id" = Uuid, Path), OrderParts),
    responses((status = 200, body = Order, headers(("degraded" = Option<String>,
        description = "`order_products_off`: without the products that were to be included"))),
        (status = 400), (status = 401), (status = 404)))]
async fn get_order(
    session: Session,
    State(flags): State<Flags>,
    db: Db,
    Path(id): Path<Uuid>,
    Query(parts): Query<OrderParts>,
) -> ApiResult<Response> {
    let mut order = find(&session, &db, id).await?;

    let included = include(
        &parts.include,
        &flags,
        &db,
        std::slice::from_mut(&mut order),
    )
    .await?;
    Ok(answer(Body(order), included))
}

async fn find(session: &Session, db: &Db, id: Uuid) -> ApiResult<Order> {
    let order = store::find(&db.shard(session.user_id).read(), id).await?;
    order.ok_or(ApiError::NotFound)
}

/// Whether orders come with all that was to be included.
#[derive(Clone, Copy, PartialEq)]
enum Included {
    All,
    NoProducts,
}

fn answer(body: impl IntoResponse, included: Included) -> Response {
    let mut response = body.into_response();
    if included == Included::NoProducts {
        degraded::mark(&mut response, Degradation::OrderProductsOff);
    }
    response
}

/// Loads what is to be included for all `orders` at once, at most 100 of 50 lines each. Products by a statement of their
/// own and no join, because they need not be where a customer's orders are; and from a replica, for the catalogue shows
/// nothing fresher.
async fn include(
    include: &Include<Relation>,
    flags: &Flags,
    db: &Db,
    orders: &mut [Order],
) -> ApiResult<Included> {
    if include.has(&Relation::Products) && !flags.is_on(Flag::OrderProducts) {
        return Ok(Included::NoProducts);
    }
    let lines = orders.iter().flat_map(|order| &order.lines);
    let ids = lines.map(|line| line.product_id);
    let offers = include
        .load(Relation::Products, ids, async |ids| {
            products::offers(&db.read(), &ids).await
        })
        .await?;
    if let Some(offers) = offers {
        for order in orders {
            order.include_products(&offers);
        }
    }
    Ok(Included::All)
}
