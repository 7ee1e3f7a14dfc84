//! Placing an order: the stock is at home, the order where its customer's rows are.
//!
//! On one cluster that is one transaction. On two there is none, so it is three steps, after each of which the stock is
//! neither lost nor sold twice: the stock is taken together with a hold that says for which order; the order is kept; the
//! hold is released. Whatever is cut off in between leaves a hold, which [`super::holds`] resolves.

use std::collections::HashMap;

use data::postgres::{Db, Reach, Tx};
use uuid::Uuid;

use super::{
    model::{NewLine, NewOrder, Order, OrderError, OrderLine, Shortage, total_cents},
    store::{self, Stamp},
};
use crate::features::products::{self, Sold};

/// Where placing an order stands after its first transaction.
enum Taken {
    /// All is done.
    Kept(Stamp, Vec<OrderLine>),
    /// The stock is held for an order that another cluster is to keep.
    Held(Vec<OrderLine>),
}

/// Takes the stock and keeps the order, or neither.
pub async fn place(db: &Db, customer_id: Uuid, new: &NewOrder) -> Result<Order, OrderError> {
    let id = Uuid::now_v7();
    let home = db.write();
    let taken: Result<Taken, OrderError> = home
        .transaction(|mut tx| async move {
            let lines = receipt(new, &take(&mut tx, new).await?);
            match tx.for_key(customer_id)? {
                Reach::Here(mut tx) => {
                    let stamp = store::insert(&mut tx, id, &lines).await?;
                    Ok(tx.commit(Taken::Kept(stamp, lines)).await?)
                }
                Reach::Elsewhere(mut tx) => {
                    store::insert_hold(&mut tx, id, customer_id, &lines).await?;
                    Ok(tx.commit(Taken::Held(lines)).await?)
                }
            }
        })
        .await;
    let (stamp, lines) = match taken? {
        Taken::Kept(stamp, lines) => (stamp, lines),
        Taken::Held(lines) => (keep(db, customer_id, id, &lines).await?, lines),
    };
    Ok(Order {
        id,
        status: stamp.status,
        total_cents: total_cents(&lines),
        created_at: stamp.created_at,
        lines,
    })
}

/// Keeps an order whose stock is held, and releases the hold, or gives the stock back.
async fn keep(
    db: &Db,
    customer_id: Uuid,
    id: Uuid,
    lines: &[OrderLine],
) -> Result<Stamp, data::Error> {
    let shard = db.shard(customer_id).write();
    let kept = shard
        .transaction(|mut tx| async move {
            let stamp = store::insert(&mut tx, id, lines).await?;
            tx.commit(stamp).await
        })
        .await;
    let resolved = match &kept {
        Ok(_) => store::release_hold(&db.write(), id).await,
        Err(error) if error.is_outcome_unknown() => Ok(()),
        Err(_) => give_back(db, id).await,
    };
    if let Err(error) = resolved {
        // The order stands or does not, whatever becomes of the hold.
        tracing::debug!(%error, order_id = %id, "a hold is left to be resolved later");
    }
    kept
}

async fn give_back(db: &Db, order_id: Uuid) -> Result<(), data::Error> {
    let home = db.write();
    home.transaction(|mut tx| async move {
        if let Some(hold) = store::delete_hold(&mut tx, order_id).await? {
            products::give_back(&mut tx, &hold.product_ids, &hold.quantities).await?;
        }
        tx.commit(()).await
    })
    .await
}

async fn take(tx: &mut Tx, new: &NewOrder) -> Result<Vec<Sold>, OrderError> {
    let ids: Vec<Uuid> = new.lines.iter().map(|line| line.product_id).collect();
    let quantities: Vec<i32> = new.lines.iter().map(|line| line.quantity).collect();

    let taken = products::take_stock(tx, &ids, &quantities).await?;
    if taken.len() == ids.len() {
        return Ok(taken);
    }
    let missing: Vec<Uuid> = ids
        .into_iter()
        .filter(|id| taken.iter().all(|sold| sold.id != *id))
        .collect();
    let stock = products::stock_of(tx, &missing).await?;
    Err(refusal(new, &missing, &stock.into_iter().collect()))
}

/// Why the `missing` products could not be taken.
fn refusal(new: &NewOrder, missing: &[Uuid], stock: &HashMap<Uuid, i32>) -> OrderError {
    let mut unknown = Vec::new();
    let mut shortages = Vec::new();
    for (number, line) in new
        .lines
        .iter()
        .enumerate()
        .filter(|(_, line)| missing.contains(&line.product_id))
    {
        match stock.get(&line.product_id) {
            None => unknown.push(number),
            Some(&left) => shortages.push(Shortage {
                product_id: line.product_id,
                wanted: line.quantity,
                left,
            }),
        }
    }
    if unknown.is_empty() {
        OrderError::OutOfStock(shortages)
    } else {
        OrderError::UnknownProducts(unknown)
    }
}

/// The lines with the names and prices of this moment, in the order the customer sent them.
fn receipt(new: &NewOrder, sold: &[Sold]) -> Vec<OrderLine> {
    let sold: HashMap<Uuid, &Sold> = sold.iter().map(|sold| (sold.id, sold)).collect();
    let line = |line: &NewLine| {
        let Sold {
            id,
            name,
            price_cents,
        } = sold.get(&line.product_id)?;
        Some(OrderLine {
            product_id: *id,
            name: name.clone(),
            quantity: line.quantity,
            price_cents: *price_cents,
            product: None,
        })
    };
    new.lines.iter().filter_map(line).collect()
}
