//! `holdfast seed`: fills the catalogue with made-up products, and makes two accounts to try the service with.
//!
//! The one place besides the stores that speaks SQL: bulk loading is COPY, which the checked macros do not know.

mod catalogue;
mod words;

use std::{fmt::Write, process::ExitCode, time::Duration};

use anyhow::{Context, bail};
use secrecy::{ExposeSecret, SecretString};
use settings::{Loaded, PROD};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::time::Instant;
use uuid::Uuid;

use crate::{features::sessions::Passwords, http::session::Role, settings::Settings};

/// What to make.
#[derive(clap::Args)]
pub struct Args {
    /// Products the catalogue shall have; nothing happens if it has as many
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(..=10_000_000))]
    products: u32,
    /// Also make a customer's and a staff member's account with known passwords; refused in the prod profile
    #[arg(long)]
    dev_accounts: bool,
}

/// Emails and passwords that everybody may know.
const DEV_ACCOUNTS: [(&str, &str, Role); 2] = [
    (
        "customer@holdfast.test",
        "customer-of-holdfast",
        Role::Customer,
    ),
    ("staff@holdfast.test", "staff-of-holdfast", Role::Staff),
];

pub async fn run(args: &Args, loaded: &Loaded<Settings>) -> anyhow::Result<ExitCode> {
    if args.dev_accounts && loaded.profile == PROD {
        bail!(
            "--dev-accounts makes accounts with known passwords; the profile {PROD} must have none"
        );
    }
    let settings = &loaded.settings;
    let url = settings.postgres.direct_url().expose_secret();
    let mut connection = PgConnection::connect(url)
        .await
        .context("cannot connect to the primary")?;
    // Behind a pooler the role has the limits of requests, and many rows take longer.
    sqlx::query("set statement_timeout = 0")
        .execute(&mut connection)
        .await
        .context("cannot lift the limit of statements")?;
    let added = products(&mut connection, args.products)
        .await
        .context("cannot fill the catalogue")?;
    println!("seed: {added} products added");
    if args.dev_accounts {
        let passwords = Passwords::new(&settings.sessions.passwords);
        accounts(&mut connection, &passwords)
            .await
            .context("cannot make the dev accounts")?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Adds what is missing of the first `count` products; how many that were.
pub async fn products(connection: &mut PgConnection, count: u32) -> anyhow::Result<u64> {
    let present: i64 = sqlx::query_scalar("select count(*) from products")
        .fetch_one(&mut *connection)
        .await?;
    if present >= i64::from(count) {
        return Ok(0);
    }
    let mut tx = connection.begin().await?;
    // COPY itself cannot pass over what is there already.
    sqlx::query(
        "create temporary table seed on commit drop as
         select id, sku, name, description, category, price_cents, stock, created_at from products with no data",
    )
    .execute(&mut *tx)
    .await?;
    copy(&mut tx, count).await?;
    let indexes = if present == 0 {
        drop_indexes(&mut tx).await?
    } else {
        Vec::new()
    };
    let added = sqlx::query(
        "insert into products (id, sku, name, description, category, price_cents, stock, created_at, updated_at)
         select id, sku, name, description, category, price_cents, stock, created_at, created_at from seed
         on conflict do nothing",
    )
    .execute(&mut *tx)
    .await?;
    for definition in indexes {
        sqlx::query(AssertSqlSafe(definition))
            .execute(&mut *tx)
            .await?;
    }
    tx.commit().await?;
    // The planner knows nothing of the new rows until it is told.
    sqlx::query("analyze products").execute(connection).await?;
    Ok(added.rows_affected())
}

/// Drops the indexes that no constraint needs, and answers with how to make them again: building one over all rows costs a
/// fraction of adding each row to it. Only for an empty table, which nobody can miss them on.
async fn drop_indexes(connection: &mut PgConnection) -> anyhow::Result<Vec<String>> {
    let indexes: Vec<(String, String)> = sqlx::query_as(
        "select indexname::text, indexdef from pg_indexes
         where schemaname = current_schema and tablename = 'products'
           and indexname not in (select conname from pg_constraint where conrelid = 'products'::regclass)",
    )
    .fetch_all(&mut *connection)
    .await?;
    for (name, _) in &indexes {
        sqlx::query(AssertSqlSafe(format!("drop index {name}")))
            .execute(&mut *connection)
            .await?;
    }
    Ok(indexes
        .into_iter()
        .map(|(_, definition)| definition)
        .collect())
}

/// Bytes sent to Postgres at a time.
const CHUNK_BYTES: usize = 1 << 20;

async fn copy(connection: &mut PgConnection, count: u32) -> anyhow::Result<()> {
    let mut copy = connection.copy_in_raw("copy seed from stdin").await?;
    let mut chunk = String::with_capacity(CHUNK_BYTES + 4096);
    for number in 0..count {
        write_row(&mut chunk, number)?;
        if chunk.len() >= CHUNK_BYTES {
            copy.send(chunk.as_bytes()).await?;
            chunk.clear();
        }
    }
    copy.send(chunk.as_bytes()).await?;
    copy.finish().await?;
    Ok(())
}

/// One line of COPY's text format. The catalogue's words hold no tab, backslash or line break, so nothing is escaped.
fn write_row(chunk: &mut String, number: u32) -> anyhow::Result<()> {
    let catalogue::Product {
        id,
        sku,
        name,
        description,
        category,
        price_cents,
        stock,
        created_ms,
    } = catalogue::product(number);
    let created_at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(created_ms) * 1_000_000)?
        .format(&Rfc3339)?;
    writeln!(
        chunk,
        "{id}\t{sku}\t{name}\t{description}\t{category}\t{price_cents}\t{stock}\t{created_at}"
    )?;
    Ok(())
}

async fn accounts(connection: &mut PgConnection, passwords: &Passwords) -> anyhow::Result<()> {
    for (email, password, role) in DEV_ACCOUNTS {
        let deadline = Instant::now() + Duration::from_secs(30);
        let hash = passwords
            .hash(SecretString::from(password), deadline)
            .await?;
        sqlx::query(
            "insert into users (id, email, password_hash, role) values ($1, $2, $3, $4)
             on conflict (lower(email)) do nothing",
        )
        .bind(Uuid::now_v7())
        .bind(email)
        .bind(hash)
        .bind(role)
        .execute(&mut *connection)
        .await?;
        println!(
            "seed: {} account {email}, password {password}",
            role.as_str()
        );
    }
    Ok(())
}
