//! What others hear of orders.

use data::outbox::NewEvent;
use serde_json::json;
use uuid::Uuid;

use super::model::Order;
use crate::features::products::{self, Sold};

/// What has become of a customer's order, to be told with the change.
pub fn order(customer_id: Uuid, order: &Order) -> NewEvent {
    NewEvent {
        topic: "orders",
        key: customer_id,
        body: json!({ "order_id": order.id, "status": order.status, "total_cents": order.total_cents }),
    }
}

/// That an order is with the warehouse. Told of like a status, which it is to the customer.
pub fn fulfilled(customer_id: Uuid, order: &Order) -> NewEvent {
    NewEvent {
        topic: "orders",
        key: customer_id,
        body: json!({ "order_id": order.id, "status": "fulfilled", "total_cents": order.total_cents }),
    }
}

/// What is left of what was sold.
pub fn stock(sold: &[Sold]) -> Vec<NewEvent> {
    let left = |sold: &Sold| products::stock(sold.id, sold.stock);
    sold.iter().map(left).collect()
}
