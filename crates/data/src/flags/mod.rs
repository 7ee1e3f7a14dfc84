//! What operators want of flags otherwise than the code, for the whole fleet: rows at home, each with a reason and an end.
//! Knows no flag by name.

mod follower;

use std::time::Duration;

use time::OffsetDateTime;

pub use follower::Follower;

use crate::postgres::Rows;

/// Rows that are read at most. The names are those of a list in the code, so there are never as many.
const OVERRIDES_MAX: i64 = 1000;

/// One flag that is set by hand.
#[derive(Clone, Debug)]
pub struct Override {
    /// The flag.
    pub name: String,
    /// Whether it is on.
    pub value: bool,
    /// Why.
    pub reason: String,
    /// By whom.
    pub changed_by: String,
    /// Since when.
    pub changed_at: OffsetDateTime,
    /// Until when.
    pub expires_at: OffsetDateTime,
    /// For how many seconds more, by the server's clock.
    pub left_s: f64,
}

/// What is to be set.
#[derive(Clone, Debug)]
pub struct NewOverride<'a> {
    /// The flag.
    pub name: &'a str,
    /// Whether it is to be on.
    pub value: bool,
    /// Why.
    pub reason: &'a str,
    /// By whom.
    pub changed_by: &'a str,
    /// For how long.
    pub ttl: Duration,
}

/// Sets a flag by hand, in place of what was set before.
fn insert(new: &NewOverride<'_>) -> impl Rows<Row = Override> {
    sqlx::query_as!(
        Override,
        r#"insert into flags (name, value, reason, changed_by, expires_at)
           values ($1, $2, $3, $4, now() + make_interval(secs => $5))
           on conflict (name) do update
           set value = excluded.value, reason = excluded.reason, changed_by = excluded.changed_by,
               changed_at = now(), expires_at = excluded.expires_at
           returning name, value, reason, changed_by, changed_at, expires_at,
                     extract(epoch from expires_at - now())::float8 as "left_s!""#,
        new.name,
        new.value,
        new.reason,
        new.changed_by,
        new.ttl.as_secs_f64(),
    )
}

/// Leaves a flag to the code again.
fn delete(name: &str) -> impl Rows<Row = String> {
    sqlx::query_scalar!("delete from flags where name = $1 returning name", name)
}

/// Everything that is set and has not expired.
fn current() -> impl Rows<Row = Override> {
    sqlx::query_as!(
        Override,
        r#"select name, value, reason, changed_by, changed_at, expires_at,
                  extract(epoch from expires_at - now())::float8 as "left_s!"
           from flags where expires_at > now() order by name limit $1"#,
        OVERRIDES_MAX,
    )
}
