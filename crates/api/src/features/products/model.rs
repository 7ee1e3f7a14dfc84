//! What a product is, what may be written to it, and how a list of them is asked for.

use garde::Validate;
use serde::{Deserialize, Serialize, Serializer, de::IntoDeserializer, ser::SerializeMap};
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::http::{ApiError, ApiResult, conditional::ETag, page::Cursor, text};

/// A product as it is kept, cached and shown.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Product {
    pub id: Uuid,
    /// The shop's own number for it.
    pub sku: String,
    pub name: String,
    /// Left out of lists unless `fields` asks for it.
    pub description: Option<String>,
    pub category: String,
    /// Whole cents of the shop's one currency.
    pub price_cents: i64,
    /// Pieces left; an order is the only binding answer.
    pub stock: i32,
    /// Counts every change, a sale included. Also the ETag.
    pub version: i64,
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    pub updated_at: OffsetDateTime,
}

impl Product {
    pub fn etag(&self) -> ETag {
        ETag::version(self.version)
    }

    /// The product with only `fields`, in their order.
    pub fn only<'a>(&'a self, fields: &'a Fields) -> ProductView<'a> {
        ProductView {
            product: self,
            fields,
        }
    }
}

/// What staff may set; everything else about a product is the service's.
#[derive(Debug, Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewProduct {
    #[garde(length(chars, min = 1, max = 64), custom(text::line))]
    pub sku: String,
    #[garde(length(chars, min = 1, max = 200), custom(text::line))]
    pub name: String,
    #[garde(length(chars, max = 10_000), custom(text::lines))]
    pub description: String,
    #[garde(length(chars, min = 1, max = 64), custom(text::line))]
    pub category: String,
    #[garde(range(min = 0, max = 100_000_000))]
    pub price_cents: i64,
    #[garde(range(min = 0, max = 1_000_000))]
    pub stock: i32,
}

/// Which products to list, and in which order.
#[derive(Debug, Deserialize, Validate, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ProductFilter {
    /// Words to find in name and description; `"…"` for a phrase, `-word` to exclude.
    #[garde(inner(length(chars, min = 1, max = 100), custom(text::line)))]
    pub q: Option<String>,
    /// Only this category.
    #[garde(inner(length(chars, min = 1, max = 64), custom(text::line)))]
    pub category: Option<String>,
    /// The order; a cursor continues in its own.
    #[garde(skip)]
    #[param(inline)]
    pub sort: Option<Sort>,
    /// Products per page, 1 to 100.
    #[garde(range(min = 1, max = 100))]
    #[serde(default = "default_limit")]
    pub limit: u16,
    /// `next_cursor` of the page before.
    #[garde(skip)]
    #[param(value_type = Option<String>)]
    pub cursor: Option<Cursor<Position>>,
    /// Comma-separated fields to answer with; without it all but `description`.
    #[garde(skip)]
    #[serde(default = "Fields::summary")]
    #[param(value_type = Option<String>, example = "id,name,price_cents")]
    pub fields: Fields,
}

pub fn default_limit() -> u16 {
    20
}

impl ProductFilter {
    /// Where the page begins.
    pub fn position(&self) -> ApiResult<Position> {
        let Some(Cursor(position)) = &self.cursor else {
            return Ok(Position::first(self.sort.unwrap_or(Sort::Newest)));
        };
        if self.sort.is_some_and(|sort| sort != position.sort()) {
            return Err(ApiError::field(
                "cursor",
                "must come from a page in the same order as `sort` asks for",
            ));
        }
        Ok(position.clone())
    }
}

/// How much of one product to show.
#[derive(Debug, Deserialize, Validate, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ProductFields {
    /// Comma-separated fields to answer with; without it all.
    #[garde(skip)]
    #[param(value_type = Option<String>, example = "id,name,price_cents")]
    pub fields: Option<Fields>,
}

/// The orders a list may have. Each has an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
pub enum Sort {
    #[serde(rename = "newest")]
    Newest,
    #[serde(rename = "price")]
    Cheapest,
    #[serde(rename = "-price")]
    Dearest,
    #[serde(rename = "name")]
    Name,
}

/// The place in one order after which a page begins: the keys of the last product before it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Position {
    Newest { id: Uuid },
    Cheapest { price_cents: i64, id: Uuid },
    Dearest { price_cents: i64, id: Uuid },
    Name { name: String, id: Uuid },
}

impl Position {
    /// Before the first product of an order, so that the first page needs no statement of its own.
    pub fn first(sort: Sort) -> Self {
        match sort {
            Sort::Newest => Self::Newest { id: Uuid::max() },
            Sort::Cheapest => Self::Cheapest {
                price_cents: i64::MIN,
                id: Uuid::nil(),
            },
            Sort::Dearest => Self::Dearest {
                price_cents: i64::MAX,
                id: Uuid::max(),
            },
            Sort::Name => Self::Name {
                name: String::new(),
                id: Uuid::nil(),
            },
        }
    }

    /// After `product`, in the same order.
    pub fn after(&self, product: &Product) -> Self {
        let (price_cents, id) = (product.price_cents, product.id);
        match self {
            Self::Newest { .. } => Self::Newest { id },
            Self::Cheapest { .. } => Self::Cheapest { price_cents, id },
            Self::Dearest { .. } => Self::Dearest { price_cents, id },
            Self::Name { .. } => Self::Name {
                name: product.name.clone(),
                id,
            },
        }
    }

    fn sort(&self) -> Sort {
        match self {
            Self::Newest { .. } => Sort::Newest,
            Self::Cheapest { .. } => Sort::Cheapest,
            Self::Dearest { .. } => Sort::Dearest,
            Self::Name { .. } => Sort::Name,
        }
    }
}

/// One field of a product, by its name in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Field {
    Id,
    Sku,
    Name,
    Description,
    Category,
    PriceCents,
    Stock,
    Version,
    CreatedAt,
    UpdatedAt,
}

impl Field {
    const ALL: [Self; 10] = [
        Self::Id,
        Self::Sku,
        Self::Name,
        Self::Description,
        Self::Category,
        Self::PriceCents,
        Self::Stock,
        Self::Version,
        Self::CreatedAt,
        Self::UpdatedAt,
    ];
}

/// The fields an answer has, each at most once.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "String")]
pub struct Fields(Vec<Field>);

impl Fields {
    /// What a list shows: everything but the description, the one field that is heavy.
    pub fn summary() -> Self {
        Self(
            Field::ALL
                .into_iter()
                .filter(|field| *field != Field::Description)
                .collect(),
        )
    }

    pub fn contain(&self, field: Field) -> bool {
        self.0.contains(&field)
    }
}

impl TryFrom<String> for Fields {
    type Error = serde::de::value::Error;

    fn try_from(names: String) -> Result<Self, Self::Error> {
        let mut fields = Vec::with_capacity(Field::ALL.len());
        for name in names.split(',') {
            let field = Field::deserialize(name.into_deserializer())?;
            if !fields.contains(&field) {
                fields.push(field);
            }
        }
        Ok(Self(fields))
    }
}

/// A product reduced to the fields that were asked for.
pub struct ProductView<'a> {
    product: &'a Product,
    fields: &'a Fields,
}

impl Serialize for ProductView<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { product, fields } = self;
        let mut map = serializer.serialize_map(Some(fields.0.len()))?;
        for field in &fields.0 {
            match field {
                Field::Id => map.serialize_entry(field, &product.id),
                Field::Sku => map.serialize_entry(field, &product.sku),
                Field::Name => map.serialize_entry(field, &product.name),
                Field::Description => map.serialize_entry(field, &product.description),
                Field::Category => map.serialize_entry(field, &product.category),
                Field::PriceCents => map.serialize_entry(field, &product.price_cents),
                Field::Stock => map.serialize_entry(field, &product.stock),
                Field::Version => map.serialize_entry(field, &product.version),
                Field::CreatedAt => map.serialize_entry(field, &Rfc3339(product.created_at)),
                Field::UpdatedAt => map.serialize_entry(field, &Rfc3339(product.updated_at)),
            }?;
        }
        map.end()
    }
}

#[derive(Serialize)]
struct Rfc3339(#[serde(with = "time::serde::rfc3339")] OffsetDateTime);
