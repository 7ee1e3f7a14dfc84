//! Every statement on `jobs`, `jobs_dead` and `job_schedules`, but those of operators. Time is the database's own: processes need
//! not agree on it.
//!
//! A plan that a connection has made while the table was empty reads it from end to end, and would be kept until the table
//! has been looked at again, with a hundred thousand jobs in it. So the statements on many rows are given a `generate_series` of
//! one row, which Postgres takes for a thousand where it plans without looking at the arguments: it never finds that cheaper, and plans
//! anew each time. That costs less than a millisecond for each batch.

use std::time::Duration;

use data::Error;
use data::postgres::{Place, Rows, Tx, Writer};
use time::OffsetDateTime;

/// How many rows the series has, see the module.
const ONCE: i32 = 1;

/// The advisory lock of whoever is going to say that there are jobs: any number, the same in every release.
const WORD: i64 = 0x6a6f_6273;

/// What is to be inserted, by columns.
#[derive(Debug, Default)]
pub(crate) struct NewRows {
    pub(crate) kinds: Vec<&'static str>,
    pub(crate) versions: Vec<i16>,
    pub(crate) payloads: Vec<String>,
    pub(crate) unique_keys: Vec<Option<String>>,
    pub(crate) run_ats: Vec<Option<OffsetDateTime>>,
    pub(crate) delays_s: Vec<f64>,
    pub(crate) untils: Vec<Option<OffsetDateTime>>,
    pub(crate) contexts: Vec<String>,
}

/// Inserts jobs, and says so when the transaction commits if any of them can be run at once.
///
/// Of transactions that do so at the same time one says it. Those that have something to say commit one after the other in the
/// whole server, each when the one before is on disk (`PreCommit_Notify` in Postgres's `async.c`), so orders would wait for each
/// other. Those who are told look again soon, and find what the others have committed meanwhile.
pub(crate) async fn insert<P: Place>(tx: &mut Tx<P>, new: &NewRows) -> Result<Vec<i64>, Error> {
    let rows = tx
        .fetch_all(sqlx::query!(
            r#"with inserted as (
                   insert into jobs (kind, version, payload, unique_key, run_at, expires_at, context)
                   select kind, version, payload::jsonb, unique_key,
                          coalesce(run_at, now()) + make_interval(secs => delay_s), until, context::jsonb
                   from unnest($1::text[], $2::int2[], $3::text[], $4::text[], $5::timestamptz[], $6::float8[],
                               $7::timestamptz[], $8::text[])
                        as new (kind, version, payload, unique_key, run_at, delay_s, until, context)
                   on conflict (kind, unique_key) where unique_key is not null do nothing
                   returning id, run_at
               )
               select id, (select case when pg_try_advisory_xact_lock($9) then pg_notify('jobs', '')::text end
                           from inserted where run_at <= now() limit 1) as told
               from inserted order by id"#,
            &new.kinds as &[&str],
            &new.versions,
            &new.payloads,
            &new.unique_keys as &[Option<String>],
            &new.run_ats as &[Option<OffsetDateTime>],
            &new.delays_s,
            &new.untils as &[Option<OffsetDateTime>],
            &new.contexts,
            WORD,
        ))
        .await?;
    Ok(rows.into_iter().map(|row| row.id).collect())
}

/// What may be claimed: kinds by columns, in the order in which they are looked at, and how many of each and of each lane.
#[derive(Clone, Debug, Default)]
pub(crate) struct Menu {
    pub(crate) kinds: Vec<&'static str>,
    /// Newer ones are left alone.
    pub(crate) versions: Vec<i16>,
    pub(crate) free: Vec<i32>,
    /// Each kind's lane, from 1 on.
    pub(crate) lanes: Vec<i32>,
    /// How many of each lane, in the order in which lanes are looked at.
    pub(crate) lane_free: Vec<i32>,
    /// How many in all.
    pub(crate) limit: i64,
}

/// A job that is one's own.
#[derive(Debug)]
pub(crate) struct Claimed {
    pub(crate) id: i64,
    pub(crate) fence: i64,
    pub(crate) kind: String,
    pub(crate) version: i16,
    pub(crate) payload: serde_json::Value,
    pub(crate) context: serde_json::Value,
    /// This one included.
    pub(crate) attempts: i32,
    /// Since it could have been claimed.
    pub(crate) waited_s: f64,
    /// Until it is of no use any more.
    pub(crate) left_s: Option<f64>,
}

/// Claims the jobs that have waited longest, kind after kind.
pub(crate) async fn claim(
    home: &Writer,
    menu: &Menu,
    lease: Duration,
) -> Result<Vec<Claimed>, Error> {
    let fence = fastrand::i64(..);
    home.fetch_all(|| {
        sqlx::query_as!(
            Claimed,
            r#"with wanted as materialized (
                   select job.id, job.run_at
                   from generate_series(1, $1::int4) as once
                   cross join unnest($2::int4[]) with ordinality as lane (free, number)
                   cross join lateral (
                       select waiting.id, waiting.run_at
                       from unnest($3::text[], $4::int2[], $5::int4[], $6::int4[]) as kind (name, version, free, lane)
                       cross join lateral (
                           select id, run_at from jobs
                           where jobs.kind = kind.name and run_at <= now() and jobs.version <= kind.version
                           order by run_at limit kind.free
                           for update skip locked
                       ) as waiting
                       where kind.lane = lane.number
                       limit lane.free
                   ) as job
                   limit $7
               )
               update jobs
               set run_at = now() + make_interval(secs => $8), fence = $9, attempts = attempts + 1
               from wanted
               where jobs.id = any(array(select id from wanted)) and jobs.id = wanted.id
               returning jobs.id, fence as "fence!", kind, version, payload, context, attempts,
                         extract(epoch from now() - wanted.run_at)::float8 as "waited_s!",
                         extract(epoch from expires_at - now())::float8 as left_s"#,
            ONCE,
            &menu.lane_free,
            &menu.kinds as &[&str],
            &menu.versions,
            &menu.free,
            &menu.lanes,
            menu.limit,
            lease.as_secs_f64(),
            fence,
        )
    })
    .await
}

/// Jobs that were claimed, by columns.
#[derive(Clone, Debug, Default)]
pub(crate) struct Keys {
    pub(crate) ids: Vec<i64>,
    pub(crate) fences: Vec<i64>,
}

impl Keys {
    pub(crate) fn push(&mut self, (id, fence): Key) {
        self.ids.push(id);
        self.fences.push(fence);
    }
}

/// A job's id and the fence it was claimed with.
pub(crate) type Key = (i64, i64);

/// Has leases last from now on, and answers with those that are ours. One that somebody is just changing is left as it is, so this waits for nobody.
pub(crate) fn renew(keys: &Keys, lease: Duration) -> impl Rows<Row = Key> {
    sqlx::query!(
        r#"with held as (
               select id, fence
               from generate_series(1, $1::int4) as once, unnest($2::int8[], $3::int8[]) as held (id, fence)
           ), renewed as (
               update jobs set run_at = now() + make_interval(secs => $4)
               where id = any(array(
                   select jobs.id from jobs join held on jobs.id = held.id and jobs.fence = held.fence
                   where jobs.id = any($2)
                   for update of jobs skip locked
               ))
           )
           select jobs.id, jobs.fence as "fence!" from jobs join held on jobs.id = held.id and jobs.fence = held.fence
           where jobs.id = any($2)"#,
        ONCE,
        &keys.ids,
        &keys.fences,
        lease.as_secs_f64(),
    )
    .map(|row| (row.id, row.fence))
}

/// Ends a job in the transaction that holds its effect.
pub(crate) async fn finish<P: Place>(tx: &mut Tx<P>, (id, fence): Key) -> Result<(), Error> {
    let statement = sqlx::query!("delete from jobs where id = $1 and fence = $2", id, fence);
    match tx.execute(statement).await? {
        0 => Err(Error::LeaseLost),
        _ => Ok(()),
    }
}

/// Removes jobs that are done. The ids of those that were still ours.
pub(crate) async fn complete(home: &Writer, done: &Keys) -> Result<Vec<i64>, Error> {
    home.fetch_all(|| {
        sqlx::query_scalar!(
            "delete from jobs
             using generate_series(1, $1::int4) as once, unnest($2::int8[], $3::int8[]) as done (id, fence)
             where jobs.id = any($2) and jobs.id = done.id and jobs.fence = done.fence
             returning jobs.id",
            ONCE,
            &done.ids,
            &done.fences,
        )
    })
    .await
}

/// Jobs that are given back, by columns.
#[derive(Debug, Default)]
pub(crate) struct Returned {
    pub(crate) keys: Keys,
    pub(crate) delays_s: Vec<f64>,
    /// Attempts that do not count.
    pub(crate) refunds: Vec<i32>,
    pub(crate) errors: Vec<Option<String>>,
}

/// Gives jobs back, to be run again after a while. The ids of those that were still ours.
pub(crate) async fn give_back(home: &Writer, returned: &Returned) -> Result<Vec<i64>, Error> {
    home.fetch_all(|| {
        sqlx::query_scalar!(
            "update jobs
             set run_at = now() + make_interval(secs => returned.delay_s), fence = null,
                 attempts = attempts - returned.refund, error = coalesce(returned.error, jobs.error)
             from generate_series(1, $1::int4) as once,
                  unnest($2::int8[], $3::int8[], $4::float8[], $5::int4[], $6::text[])
                      as returned (id, fence, delay_s, refund, error)
             where jobs.id = any($2) and jobs.id = returned.id and jobs.fence = returned.fence
             returning jobs.id",
            ONCE,
            &returned.keys.ids,
            &returned.keys.fences,
            &returned.delays_s,
            &returned.refunds,
            &returned.errors as &[Option<String>],
        )
    })
    .await
}

/// Jobs that nobody is to try again, by columns.
#[derive(Debug, Default)]
pub(crate) struct Dying {
    pub(crate) keys: Keys,
    pub(crate) reasons: Vec<&'static str>,
    pub(crate) errors: Vec<Option<String>>,
}

/// Puts jobs among the dead. The ids of those that were still ours.
pub(crate) async fn bury(home: &Writer, dying: &Dying) -> Result<Vec<i64>, Error> {
    home.fetch_all(|| {
        sqlx::query_scalar!(
            "with dead as (
                 delete from jobs
                 using generate_series(1, $1::int4) as once,
                       unnest($2::int8[], $3::int8[], $4::text[], $5::text[]) as dying (id, fence, reason, error)
                 where jobs.id = any($2) and jobs.id = dying.id and jobs.fence = dying.fence
                 returning jobs.id, kind, version, payload, unique_key, attempts, context, created_at,
                           dying.reason, coalesce(dying.error, jobs.error) as error
             )
             insert into jobs_dead (id, kind, version, payload, unique_key, attempts, context, created_at, reason, error)
             select * from dead returning id",
            ONCE,
            &dying.keys.ids,
            &dying.keys.fences,
            &dying.reasons as &[&str],
            &dying.errors as &[Option<String>],
        )
    })
    .await
}

/// How many jobs of one kind wait, and for how long.
#[derive(Debug)]
pub(crate) struct Depth {
    pub(crate) kind: String,
    pub(crate) waiting: i64,
    pub(crate) oldest_age_s: f64,
    pub(crate) dead: i64,
}

/// Counts each kind as far as `count_max`.
pub(crate) async fn depths(
    home: &Writer,
    kinds: &[&str],
    count_max: u32,
) -> Result<Vec<Depth>, Error> {
    home.fetch_all(|| {
        sqlx::query_as!(
            Depth,
            r#"select kind.name as "kind!",
                      (select count(*) from (
                          select from jobs where jobs.kind = kind.name and run_at <= now() order by run_at limit $3
                      ) as waiting) as "waiting!",
                      coalesce((
                          select extract(epoch from now() - run_at)::float8 from jobs
                          where jobs.kind = kind.name and run_at <= now() order by run_at limit 1
                      ), 0) as "oldest_age_s!",
                      (select count(*) from (
                          select from jobs_dead where jobs_dead.kind = kind.name order by id limit $3
                      ) as dead) as "dead!"
               from generate_series(1, $1::int4) as once, unnest($2::text[]) as kind (name)"#,
            ONCE,
            kinds as &[&str],
            i64::from(count_max),
        )
    })
    .await
}

/// Removes the longest dead; how many.
pub(crate) async fn remove_dead(home: &Writer, ttl: Duration, batch: u32) -> Result<u64, Error> {
    home.execute(|| {
        sqlx::query!(
            "delete from jobs_dead where id = any(array(
                 select id from jobs_dead where died_at < now() - make_interval(secs => $1)
                 order by died_at limit $2 for update skip locked
             ))",
            ttl.as_secs_f64(),
            i64::from(batch),
        )
    })
    .await
}

/// Moves a schedule on to a slot. None: it was there already. False: nothing was known of the schedule.
pub(crate) async fn take_slot(
    tx: &mut Tx,
    name: &str,
    slot: OffsetDateTime,
) -> Result<Option<bool>, Error> {
    tx.fetch_optional(sqlx::query_scalar!(
        // A row that is new has no earlier version that anybody could have locked.
        r#"insert into job_schedules as kept (name, last_at) values ($1, $2)
           on conflict (name) do update set last_at = excluded.last_at where kept.last_at < excluded.last_at
           returning xmax <> 0 as "is_known!""#,
        name,
        slot,
    ))
    .await
}
