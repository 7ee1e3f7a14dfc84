//! The catalogue: customers read it, staff keeps it.

mod cache;
mod jobs;
mod model;
mod rpc;
mod store;
mod told;

#[cfg(test)]
mod http_tests;
#[cfg(test)]
mod rpc_http_tests;

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use data::{
    idempotency::{Answer, Claim},
    outbox,
    postgres::Writer,
};
use http::{HeaderValue, StatusCode, header};
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

pub use cache::ProductCache;
pub use jobs::register;
pub use rpc::rpcs;
pub use store::{Offer, Sold, offers, stock_of, take_stock};
pub use told::{give_back, stock};

use self::model::{NewProduct, Product, ProductFields, ProductFilter};
use crate::{
    http::{
        ApiError, ApiResult, Body, Db, Keyed, Path, Query,
        conditional::{self, ETag, IfNoneMatch, Versions},
        degraded::{self, Degradation},
        idempotency::{self, IdempotencyKey, Outcome},
        page::Page,
        session::Staff,
    },
    state::AppState,
};

pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list_products, create_product))
        .routes(routes!(get_product, update_product))
}

/// The catalogue is the same for everyone, and a price a few seconds old harms nobody: the order decides.
const CACHE_CONTROL: &str = "public, max-age=5, stale-while-revalidate=30";

/// A page of the catalogue, in one of four orders, of one category or of what a search finds.
#[utoipa::path(get, path = "/", tag = "products", extensions(("x-criticality" = json!("sheddable_plus"))),
    params(ProductFilter),
    responses((status = 200, body = Page<Product>), (status = 304), (status = 400), (status = 422)))]
async fn list_products(
    db: Db,
    Query(filter): Query<ProductFilter>,
    if_none_match: IfNoneMatch,
) -> ApiResult<Response> {
    let page = page(&db, &filter).await?;

    let items = page
        .items
        .iter()
        .map(|product| product.only(&filter.fields))
        .collect();
    let body = conditional::json(&Page {
        items,
        next_cursor: page.next_cursor,
    })?;
    Ok(if_none_match.respond(&ETag::body(&body), CACHE_CONTROL, body))
}

async fn page(db: &Db, filter: &ProductFilter) -> ApiResult<Page<Product>> {
    let position = filter.position()?;
    let rows = store::list(&db.read(), filter, &position).await?;
    Ok(Page::cut(rows, filter.limit, |last| position.after(last)))
}

/// One product, possibly a few seconds old.
#[utoipa::path(get, path = "/{id}", tag = "products", extensions(("x-criticality" = json!("sheddable_plus"))),
    params(("id" = Uuid, Path), ProductFields),
    responses((status = 200, body = Product, headers(("degraded" = Option<String>,
        description = "`stale`: older than usual, because it cannot be read now"))),
        (status = 304), (status = 400), (status = 404)))]
async fn get_product(
    State(cache): State<ProductCache>,
    db: Db,
    Path(id): Path<Uuid>,
    Query(shown): Query<ProductFields>,
    if_none_match: IfNoneMatch,
) -> ApiResult<Response> {
    let found = cache.find(&db, id).await?.ok_or(ApiError::NotFound)?;

    let body = match &shown.fields {
        None => found.json(),
        Some(fields) => conditional::json(&found.product.only(fields))?.into(),
    };
    let mut response = if_none_match.respond(&found.etag, CACHE_CONTROL, body);
    if found.is_degraded() {
        degraded::mark(&mut response, Degradation::Stale);
    }
    Ok(response)
}

/// Adds a product. Staff only.
#[utoipa::path(post, path = "/", tag = "products", extensions(("x-criticality" = json!("critical"))),
    params(IdempotencyKey),
    request_body = NewProduct,
    responses((status = 201, body = Product, headers(("idempotency-expires" = String), ("idempotent-replayed" = Option<String>))),
        (status = 400), (status = 401), (status = 403), (status = 409), (status = 422)))]
async fn create_product(
    Staff(session): Staff,
    State(cache): State<ProductCache>,
    db: Db,
    new: Keyed<NewProduct>,
) -> ApiResult<Outcome> {
    new.once(&db, session.user_id, async |new, claim| {
        let (product, answer) = insert(&db, claim, &new).await?;
        cache.put(&db, &product).await;
        Ok(answer)
    })
    .await
}

async fn insert(db: &Db, claim: &Claim, new: &NewProduct) -> ApiResult<(Product, Answer)> {
    let home = db.write();
    home.transaction(|mut tx| async move {
        let product = store::insert(&mut tx, new).await.map_err(sku_taken)?;
        let answer = created(&product)?;
        claim.finish(&mut tx, &answer).await?;
        Ok(tx.commit((product, answer)).await?)
    })
    .await
}

fn created(product: &Product) -> ApiResult<Answer> {
    let location = HeaderValue::try_from(format!("/v1/products/{}", product.id))
        .map_err(ApiError::internal)?;
    let head = [
        (header::LOCATION, location),
        (header::ETAG, product.etag().header()),
    ];
    idempotency::json(StatusCode::CREATED, head, product)
}

/// Replaces a product that has not changed since it was read (`If-Match`). Staff only.
#[utoipa::path(put, path = "/{id}", tag = "products", extensions(("x-criticality" = json!("critical"))),
    params(("id" = Uuid, Path), ("if-match" = String, Header)),
    request_body = NewProduct,
    responses((status = 200, body = Product), (status = 401), (status = 403), (status = 404), (status = 409),
        (status = 412), (status = 422), (status = 428)))]
async fn update_product(
    _: Staff,
    State(cache): State<ProductCache>,
    db: Db,
    target: (Path<Uuid>, Versions),
    Body(new): Body<NewProduct>,
) -> ApiResult<Response> {
    let (Path(id), versions) = target;
    let writer = db.write();
    let Some(product) = replace(&writer, id, &versions, &new).await? else {
        store::find(&writer.reader(), id)
            .await?
            .ok_or(ApiError::NotFound)?;
        // What the client has seen may have come from the cache, which must not tell it the same again.
        cache.forget(&db, [id]).await;
        return Err(Versions::mismatch());
    };

    cache.put(&db, &product).await;
    Ok(([(header::ETAG, product.etag().header())], Body(product)).into_response())
}

async fn replace(
    home: &Writer,
    id: Uuid,
    versions: &Versions,
    new: &NewProduct,
) -> ApiResult<Option<Product>> {
    home.transaction(|mut tx| async move {
        let product = store::update(&mut tx, id, versions, new).await;
        let product = product.map_err(sku_taken)?;
        let left = product.iter().map(|product| stock(id, product.stock));
        outbox::emit(&mut tx, left).await?;
        Ok(tx.commit(product).await?)
    })
    .await
}

fn sku_taken(error: data::Error) -> ApiError {
    match error.constraint() {
        Some("products_sku_key") => ApiError::conflict("sku_taken", "another product has this sku"),
        _ => error.into(),
    }
}
