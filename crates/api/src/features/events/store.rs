//! Every statement on `events` and `event_counts`.

use data::postgres::{Tx, Writer};
use time::OffsetDateTime;
use uuid::Uuid;

use super::model::Event;

/// Writes those that are not there yet, so that a batch whose answer was lost can be sent again.
pub async fn insert(db: &Writer, events: &[Event]) -> Result<u64, data::Error> {
    let ids: Vec<Uuid> = events.iter().map(|event| event.id).collect();
    let ats: Vec<OffsetDateTime> = events.iter().map(|event| event.at).collect();
    let names: Vec<&str> = events.iter().map(|event| event.name.as_str()).collect();
    let products: Vec<Option<Uuid>> = events.iter().map(|event| event.product_id).collect();
    let properties = events.iter().map(|event| event.properties.as_str());
    let properties: Vec<&str> = properties.collect();
    db.execute(|| {
        sqlx::query!(
            "insert into events (id, at, name, product_id, properties)
             select * from unnest($1::uuid[], $2::timestamptz[], $3::text[], $4::uuid[], $5::text[]::jsonb[])
             on conflict (id) do nothing",
            &ids,
            &ats,
            &names as &[&str],
            &products as &[Option<Uuid>],
            &properties as &[&str],
        )
    })
    .await
}

/// Deletes some of those that arrived before the moment of `id`, and leaves out what another process is deleting.
pub async fn delete_before(db: &Writer, id: Uuid, rows_max: i64) -> Result<u64, data::Error> {
    db.execute(|| {
        sqlx::query!(
            "delete from events where id = any(array(
                 select id from events where id < $1 order by id limit $2 for update skip locked
             ))",
            id,
            rows_max,
        )
    })
    .await
}

/// Counts those with ids from `from` and below `to` by name, as the events of `hour`. However often it is done, it is done once.
pub async fn count(
    tx: &mut Tx,
    hour: OffsetDateTime,
    [from, to]: [Uuid; 2],
) -> Result<(), data::Error> {
    tx.execute(sqlx::query!(
        "insert into event_counts (hour, name, count)
         select $1, name, count(*) from events where id >= $2 and id < $3 group by name
         on conflict (hour, name) do update set count = excluded.count",
        hour,
        from,
        to,
    ))
    .await
    .map(drop)
}
