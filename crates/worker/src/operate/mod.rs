//! What operators do with jobs: look, cancel, and replay or drop the dead.

mod store;

use data::Error;
use data::postgres::Db;
use serde::Serialize;
use serde_json::Value;
use time::OffsetDateTime;

/// Jobs that a list shows at most.
pub const LIST_MAX: u32 = 1000;

/// Which part of a list is wanted, newest first.
#[derive(Clone, Debug)]
pub struct Page<'a> {
    /// Of this kind only.
    pub kind: Option<&'a str>,
    /// Those that are older than this one.
    pub before: Option<i64>,
    /// So many at most, and never more than [`LIST_MAX`].
    pub limit: u32,
}

/// A job that waits or runs.
#[derive(Clone, Debug, Serialize)]
pub struct Waiting {
    /// Its number.
    pub id: i64,
    /// Its kind.
    pub kind: String,
    /// Of the payload.
    pub version: i16,
    /// What it is about.
    pub payload: Value,
    /// By which there is only one of it.
    pub unique_key: Option<String>,
    /// Whether somebody is at it.
    pub is_running: bool,
    /// How often it was tried, or is being.
    pub attempts: i32,
    /// What came of the last attempt that failed.
    pub error: Option<String>,
    /// When it will be tried; while it runs, when its lease ends.
    #[serde(with = "time::serde::rfc3339")]
    pub run_at: OffsetDateTime,
    /// When it is of no use any more.
    #[serde(with = "time::serde::rfc3339::option")]
    pub expires_at: Option<OffsetDateTime>,
    /// When it was enqueued.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
}

/// A job that nobody tries any more.
#[derive(Clone, Debug, Serialize)]
pub struct Dead {
    /// Its number.
    pub id: i64,
    /// Its kind.
    pub kind: String,
    /// Of the payload.
    pub version: i16,
    /// What it is about.
    pub payload: Value,
    /// By which there is only one of it.
    pub unique_key: Option<String>,
    /// How often it was tried.
    pub attempts: i32,
    /// Why it is dead: `failed`, `gave_up`, `abandoned`, `expired`, `unreadable`.
    pub reason: String,
    /// What came of the last attempt.
    pub error: Option<String>,
    /// When it was enqueued.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// Since when it is dead.
    #[serde(with = "time::serde::rfc3339")]
    pub died_at: OffsetDateTime,
}

/// What became of an order to replay a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replayed {
    /// It is tried again, with all its attempts and without a deadline.
    Yes,
    /// No such job is dead.
    Unknown,
    /// There is another one with its unique key.
    KeyTaken,
}

/// Jobs that wait or run.
///
/// # Errors
/// As any read.
pub async fn list(db: &Db, page: &Page<'_>) -> Result<Vec<Waiting>, Error> {
    store::list(&db.write().reader(), page).await
}

/// Jobs that are dead.
///
/// # Errors
/// As any read.
pub async fn list_dead(db: &Db, page: &Page<'_>) -> Result<Vec<Dead>, Error> {
    store::list_dead(&db.write().reader(), page).await
}

/// Has a dead job tried again.
///
/// # Errors
/// As any statement on the primary.
pub async fn replay(db: &Db, id: i64) -> Result<Replayed, Error> {
    match store::replay(&db.write(), id).await {
        Ok(true) => Ok(Replayed::Yes),
        Ok(false) => Ok(Replayed::Unknown),
        Err(error) if error.constraint() == Some(store::UNIQUE_KEY) => Ok(Replayed::KeyTaken),
        Err(error) => Err(error),
    }
}

/// Forgets a dead job. False when no such job is dead.
///
/// # Errors
/// As any statement on the primary.
pub async fn drop_dead(db: &Db, id: i64) -> Result<bool, Error> {
    store::delete_dead(&db.write(), id).await
}

/// Forgets a job that waits or runs; one that runs is let go of within a heartbeat, and can end nothing from now on. False when
/// there is no such job.
///
/// # Errors
/// As any statement on the primary.
pub async fn cancel(db: &Db, id: i64) -> Result<bool, Error> {
    store::delete(&db.write(), id).await
}
