//! The statements of operators.

use data::Error;
use data::postgres::{Reader, Writer};

use super::{Dead, LIST_MAX, Page, Waiting};

/// What two waiting jobs of one kind and key break.
pub(super) const UNIQUE_KEY: &str = "jobs_unique_key_idx";

pub(super) async fn list(home: &Reader, page: &Page<'_>) -> Result<Vec<Waiting>, Error> {
    home.fetch_all(|| {
        sqlx::query_as!(
            Waiting,
            r#"select id, kind, version, payload, unique_key, fence is not null and run_at > now() as "is_running!",
                      attempts, error, run_at, expires_at, created_at
               from jobs where id < $1 and ($2::text is null or kind = $2) order by id desc limit $3"#,
            page.before.unwrap_or(i64::MAX),
            page.kind,
            i64::from(page.limit.min(LIST_MAX)),
        )
    })
    .await
}

pub(super) async fn list_dead(home: &Reader, page: &Page<'_>) -> Result<Vec<Dead>, Error> {
    home.fetch_all(|| {
        sqlx::query_as!(
            Dead,
            "select id, kind, version, payload, unique_key, attempts, reason, error, created_at, died_at
             from jobs_dead where id < $1 and ($2::text is null or kind = $2) order by id desc limit $3",
            page.before.unwrap_or(i64::MAX),
            page.kind,
            i64::from(page.limit.min(LIST_MAX)),
        )
    })
    .await
}

pub(super) async fn replay(home: &Writer, id: i64) -> Result<bool, Error> {
    let replayed = home
        .fetch_optional(|| {
            sqlx::query!(
                "with dead as (
                     delete from jobs_dead where id = $1
                     returning id, kind, version, payload, unique_key, context, error, created_at
                 ), replayed as (
                     insert into jobs (id, kind, version, payload, unique_key, context, error, created_at)
                     select * from dead returning id
                 )
                 select id, pg_notify('jobs', '')::text as told from replayed",
                id,
            )
        })
        .await?;
    Ok(replayed.is_some())
}

pub(super) async fn delete_dead(home: &Writer, id: i64) -> Result<bool, Error> {
    let deleted = home
        .execute(|| sqlx::query!("delete from jobs_dead where id = $1", id))
        .await?;
    Ok(deleted > 0)
}

pub(super) async fn delete(home: &Writer, id: i64) -> Result<bool, Error> {
    let deleted = home
        .execute(|| sqlx::query!("delete from jobs where id = $1", id))
        .await?;
    Ok(deleted > 0)
}
