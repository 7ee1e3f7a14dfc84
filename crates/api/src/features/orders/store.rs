//! Every statement on `orders`, `order_lines`, `stock_holds`, `order_notices`, `order_fulfilments` and
//! `order_reports`. What is about a customer's rows asks the handle whose they
//! are, so it names the customer it was sent to: somebody else's order does not exist.

use std::collections::HashMap;

use data::postgres::{Reader, Shard, Tx, Writer};
use time::{Date, OffsetDateTime};
use uuid::Uuid;

use super::model::{Order, OrderFilter, OrderLine, Stamp, Status, pieces, total_cents};
use crate::http::page::Cursor;

/// Keeps an order with its lines, if it is not kept yet.
pub async fn insert(
    tx: &mut Tx<Shard>,
    id: Uuid,
    lines: &[OrderLine],
) -> Result<Stamp, data::Error> {
    let customer_id = tx.key();
    let stamp = tx
        .fetch_optional(sqlx::query_as!(
            Stamp,
            r#"insert into orders (customer_id, id, total_cents) values ($1, $2, $3) on conflict do nothing
               returning status as "status: Status", created_at"#,
            customer_id,
            id,
            total_cents(lines),
        ))
        .await?;
    if let Some(stamp) = stamp {
        insert_lines(tx, id, lines).await?;
        return Ok(stamp);
    }
    tx.fetch_one(sqlx::query_as!(
        Stamp,
        r#"select status as "status: Status", created_at from orders where customer_id = $1 and id = $2"#,
        customer_id,
        id,
    ))
    .await
}

/// An order that is placed has come to its end. One that has does not change any more.
pub async fn set_status(tx: &mut Tx<Shard>, id: Uuid, status: Status) -> Result<(), data::Error> {
    let customer_id = tx.key();
    tx.execute(sqlx::query!(
        "update orders set status = $3 where customer_id = $1 and id = $2 and status = 'placed'",
        customer_id,
        id,
        status as Status,
    ))
    .await
    .map(drop)
}

/// Notes that the customer was told that an order stands.
pub async fn insert_notice(tx: &mut Tx, order_id: Uuid) -> Result<(), data::Error> {
    tx.execute(sqlx::query!(
        "insert into order_notices (order_id, kind) values ($1, 'confirmed')",
        order_id,
    ))
    .await
    .map(drop)
}

/// Hands an order to the warehouse.
pub async fn insert_fulfilment(
    tx: &mut Tx,
    customer_id: Uuid,
    order: &Order,
) -> Result<(), data::Error> {
    let pieces: i64 = order
        .lines
        .iter()
        .map(|line| i64::from(line.quantity))
        .sum();
    tx.execute(sqlx::query!(
        "insert into order_fulfilments (order_id, customer_id, pieces) values ($1, $2, $3)",
        order.id,
        customer_id,
        pieces,
    ))
    .await
    .map(drop)
}

/// How many customers were told in that time that an order stands.
pub async fn count_notices(
    db: &Reader,
    from: OffsetDateTime,
    to: OffsetDateTime,
) -> Result<i64, data::Error> {
    db.fetch_one(|| {
        sqlx::query_scalar!(
            r#"select count(*) as "count!" from order_notices where created_at >= $1 and created_at < $2"#,
            from,
            to,
        )
    })
    .await
}

/// Keeps the report of a day, in the place of an earlier one.
pub async fn put_report(tx: &mut Tx, day: Date, orders: i64) -> Result<(), data::Error> {
    tx.execute(sqlx::query!(
        "insert into order_reports (day, orders) values ($1, $2)
         on conflict (day) do update set orders = excluded.orders, made_at = now()",
        day,
        orders,
    ))
    .await
    .map(drop)
}

async fn insert_lines(
    tx: &mut Tx<Shard>,
    order_id: Uuid,
    lines: &[OrderLine],
) -> Result<(), data::Error> {
    let customer_id = tx.key();
    let (ids, quantities) = pieces(lines);
    let names: Vec<String> = lines.iter().map(|line| line.name.clone()).collect();
    let prices: Vec<i64> = lines.iter().map(|line| line.price_cents).collect();
    tx.execute(sqlx::query!(
        "insert into order_lines (customer_id, order_id, line_no, product_id, name, quantity, price_cents)
         select $1, $2, line.line_no, line.product_id, line.name, line.quantity, line.price_cents
         from unnest($3::uuid[], $4::text[], $5::int[], $6::bigint[])
              with ordinality as line (product_id, name, quantity, price_cents, line_no)",
        customer_id,
        order_id,
        &ids,
        &names,
        &quantities,
        &prices,
    ))
    .await?;
    Ok(())
}

pub async fn find(db: &Reader<Shard>, id: Uuid) -> Result<Option<Order>, data::Error> {
    let customer_id = db.key();
    let order = db
        .fetch_optional(|| {
            sqlx::query_as!(
                OrderRow,
                r#"select id, status as "status: Status", total_cents, created_at from orders
                   where customer_id = $1 and id = $2"#,
                customer_id,
                id,
            )
        })
        .await?;
    Ok(with_lines(db, order.into_iter().collect()).await?.pop())
}

/// One page, newest first; one order more than asked for says that there is another page.
pub async fn list(db: &Reader<Shard>, filter: &OrderFilter) -> Result<Vec<Order>, data::Error> {
    let customer_id = db.key();
    let before = filter.cursor.as_ref().map_or(Uuid::max(), |Cursor(id)| *id);
    let orders = db
        .fetch_all(|| {
            sqlx::query_as!(
                OrderRow,
                r#"select id, status as "status: Status", total_cents, created_at from orders
                   where customer_id = $1 and id < $2 order by id desc limit $3"#,
                customer_id,
                before,
                i64::from(filter.limit) + 1,
            )
        })
        .await?;
    with_lines(db, orders).await
}

struct OrderRow {
    id: Uuid,
    status: Status,
    total_cents: i64,
    created_at: OffsetDateTime,
}

/// Adds the lines of all `orders` with one statement, however many there are.
async fn with_lines(db: &Reader<Shard>, orders: Vec<OrderRow>) -> Result<Vec<Order>, data::Error> {
    if orders.is_empty() {
        return Ok(Vec::new());
    }
    let customer_id = db.key();
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

/// Whether the customer has this order. Asked by trying to take its place and undoing that: the unique key makes it wait for
/// a transaction that is just committing it, which a `select` does not see.
pub async fn is_kept(db: &Writer<Shard>, id: Uuid) -> Result<bool, data::Error> {
    let tried: Result<(), Tried> = db
        .transaction(|mut tx| async move {
            let customer_id = tx.key();
            let taken = tx
                .execute(sqlx::query!(
                    "insert into orders (customer_id, id, total_cents) values ($1, $2, 0) on conflict do nothing",
                    customer_id,
                    id,
                ))
                .await?;
            Err(Tried::Undone(taken))
        })
        .await;
    match tried {
        Ok(()) => Ok(false),
        Err(Tried::Undone(taken)) => Ok(taken == 0),
        Err(Tried::Failed(error)) => Err(error),
    }
}

/// Why nothing was committed.
enum Tried {
    /// On purpose, after so many rows were inserted.
    Undone(u64),
    Failed(data::Error),
}

impl From<data::Error> for Tried {
    fn from(error: data::Error) -> Self {
        Self::Failed(error)
    }
}

/// Stock that was taken for an order on another cluster.
pub struct Hold {
    pub order_id: Uuid,
    pub customer_id: Uuid,
    pub product_ids: Vec<Uuid>,
    pub quantities: Vec<i32>,
}

/// Remembers for which order stock is being taken.
pub async fn insert_hold(
    tx: &mut Tx,
    order_id: Uuid,
    customer_id: Uuid,
    lines: &[OrderLine],
) -> Result<(), data::Error> {
    let (ids, quantities) = pieces(lines);
    tx.execute(sqlx::query!(
        "insert into stock_holds (order_id, customer_id, product_ids, quantities) values ($1, $2, $3, $4)",
        order_id,
        customer_id,
        &ids,
        &quantities,
    ))
    .await?;
    Ok(())
}

/// Has a hold count as just made. False when there is none any more.
pub async fn renew_hold(db: &Writer, order_id: Uuid) -> Result<bool, data::Error> {
    let renewed = db
        .execute(|| {
            sqlx::query!(
                "update stock_holds set created_at = now() where order_id = $1",
                order_id
            )
        })
        .await?;
    Ok(renewed > 0)
}

/// Forgets a hold whose order is kept.
pub async fn release_hold(tx: &mut Tx, order_id: Uuid) -> Result<(), data::Error> {
    tx.execute(sqlx::query!(
        "delete from stock_holds where order_id = $1",
        order_id
    ))
    .await
    .map(drop)
}

/// Forgets a hold whose stock is to be given back. None when somebody else did.
pub async fn delete_hold(tx: &mut Tx, order_id: Uuid) -> Result<Option<Hold>, data::Error> {
    tx.fetch_optional(sqlx::query_as!(
        Hold,
        "delete from stock_holds where order_id = $1 returning order_id, customer_id, product_ids, quantities",
        order_id,
    ))
    .await
}

/// Forgets the oldest hold that is older than `age_s` seconds, that nobody else is looking at, and that is none of `passed_over`.
pub async fn delete_old_hold(
    tx: &mut Tx,
    age_s: f64,
    passed_over: &[Uuid],
) -> Result<Option<Hold>, data::Error> {
    tx.fetch_optional(sqlx::query_as!(
        Hold,
        "delete from stock_holds where order_id = (
             select order_id from stock_holds
             where created_at < now() - make_interval(secs => $1) and order_id <> all($2)
             order by created_at limit 1 for update skip locked
         )
         returning order_id, customer_id, product_ids, quantities",
        age_s,
        passed_over,
    ))
    .await
}
