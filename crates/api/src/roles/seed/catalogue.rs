//! A made-up catalogue that looks like a real one. The same number is always the same product, on every machine and on
//! every day: so figures can be compared, and seeding again adds nothing.

use std::fmt::Write;

use fastrand::Rng;
use uuid::{Builder, Uuid};

use super::words::{BRANDS, OPENINGS, QUALITIES, SECTIONS, SENTENCES};

/// A product to be.
pub struct Product {
    pub id: Uuid,
    pub sku: String,
    pub name: String,
    pub description: String,
    pub category: &'static str,
    pub price_cents: i64,
    pub stock: i32,
    /// Milliseconds since 1970.
    pub created_ms: u64,
}

/// The start of 2025. Each product is a second younger than the one before, so the order "newest first" is settled, and
/// whatever is created later is newer than all of them.
const FIRST_MS: u64 = 1_735_689_600_000;

/// Where the random numbers begin; another number would be another catalogue.
const SEED: u64 = 0x5eed;

/// The product with this number.
pub fn product(number: u32) -> Product {
    let rng = &mut Rng::with_seed(SEED ^ (u64::from(number) << 16));
    let section = pick(rng, SECTIONS);
    let (noun, usual_cents) = *pick(rng, section.nouns);
    let material = *pick(rng, section.materials);
    let created_ms = FIRST_MS + u64::from(number) * 1000;
    Product {
        id: Builder::from_unix_timestamp_millis(created_ms, &std::array::from_fn(|_| rng.u8(..)))
            .into_uuid(),
        sku: format!("{}-{number:07}", section.prefix),
        name: format!(
            "{} {} {material} {noun}",
            pick(rng, BRANDS),
            pick(rng, QUALITIES)
        ),
        description: description(rng, noun, material),
        category: section.category,
        price_cents: price(rng, usual_cents),
        stock: if rng.u8(..20) == 0 {
            0
        } else {
            rng.i32(1..=500)
        },
        created_ms,
    }
}

fn pick<'a, T>(rng: &mut Rng, from: &'a [T]) -> &'a T {
    &from[rng.usize(..from.len())]
}

/// Half to three times what such a thing usually costs, ending in 9 or 5 as prices do.
fn price(rng: &mut Rng, usual_cents: i64) -> i64 {
    let cents = usual_cents * rng.i64(50..300) / 100;
    cents - cents % 10 + if rng.u8(..3) == 0 { 5 } else { 9 }
}

fn description(rng: &mut Rng, noun: &str, material: &str) -> String {
    let mut text = format!(
        "{} {} in {}.",
        pick(rng, OPENINGS),
        noun.to_lowercase(),
        material.to_lowercase()
    );
    let count = rng.usize(1..=3);
    for sentence in rng.choose_multiple(SENTENCES, count) {
        let _ = write!(text, " {sentence}");
    }
    let [width, depth, height] = [rng.u8(4..90), rng.u8(4..60), rng.u8(2..40)];
    let _ = write!(
        text,
        " {width} × {depth} × {height} cm, {} g.",
        rng.u16(40..9000)
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_number_is_always_the_same_product() {
        let product = product(42);

        assert_eq!(product.sku, "KIT-0000042");
        assert_eq!(
            product.id.to_string(),
            "01941f2a-2010-7143-9ecd-92a0cf36bb00"
        );
    }

    #[test]
    fn later_numbers_are_newer_products() {
        let ids: Vec<Uuid> = (0..1000).map(|number| product(number).id).collect();

        assert!(ids.is_sorted());
        assert_eq!(ids[0].get_version_num(), 7);
    }
}
