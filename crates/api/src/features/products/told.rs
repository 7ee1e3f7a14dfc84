//! What others hear of products.

use data::{
    outbox::{self, NewEvent},
    postgres::Tx,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::store;
use crate::features::live::Topic;

/// What is left of a product.
#[derive(Debug, Serialize, Deserialize)]
pub struct Stock {
    pub product_id: Uuid,
    pub stock: i32,
}

/// What is left of a product, to be told with the change.
pub fn stock(product_id: Uuid, stock: i32) -> NewEvent {
    let body = Stock { product_id, stock };
    NewEvent {
        topic: Topic::Stock.name(),
        key: product_id,
        body: serde_json::to_value(body).expect("two fields with names"),
    }
}

/// Gives pieces back to the stock, and says so.
pub async fn give_back(tx: &mut Tx, ids: &[Uuid], quantities: &[i32]) -> Result<(), data::Error> {
    let left = store::give_back(tx, ids, quantities).await?;
    outbox::emit(tx, left.into_iter().map(|(id, left)| stock(id, left))).await
}
