//! The schema's migrations, built into the binary. Forward only; each runs in a transaction of its own together with its
//! entry in `_sqlx_migrations`, so that a crash leaves either all of it or nothing.

use sqlx::migrate::Migrator;

/// Every migration, in order.
pub static MIGRATOR: Migrator = sqlx::migrate!("../../migrations");

/// The version that this binary's statements are written for: the newest migration's.
pub fn expected() -> i64 {
    MIGRATOR
        .iter()
        .map(|migration| migration.version)
        .max()
        .unwrap_or(0)
}
