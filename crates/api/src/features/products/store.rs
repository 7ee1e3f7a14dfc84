//! Every statement on `products`.

use data::postgres::{Reader, Tx};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::model::{Field, NewProduct, Position, Product, ProductFilter};
use crate::http::conditional::Versions;

/// Selects one page. The conditions say where it begins and what it is of.
macro_rules! page {
    ($db:ident, $filter:ident, where $first:literal $(and $second:literal)?, order by $order:literal,
     $($argument:expr),+) => {
        $db.fetch_all(|| {
            sqlx::query_as!(
                Product,
                "select id, sku, name, case when $1 then description end as description, category, price_cents, stock,
                        version, created_at, updated_at
                 from products where " + $first $(+ " and " + $second)? + " order by " + $order + " limit $2",
                $filter.fields.contain(Field::Description),
                i64::from($filter.limit) + 1,
                $($argument),+
            )
        })
        .await
    };
}

/// Selects one page in one order. All of it, and all of a category, are statements of their own because each has an index
/// of its own. A search collects its rows by their words and sorts those, so there the category is one more condition.
macro_rules! page_in_order {
    ($db:ident, $filter:ident, order by $order:literal, after $after:literal, category $category:literal,
     search $search:literal, $($key:ident),+) => {
        match (&$filter.q, $filter.category.as_deref()) {
            (None, None) => page!($db, $filter, where $after, order by $order, $($key),+),
            (None, Some(category)) => {
                page!($db, $filter, where $category and $after, order by $order, $($key,)+ category)
            }
            (Some(q), category) => {
                page!($db, $filter, where $after and $search, order by $order, $($key,)+ q, category)
            }
        }
    };
}

/// One page; one product more than asked for says that there is another page.
pub async fn list(
    db: &Reader,
    filter: &ProductFilter,
    after: &Position,
) -> Result<Vec<Product>, data::Error> {
    match after {
        Position::Newest { id } => page_in_order!(
            db, filter, order by "id desc", after "id < $3", category "category = $4",
            search "search @@ websearch_to_tsquery('english', $4) and ($5::text is null or category = $5)",
            id
        ),
        Position::Cheapest { price_cents, id } => page_in_order!(
            db, filter, order by "price_cents, id", after "(price_cents, id) > ($3, $4)", category "category = $5",
            search "search @@ websearch_to_tsquery('english', $5) and ($6::text is null or category = $6)",
            price_cents, id
        ),
        Position::Dearest { price_cents, id } => page_in_order!(
            db, filter, order by "price_cents desc, id desc", after "(price_cents, id) < ($3, $4)",
            category "category = $5",
            search "search @@ websearch_to_tsquery('english', $5) and ($6::text is null or category = $6)",
            price_cents, id
        ),
        Position::Name { name, id } => page_in_order!(
            db, filter, order by "name, id", after "(name, id) > ($3, $4)", category "category = $5",
            search "search @@ websearch_to_tsquery('english', $5) and ($6::text is null or category = $6)",
            name, id
        ),
    }
}

pub async fn find(db: &Reader, id: Uuid) -> Result<Option<Product>, data::Error> {
    db.fetch_optional(|| {
        sqlx::query_as!(
            Product,
            r#"select id, sku, name, description as "description?", category, price_cents, stock, version, created_at,
                      updated_at
               from products where id = $1"#,
            id,
        )
    })
    .await
}

pub async fn newest(db: &Reader, limit: i64) -> Result<Vec<Uuid>, data::Error> {
    // Ids rise with time.
    db.fetch_all(|| sqlx::query_scalar!("select id from products order by id desc limit $1", limit))
        .await
}

pub async fn insert(tx: &mut Tx, new: &NewProduct) -> Result<Product, data::Error> {
    tx.fetch_one(sqlx::query_as!(
        Product,
        r#"insert into products (id, sku, name, description, category, price_cents, stock)
           values ($1, $2, $3, $4, $5, $6, $7)
           returning id, sku, name, description as "description?", category, price_cents, stock, version, created_at,
                     updated_at"#,
        Uuid::now_v7(),
        new.sku,
        new.name,
        new.description,
        new.category,
        new.price_cents,
        new.stock,
    ))
    .await
}

/// Replaces a product if its version is one of `versions`; `None` if it is not, or if there is no such product.
pub async fn update(
    tx: &mut Tx,
    id: Uuid,
    versions: &Versions,
    new: &NewProduct,
) -> Result<Option<Product>, data::Error> {
    tx.fetch_optional(sqlx::query_as!(
            Product,
            r#"update products
               set sku = $3, name = $4, description = $5, category = $6, price_cents = $7, stock = $8,
                   version = version + 1, updated_at = now()
               where id = $1 and ($2::bigint[] is null or version = any($2))
               returning id, sku, name, description as "description?", category, price_cents, stock, version, created_at,
                         updated_at"#,
            id,
            versions.listed(),
            new.sku,
            new.name,
            new.description,
            new.category,
            new.price_cents,
            new.stock,
    ))
    .await
}

/// A product of which some pieces were taken.
pub struct Sold {
    pub id: Uuid,
    pub name: String,
    pub price_cents: i64,
    /// What is left.
    pub stock: i32,
}

/// Takes `quantities[i]` pieces of `ids[i]` where there are enough. An answer with fewer products than ids means that the
/// caller must roll back; [`stock_of`] says why.
///
/// The rows are locked in the order of their ids before any is changed, so two orders of the same products wait for
/// each other, but never both.
pub async fn take_stock(
    tx: &mut Tx,
    ids: &[Uuid],
    quantities: &[i32],
) -> Result<Vec<Sold>, data::Error> {
    tx.fetch_all(sqlx::query_as!(
        Sold,
        "with wanted as (
             select products.id, line.quantity
             from products
             join unnest($1::uuid[], $2::int[]) as line (product_id, quantity) on line.product_id = products.id
             order by products.id
             for no key update of products
         )
         update products
         set stock = stock - wanted.quantity, version = version + 1, updated_at = now()
         from wanted
         where products.id = wanted.id and stock >= wanted.quantity
         returning products.id, name, price_cents, stock",
        ids,
        quantities,
    ))
    .await
}

/// The stock of each of `ids` that exists.
pub async fn stock_of(tx: &mut Tx, ids: &[Uuid]) -> Result<Vec<(Uuid, i32)>, data::Error> {
    let rows = tx
        .fetch_all(sqlx::query!(
            "select id, stock from products where id = any($1)",
            ids
        ))
        .await?;
    Ok(rows.into_iter().map(|row| (row.id, row.stock)).collect())
}

/// Puts back `quantities[i]` pieces of `ids[i]`, with the rows locked in the same order.
pub async fn give_back(
    tx: &mut Tx,
    ids: &[Uuid],
    quantities: &[i32],
) -> Result<Vec<(Uuid, i32)>, data::Error> {
    let rows = tx
        .fetch_all(sqlx::query!(
        "with returned as (
             select products.id, line.quantity
             from products
             join unnest($1::uuid[], $2::int[]) as line (product_id, quantity) on line.product_id = products.id
             order by products.id
             for no key update of products
         )
         update products
         set stock = stock + returned.quantity, version = version + 1, updated_at = now()
         from returned
         where products.id = returned.id
         returning products.id, stock",
            ids,
            quantities,
        ))
        .await?;
    Ok(rows.into_iter().map(|row| (row.id, row.stock)).collect())
}

/// What the catalogue says of a product at this moment, for features that refer to products.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Offer {
    pub name: String,
    /// The price of one piece, in whole cents.
    pub price_cents: i64,
    /// Pieces left; an order is the only binding answer.
    pub stock: i32,
}

/// The offer of each of `ids` that is in the catalogue.
pub async fn offers(db: &Reader, ids: &[Uuid]) -> Result<Vec<(Uuid, Offer)>, data::Error> {
    let rows = db
        .fetch_all(|| {
            sqlx::query!(
                "select id, name, price_cents, stock from products where id = any($1)",
                ids
            )
        })
        .await?;
    let offer = |name, price_cents, stock| Offer {
        name,
        price_cents,
        stock,
    };
    Ok(rows
        .into_iter()
        .map(|row| (row.id, offer(row.name, row.price_cents, row.stock)))
        .collect())
}
