//! The catalogue over gRPC: the same products, by the same functions.

use data::feed::Delivery;
use futures::{StreamExt, stream, stream::BoxStream};
use resilience::Criticality::SheddablePlus;
use tonic::{Code, Request, Response, Status};
use uuid::Uuid;

use super::{
    ProductCache,
    model::{Fields, Product, ProductFilter, Sort, default_limit},
    page,
    told::Stock,
};
use crate::{
    features::live::{Close, Live, OpenStream, Topic, Visitor, Word},
    http::{
        ApiError, ApiResult, Db,
        degraded::Degradation,
        extract::validated,
        grpc::{Call, Rpcs, mark, reads, status, timestamp},
        page::{Cursor, NO_CURSOR},
    },
    proto::catalog::v1::{
        self as proto, GetProductRequest, ListProductsRequest, ListProductsResponse, StockChange,
        WatchStockRequest, WatchStockResponse,
        catalog_server::{Catalog, CatalogServer},
        watch_stock_response::Event,
    },
    state::AppState,
};

pub fn rpcs(state: &AppState) -> Rpcs {
    let service = CatalogServer::new(Service(state.clone()))
        .max_decoding_message_size(state.grpc.request_bytes_max)
        .max_encoding_message_size(state.grpc.response_bytes_max);
    Rpcs::of(
        &service,
        [
            reads("GetProduct", SheddablePlus),
            reads("ListProducts", SheddablePlus),
            reads("WatchStock", SheddablePlus),
        ],
    )
}

struct Service(AppState);

#[tonic::async_trait]
impl Catalog for Service {
    async fn get_product(
        &self,
        request: Request<GetProductRequest>,
    ) -> Result<Response<proto::Product>, Status> {
        Ok(get_product(Call::of(request, &self.0)).await?)
    }

    async fn list_products(
        &self,
        request: Request<ListProductsRequest>,
    ) -> Result<Response<ListProductsResponse>, Status> {
        Ok(list_products(Call::of(request, &self.0)).await?)
    }

    type WatchStockStream = BoxStream<'static, Result<WatchStockResponse, Status>>;

    async fn watch_stock(
        &self,
        request: Request<WatchStockRequest>,
    ) -> Result<Response<Self::WatchStockStream>, Status> {
        Ok(watch_stock(Call::of(request, &self.0)).await?)
    }
}

/// One product, possibly a few seconds old.
async fn get_product(mut call: Call<GetProductRequest>) -> ApiResult<Response<proto::Product>> {
    let db: Db = call.extract().await?;
    let cache: ProductCache = call.state();
    let id: Uuid = call.message.id.parse().map_err(|_| ApiError::NotFound)?;
    let found = cache.find(&db, id).await?.ok_or(ApiError::NotFound)?;

    let mut response = Response::new(message(&found.product));
    if found.is_degraded() {
        mark(&mut response, Degradation::Stale);
    }
    Ok(response)
}

/// A page of the catalogue, in one of four orders, of one category or of what a search finds.
async fn list_products(
    mut call: Call<ListProductsRequest>,
) -> ApiResult<Response<ListProductsResponse>> {
    let db: Db = call.extract().await?;
    let filter = validated(filter(call.message)?)?;
    let page = page(&db, &filter).await?;

    Ok(Response::new(ListProductsResponse {
        products: page.items.iter().map(message).collect(),
        next_cursor: page.next_cursor.unwrap_or_default(),
    }))
}

/// What is left of products, told as it changes.
async fn watch_stock(
    mut call: Call<WatchStockRequest>,
) -> ApiResult<Response<<Service as Catalog>::WatchStockStream>> {
    let visitor: Visitor = call.extract().await?;
    let live: Live = call.state();
    let open = live
        .hear(Topic::Stock, &call.message.resume, visitor)
        .await?;

    let told = stream::unfold(open, |mut open| async move {
        let word = open.next().await?;
        Some((told(&open, &word), open))
    });
    Ok(Response::new(told.boxed()))
}

fn told(open: &OpenStream, word: &Word) -> Result<WatchStockResponse, Status> {
    let event = match word {
        Word::Hello { .. } | Word::Token | Word::Nothing => None,
        Word::Delivery(Delivery::Refetch { .. }) => Some(Event::Refetch(())),
        Word::Delivery(Delivery::Message { message, .. }) => Some(Event::Change(change(message)?)),
        Word::Goodbye(Close::Restart) => return Err(status::restarts(open.reconnect_after())),
        Word::Goodbye(close) => {
            let detail = "the client does not read as fast as things happen";
            return Err(status::cut(Code::ResourceExhausted, close.reason(), detail));
        }
    };
    Ok(WatchStockResponse {
        token: open.token(),
        event,
    })
}

fn change(message: &data::feed::Message) -> ApiResult<StockChange> {
    let change: Stock = serde_json::from_str(&message.body).map_err(ApiError::internal)?;
    Ok(StockChange {
        event_id: message.id.to_string(),
        product_id: change.product_id.to_string(),
        stock: change.stock,
    })
}

/// What an empty field means is what the query has when it is absent.
fn filter(request: ListProductsRequest) -> ApiResult<ProductFilter> {
    let given = |text: String| (!text.is_empty()).then_some(text);
    let sort = match request.sort() {
        proto::Sort::Unspecified => None,
        proto::Sort::Newest => Some(Sort::Newest),
        proto::Sort::Cheapest => Some(Sort::Cheapest),
        proto::Sort::Dearest => Some(Sort::Dearest),
        proto::Sort::Name => Some(Sort::Name),
    };
    let cursor = given(request.cursor)
        .map(|text| Cursor::parse(&text).ok_or_else(|| ApiError::field("cursor", NO_CURSOR)));
    Ok(ProductFilter {
        q: given(request.q),
        category: given(request.category),
        sort,
        limit: match request.limit {
            0 => default_limit(),
            limit => u16::try_from(limit).unwrap_or(u16::MAX),
        },
        cursor: cursor.transpose()?,
        fields: Fields::summary(),
    })
}

fn message(product: &Product) -> proto::Product {
    proto::Product {
        id: product.id.to_string(),
        sku: product.sku.clone(),
        name: product.name.clone(),
        description: product.description.clone(),
        category: product.category.clone(),
        price_cents: product.price_cents,
        stock: product.stock,
        version: product.version,
        created_at: Some(timestamp(product.created_at)),
        updated_at: Some(timestamp(product.updated_at)),
    }
}
