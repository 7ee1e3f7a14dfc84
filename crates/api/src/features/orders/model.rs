//! What an order is, what a customer may ask for, and the ways it can be refused.

use std::{
    collections::{HashMap, HashSet},
    fmt::Write,
};

use garde::Validate;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::{
    features::products::Offer,
    http::{ApiError, error::FieldError, include::Include, page::Cursor},
};

/// An order as its customer sees it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Order {
    pub id: Uuid,
    pub status: Status,
    /// The sum of the lines, in whole cents.
    pub total_cents: i64,
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    pub lines: Vec<OrderLine>,
}

/// What has become of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, sqlx::Type, ToSchema)]
#[serde(rename_all = "lowercase")]
#[sqlx(type_name = "text", rename_all = "lowercase")]
pub enum Status {
    /// It stands. Where orders are paid, it is about to be.
    Placed,
    Paid,
    /// Its payment was declined.
    Cancelled,
}

/// Some pieces of one product, at the price of the moment of the order.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct OrderLine {
    pub product_id: Uuid,
    pub name: String,
    pub quantity: i32,
    /// The price of one piece, in whole cents.
    pub price_cents: i64,
    /// With `include=products`: what the catalogue says of the product now, null if it is in it no more.
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Offer>)]
    pub product: Option<Option<Offer>>,
}

impl Order {
    pub fn new(id: Uuid, stamp: Stamp, lines: Vec<OrderLine>) -> Self {
        Self {
            id,
            status: stamp.status,
            total_cents: total_cents(&lines),
            created_at: stamp.created_at,
            lines,
        }
    }

    /// Puts to each line what its product is now.
    pub fn include_products(&mut self, offers: &HashMap<Uuid, Offer>) {
        for line in &mut self.lines {
            line.product = Some(offers.get(&line.product_id).cloned());
        }
    }
}

/// What can be included in orders.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Relation {
    /// `lines[].product`.
    Products,
}

/// How much of one order to show.
#[derive(Debug, Deserialize, Validate, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct OrderParts {
    /// Comma-separated relations to include in the answer.
    #[garde(skip)]
    #[serde(default)]
    #[param(value_type = Option<Vec<Relation>>, inline, style = Form, explode = false)]
    pub include: Include<Relation>,
}

/// What the database adds to an order.
#[derive(Clone, Copy)]
pub struct Stamp {
    pub status: Status,
    pub created_at: OffsetDateTime,
}

/// The products of `lines` and how many pieces of each.
pub fn pieces(lines: &[OrderLine]) -> (Vec<Uuid>, Vec<i32>) {
    let piece = |line: &OrderLine| (line.product_id, line.quantity);
    lines.iter().map(piece).unzip()
}

/// What all `lines` cost together.
pub fn total_cents(lines: &[OrderLine]) -> i64 {
    let cost = |line: &OrderLine| line.price_cents * i64::from(line.quantity);
    lines.iter().map(cost).sum()
}

/// What a customer asks for; prices are the shop's to say.
#[derive(Debug, Serialize, Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewOrder {
    /// 1 to 50 lines, each with another product.
    #[garde(length(min = 1, max = 50), custom(each_product_once), dive)]
    pub lines: Vec<NewLine>,
}

/// Some pieces of one product.
#[derive(Debug, Serialize, Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewLine {
    #[garde(skip)]
    pub product_id: Uuid,
    #[garde(range(min = 1, max = 1000))]
    pub quantity: i32,
}

impl NewOrder {
    /// What was ordered once, at the prices of another moment.
    pub fn again(lines: &[OrderLine]) -> Self {
        let line = |line: &OrderLine| NewLine {
            product_id: line.product_id,
            quantity: line.quantity,
        };
        Self {
            lines: lines.iter().map(line).collect(),
        }
    }
}

fn each_product_once(lines: &[NewLine], _: &()) -> garde::Result {
    let mut seen = HashSet::with_capacity(lines.len());
    if lines.iter().all(|line| seen.insert(line.product_id)) {
        return Ok(());
    }
    Err(garde::Error::new("each product may stand in one line only"))
}

/// Which of the caller's orders to list.
#[derive(Debug, Deserialize, Validate, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct OrderFilter {
    /// Orders per page, 1 to 100.
    #[garde(range(min = 1, max = 100))]
    #[serde(default = "default_limit")]
    pub limit: u16,
    /// `next_cursor` of the page before.
    #[garde(skip)]
    #[param(value_type = Option<String>)]
    pub cursor: Option<Cursor<Uuid>>,
    /// Comma-separated relations to include in the answer.
    #[garde(skip)]
    #[serde(default)]
    #[param(value_type = Option<Vec<Relation>>, inline, style = Form, explode = false)]
    pub include: Include<Relation>,
}

fn default_limit() -> u16 {
    20
}

/// Why no order was placed.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    /// Lines (counted from 0) that name no product.
    #[error("{} lines name no product", .0.len())]
    UnknownProducts(Vec<usize>),
    #[error("{} products are short of stock", .0.len())]
    OutOfStock(Vec<Shortage>),
    #[error("the payment was declined")]
    Declined,
    #[error("the order could not be kept")]
    Data(#[from] data::Error),
}

/// A product of which there is less than was asked for.
#[derive(Debug, PartialEq)]
pub struct Shortage {
    pub product_id: Uuid,
    pub wanted: i32,
    pub left: i32,
}

impl From<OrderError> for ApiError {
    fn from(error: OrderError) -> Self {
        match error {
            OrderError::UnknownProducts(lines) => Self::unprocessable(
                lines
                    .into_iter()
                    .map(|line| FieldError {
                        field: format!("lines[{line}].product_id"),
                        detail: "must be the id of a product".to_owned(),
                    })
                    .collect(),
            ),
            OrderError::OutOfStock(shortages) => {
                Self::conflict("out_of_stock", sentence(&shortages))
            }
            OrderError::Declined => Self::invalid(
                StatusCode::PAYMENT_REQUIRED,
                "payment_declined",
                "the payment was declined and nothing is ordered: to pay otherwise, order again with another Idempotency-Key",
            ),
            OrderError::Data(error) => error.into(),
        }
    }
}

fn sentence(shortages: &[Shortage]) -> String {
    let mut sentence = String::from("not enough in stock:");
    for Shortage {
        product_id,
        wanted,
        left,
    } in shortages
    {
        let _ = write!(
            sentence,
            " {left} of {wanted} wanted of product {product_id};"
        );
    }
    sentence.pop();
    sentence
}
