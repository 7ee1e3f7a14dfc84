//! What others hear of products.

use data::{
    outbox::{self, NewEvent},
    postgres::Tx,
};
use serde_json::json;
use uuid::Uuid;

use super::store;

/// What is left of a product, to be told with the change.
pub fn stock(id: Uuid, stock: i32) -> NewEvent {
    NewEvent {
        topic: "stock",
        key: id,
        body: json!({ "product_id": id, "stock": stock }),
    }
}

/// Gives pieces back to the stock, and says so.
pub async fn give_back(tx: &mut Tx, ids: &[Uuid], quantities: &[i32]) -> Result<(), data::Error> {
    let left = store::give_back(tx, ids, quantities).await?;
    outbox::emit(tx, left.into_iter().map(|(id, left)| stock(id, left))).await
}
