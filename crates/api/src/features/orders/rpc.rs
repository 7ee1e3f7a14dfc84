//! Orders over gRPC: placed and found by the same functions, and under the same keys.

use resilience::Criticality::{Critical, CriticalPlus};
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::{
    Checkout, OPERATION, find,
    model::{self, NewLine, NewOrder},
};
use crate::{
    http::{
        ApiError, ApiResult, Caller, Db,
        error::FieldError,
        grpc::{Call, Rpcs, kept, reads, timestamp, writes},
        idempotency::Outcome,
        session::Session,
    },
    proto::orders::v1::{
        CreateOrderRequest, GetOrderRequest, Order, create_order_request, order,
        orders_server::{Orders, OrdersServer},
    },
    state::AppState,
};

pub fn rpcs(state: &AppState) -> Rpcs {
    let service = OrdersServer::new(Service(state.clone()))
        .max_decoding_message_size(state.grpc.request_bytes_max)
        .max_encoding_message_size(state.grpc.response_bytes_max);
    Rpcs::of(
        &service,
        [
            writes("CreateOrder", CriticalPlus),
            reads("GetOrder", Critical),
        ],
    )
}

struct Service(AppState);

#[tonic::async_trait]
impl Orders for Service {
    async fn create_order(
        &self,
        request: Request<CreateOrderRequest>,
    ) -> Result<Response<Order>, Status> {
        kept::<model::Order, _>(create_order(Call::of(request, &self.0)).await?)
    }

    async fn get_order(
        &self,
        request: Request<GetOrderRequest>,
    ) -> Result<Response<Order>, Status> {
        Ok(get_order(Call::of(request, &self.0)).await?)
    }
}

/// Places an order at the prices of this moment and has it paid, or says what is missing.
async fn create_order(mut call: Call<CreateOrderRequest>) -> ApiResult<Outcome> {
    let session: Session = call.extract().await?;
    let (db, caller): (Db, Caller) = (call.extract().await?, call.extract().await?);
    let checkout: Checkout = call.state();
    let new = call.keyed(OPERATION, new_order(&call.message)?)?;
    checkout.order(&session, &db, &caller, new).await
}

/// One of the caller's orders.
async fn get_order(mut call: Call<GetOrderRequest>) -> ApiResult<Response<Order>> {
    let session: Session = call.extract().await?;
    let db: Db = call.extract().await?;
    let id: Uuid = call.message.id.parse().map_err(|_| ApiError::NotFound)?;
    let order = find(&session, &db, id).await?;

    Ok(Response::new(order.into()))
}

fn new_order(request: &CreateOrderRequest) -> ApiResult<NewOrder> {
    let line = |(number, line): (usize, &create_order_request::Line)| {
        let product_id = line.product_id.parse().map_err(|_| FieldError {
            field: format!("lines[{number}].product_id"),
            detail: "must be the id of a product".to_owned(),
        })?;
        Ok(NewLine {
            product_id,
            quantity: line.quantity,
        })
    };
    let lines: Result<_, FieldError> = request.lines.iter().enumerate().map(line).collect();
    let lines = lines.map_err(|error| ApiError::unprocessable(vec![error]))?;
    Ok(NewOrder { lines })
}

impl From<model::Order> for Order {
    fn from(order: model::Order) -> Self {
        let status = match order.status {
            model::Status::Placed => order::Status::Placed,
            model::Status::Paid => order::Status::Paid,
            model::Status::Cancelled => order::Status::Cancelled,
        };
        let line = |line: model::OrderLine| order::Line {
            product_id: line.product_id.to_string(),
            name: line.name,
            quantity: line.quantity,
            price_cents: line.price_cents,
        };
        Self {
            id: order.id.to_string(),
            status: status.into(),
            total_cents: order.total_cents,
            created_at: Some(timestamp(order.created_at)),
            lines: order.lines.into_iter().map(line).collect(),
        }
    }
}
