//! Every statement on `orders` and `order_lines`. Each names the customer: somebody else's order does not exist.

use std::collections::HashMap;

use data::postgres::{Reader, Tx, Writer};
use time::OffsetDateTime;
use uuid::Uuid;

use super::model::{NewLine, NewOrder, Order, OrderError, OrderFilter, OrderLine, Shortage};
use crate::{
    features::products::{self, Sold},
    http::page::Cursor,
};

/// Takes the stock and keeps the order, or neither.
pub async fn insert(db: &Writer, customer_id: Uuid, new: &NewOrder) -> Result<Order, OrderError> {
    db.transaction(|mut tx| async move {
        let sold = take(&mut tx, new).await?;
        let order = insert_order(&mut tx, customer_id, receipt(new, &sold)).await?;
        insert_lines(&mut tx, customer_id, &order).await?;
        Ok(tx.commit(order).await?)
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

async fn insert_order(
    tx: &mut Tx,
    customer_id: Uuid,
    lines: Vec<OrderLine>,
) -> Result<Order, data::Error> {
    let id = Uuid::now_v7();
    let total_cents: i64 = lines
        .iter()
        .map(|line| line.price_cents * i64::from(line.quantity))
        .sum();
    let kept = tx
        .fetch_one(sqlx::query!(
            "insert into orders (customer_id, id, total_cents) values ($1, $2, $3) returning status, created_at",
            customer_id,
            id,
            total_cents,
        ))
        .await?;
    Ok(Order {
        id,
        status: kept.status,
        total_cents,
        created_at: kept.created_at,
        lines,
    })
}

async fn insert_lines(tx: &mut Tx, customer_id: Uuid, order: &Order) -> Result<(), data::Error> {
    let ids: Vec<Uuid> = order.lines.iter().map(|line| line.product_id).collect();
    let names: Vec<String> = order.lines.iter().map(|line| line.name.clone()).collect();
    let quantities: Vec<i32> = order.lines.iter().map(|line| line.quantity).collect();
    let prices: Vec<i64> = order.lines.iter().map(|line| line.price_cents).collect();
    tx.execute(sqlx::query!(
        "insert into order_lines (customer_id, order_id, line_no, product_id, name, quantity, price_cents)
         select $1, $2, line.line_no, line.product_id, line.name, line.quantity, line.price_cents
         from unnest($3::uuid[], $4::text[], $5::int[], $6::bigint[])
              with ordinality as line (product_id, name, quantity, price_cents, line_no)",
        customer_id,
        order.id,
        &ids,
        &names,
        &quantities,
        &prices,
    ))
    .await?;
    Ok(())
}

pub async fn find(db: &Reader, customer_id: Uuid, id: Uuid) -> Result<Option<Order>, data::Error> {
    let order = db
        .fetch_optional(|| {
            sqlx::query_as!(
                OrderRow,
                "select id, status, total_cents, created_at from orders where customer_id = $1 and id = $2",
                customer_id,
                id,
            )
        })
        .await?;
    Ok(with_lines(db, customer_id, order.into_iter().collect())
        .await?
        .pop())
}

/// One page, newest first; one order more than asked for says that there is another page.
pub async fn list(
    db: &Reader,
    customer_id: Uuid,
    filter: &OrderFilter,
) -> Result<Vec<Order>, data::Error> {
    let before = filter.cursor.as_ref().map_or(Uuid::max(), |Cursor(id)| *id);
    let orders = db
        .fetch_all(|| {
            sqlx::query_as!(
                OrderRow,
                "select id, status, total_cents, created_at from orders
                 where customer_id = $1 and id < $2 order by id desc limit $3",
                customer_id,
                before,
                i64::from(filter.limit) + 1,
            )
        })
        .await?;
    with_lines(db, customer_id, orders).await
}

struct OrderRow {
    id: Uuid,
    status: String,
    total_cents: i64,
    created_at: OffsetDateTime,
}

/// Adds the lines of all `orders` with one statement, however many there are.
async fn with_lines(
    db: &Reader,
    customer_id: Uuid,
    orders: Vec<OrderRow>,
) -> Result<Vec<Order>, data::Error> {
    if orders.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<Uuid> = orders.iter().map(|order| order.id).collect();
    let rows = db
        .fetch_all(|| {
            sqlx::query!(
                "select order_id, product_id, name, quantity, price_cents from order_lines
                 where customer_id = $1 and order_id = any($2) order by order_id, line_no",
                customer_id,
                &ids,
            )
        })
        .await?;

    let mut lines: HashMap<Uuid, Vec<OrderLine>> = HashMap::with_capacity(orders.len());
    for row in rows {
        let line = OrderLine {
            product_id: row.product_id,
            name: row.name,
            quantity: row.quantity,
            price_cents: row.price_cents,
            product: None,
        };
        lines.entry(row.order_id).or_default().push(line);
    }
    let order = |OrderRow {
                     id,
                     status,
                     total_cents,
                     created_at,
                 }| {
        let lines = lines.remove(&id).unwrap_or_default();
        Order {
            id,
            status,
            total_cents,
            created_at,
            lines,
        }
    };
    Ok(orders.into_iter().map(order).collect())
}
