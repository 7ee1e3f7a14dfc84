//! Every statement on `outbox`.

use super::{Event, NewEvent};
use crate::Error;
use crate::postgres::{Place, Rows, Tx};

/// The lock that whoever delivers holds, among the advisory locks of the database. Any number that nobody else takes.
const RELAY: i64 = 0x006f_7574_626f_7801;

/// An event with its place among all.
pub(super) struct Kept {
    pub(super) id: i64,
    pub(super) event: Event,
}

/// The lock of whoever is going to say that there are events.
const WORD: i64 = RELAY + 1;

/// Of transactions that emit at the same time one says so. Those that have something to say commit one after the other in the whole
/// server (`PreCommit_Notify` in Postgres's `async.c`), so orders would wait for each other. The relay looks again soon after it has found something.
pub(super) async fn insert<P: Place>(tx: &mut Tx<P>, events: &[NewEvent]) -> Result<(), Error> {
    let topics: Vec<&str> = events.iter().map(|event| event.topic).collect();
    let keys: Vec<_> = events.iter().map(|event| event.key).collect();
    let bodies: Vec<_> = events.iter().map(|event| event.body.clone()).collect();
    tx.fetch_one(sqlx::query_scalar!(
        r#"with emitted as (
               insert into outbox (topic, key, body)
               select event.topic, event.key, event.body
               from unnest($1::text[], $2::uuid[], $3::jsonb[]) with ordinality as event (topic, key, body, number)
               order by event.number
           )
           select case when pg_try_advisory_xact_lock($4) then pg_notify('outbox', '')::text end as told"#,
        &topics as &[&str],
        &keys,
        &bodies,
        WORD,
    ))
    .await
    .map(drop)
}

/// Whether there is anything to deliver.
pub(super) fn is_any() -> impl Rows<Row = bool> {
    // By the key, which a scan for any row would not use: at its beginning there may be many dead ones.
    sqlx::query_scalar!(
        r#"select (select id from outbox order by id limit 1) is not null as "is_any!""#
    )
}

/// Whether this transaction is the one that delivers, until it ends. Ends with its connection too, so nobody has to wait for one who
/// has died.
pub(super) async fn is_ours(tx: &mut Tx) -> Result<bool, Error> {
    tx.fetch_one(sqlx::query_scalar!(
        r#"select pg_try_advisory_xact_lock($1) as "is_ours!""#,
        RELAY
    ))
    .await
}

/// The oldest events. None of them is of a transaction that has not committed, which may have drawn a lower number; it was then about another key.
pub(super) async fn oldest(tx: &mut Tx, batch: u32) -> Result<Vec<Kept>, Error> {
    let rows = tx
        .fetch_all(sqlx::query!(
            "select id, event_id, topic, key, body, created_at from outbox order by id limit $1",
            i64::from(batch),
        ))
        .await?;
    let kept = rows.into_iter().map(|row| Kept {
        id: row.id,
        event: Event {
            id: row.event_id,
            topic: row.topic,
            key: row.key,
            body: row.body,
            at: row.created_at,
        },
    });
    Ok(kept.collect())
}

pub(super) async fn delete(tx: &mut Tx, ids: &[i64]) -> Result<(), Error> {
    tx.execute(sqlx::query!("delete from outbox where id = any($1)", ids))
        .await
        .map(drop)
}
