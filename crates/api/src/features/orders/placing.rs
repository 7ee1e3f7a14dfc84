//! Placing an order: the stock is at home, the order where its customer's rows are.
//!
//! On one cluster that is one transaction. On two there is none, so it is three steps, after each of which the stock is
//! neither lost nor sold twice: the stock is taken together with a hold that says for which order; the order is kept; the
//! hold is released. Whatever is cut off in between leaves a hold, which whoever resumes the order goes on from, and which
//! [`super::holds`] resolves if nobody does.

use std::collections::HashMap;

use data::{
    idempotency::Answer,
    outbox::{self, NewEvent},
    postgres::{Place, Reach, Tx},
};
use uuid::Uuid;

use super::{
    checkout::{Attempt, Checkout, Point, created, follow_up},
    model::{NewLine, NewOrder, Order, OrderError, OrderLine, Shortage, Stamp},
    store, told,
};
use crate::{
    features::products::{self, Sold},
    http::{ApiError, ApiResult},
};

/// Where an order stands once it is placed.
pub(super) enum Placed {
    /// All is done.
    Answered(Answer),
    /// It is to be paid.
    Unpaid(Order),
}

/// Where placing an order stands after its first transaction.
enum Taken {
    /// The order is kept with it.
    Kept(Placed),
    /// The stock is held for an order that another cluster is to keep.
    Held,
}

impl Checkout {
    /// Takes the stock and keeps the order, or neither.
    pub(super) async fn place(&self, at: Attempt<'_>, new: &NewOrder) -> ApiResult<Placed> {
        let id = Uuid::now_v7();
        let home = at.db.write();
        let (taken, lines) = home
            .transaction(|mut tx| async move {
                let sold = take(&mut tx, new).await?;
                let (lines, stock) = (receipt(new, &sold), told::stock(&sold));
                match tx.for_key(at.customer_id())? {
                    Reach::Here(mut tx) => {
                        let stamp = store::insert(&mut tx, id, &lines).await?;
                        let order = Order::new(id, stamp, lines.clone());
                        let placed = self.placed(&mut tx, at, order, stock).await?;
                        Ok::<_, ApiError>(tx.commit((Taken::Kept(placed), lines)).await?)
                    }
                    Reach::Elsewhere(mut tx) => {
                        store::insert_hold(&mut tx, id, at.customer_id(), &lines).await?;
                        at.claim.reach(&mut tx, &held(id, &lines)).await?;
                        outbox::emit(&mut tx, stock).await?;
                        Ok(tx.commit((Taken::Held, lines)).await?)
                    }
                }
            })
            .await?;
        self.forget(at, &lines).await;
        match taken {
            Taken::Kept(placed) => Ok(placed),
            Taken::Held => match keep(at, id, &lines).await {
                Ok(stamp) => self.release(at, id, stamp, lines).await,
                Err(error) => {
                    if !error.is_outcome_unknown()
                        && let Err(error) = give_back(at, id, &lines).await
                    {
                        tracing::debug!(%error, order_id = %id, "a hold is left to be resolved later");
                    }
                    Err(error.into())
                }
            },
        }
    }

    /// The order is kept: answers where that is all, or notes that it is to be paid. With the rest of the transaction, or not, as
    /// is said of it and of what else there is to tell.
    async fn placed<P: Place>(
        &self,
        tx: &mut Tx<P>,
        at: Attempt<'_>,
        order: Order,
        mut tell: Vec<NewEvent>,
    ) -> ApiResult<Placed> {
        tell.push(told::order(at.customer_id(), &order));
        outbox::emit(tx, tell).await?;
        if self.is_paid() {
            let point = Point::Placed { id: order.id };
            at.claim.reach(tx, &point).await?;
            return Ok(Placed::Unpaid(order));
        }
        let answer = created(&order)?;
        at.claim.finish(tx, &answer).await?;
        follow_up(tx, at, &order).await?;
        Ok(Placed::Answered(answer))
    }

    /// The order is kept elsewhere: releases its hold.
    async fn release(
        &self,
        at: Attempt<'_>,
        id: Uuid,
        stamp: Stamp,
        lines: Vec<OrderLine>,
    ) -> ApiResult<Placed> {
        let order = &Order::new(id, stamp, lines);
        let home = at.db.write();
        home.transaction(|mut tx| async move {
            store::release_hold(&mut tx, id).await?;
            let placed = self.placed(&mut tx, at, order.clone(), Vec::new());
            let placed = placed.await?;
            Ok(tx.commit(placed).await?)
        })
        .await
    }

    /// Goes on where stock was left held. Renewed, a hold is nobody else's to resolve for as long as a new one. If somebody has
    /// resolved it, the order is kept, or all begins anew.
    pub(super) async fn keep_held(
        &self,
        at: Attempt<'_>,
        id: Uuid,
        lines: Vec<OrderLine>,
    ) -> ApiResult<Placed> {
        if !store::renew_hold(&at.db.write(), id).await? {
            let shard = at.db.shard(at.customer_id()).write().reader();
            if store::find(&shard, id).await?.is_none() {
                return self.place(at, &NewOrder::again(&lines)).await;
            }
        }
        // Not given back when this fails: it may have been kept before.
        let stamp = keep(at, id, &lines).await?;
        self.release(at, id, stamp, lines).await
    }
}

/// Keeps an order on its customer's cluster.
async fn keep(at: Attempt<'_>, id: Uuid, lines: &[OrderLine]) -> Result<Stamp, data::Error> {
    let shard = at.db.shard(at.customer_id()).write();
    shard
        .transaction(|mut tx| async move {
            let stamp = store::insert(&mut tx, id, lines).await?;
            tx.commit(stamp).await
        })
        .await
}

/// Gives back what was held for an order that is not kept.
async fn give_back(at: Attempt<'_>, id: Uuid, lines: &[OrderLine]) -> Result<(), data::Error> {
    let home = at.db.write();
    home.transaction(|mut tx| async move {
        // Proves that nobody else has gone on with it meanwhile.
        at.claim.reach(&mut tx, &held(id, lines)).await?;
        if let Some(hold) = store::delete_hold(&mut tx, id).await? {
            products::give_back(&mut tx, &hold.product_ids, &hold.quantities).await?;
        }
        tx.commit(()).await
    })
    .await
}

fn held(id: Uuid, lines: &[OrderLine]) -> Point {
    Point::Held {
        id,
        lines: lines.to_vec(),
    }
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
            stock: _,
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
