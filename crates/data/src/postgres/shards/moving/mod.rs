//! Moves buckets from one cluster to another while they are in use. Postgres copies: the source publishes the moving rows,
//! the target subscribes, fetches them and follows what is written. Then writes to those rows are refused for a moment, both
//! sides are compared, and the map names the target. Those who were refused look at the map and try again.
//!
//! Each step is noted at home or can be found on the servers, so a move that was killed is finished by the same command.

mod checks;
mod copying;
mod error;
mod fence;
mod journal;
mod side;

use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use sqlx::postgres::PgConnectOptions;
use tokio::time::{Instant, sleep, timeout};

pub use error::MoveError;

use self::checks::compare;
use self::journal::{Entry, Journal, Phase};
use self::side::{Side, WORKER, connect, is_out_of_time, range};
use super::{Bucket, Buckets, Config, HOME, Table};
use crate::postgres::{self, config::parse};

/// How often a copy is looked at, which may take hours.
const COPY_POLL: Duration = Duration::from_millis(100);
/// How often it is looked at while writes wait.
const FENCE_POLL: Duration = Duration::from_millis(5);
/// A target this close behind catches up with the rest while writes wait: 64 KiB of the log.
const CLOSE_BYTES: i64 = 64 * 1024;

/// Moves buckets. See the module.
pub struct Mover<'a> {
    /// Home.
    pub postgres: &'a postgres::Config,
    /// The other clusters.
    pub shards: &'a Config,
    /// What is sharded, what is referred to first.
    pub tables: &'static [Table],
    /// Told of each step as it begins, for people.
    pub say: &'a (dyn Fn(&str) + Sync),
}

/// What was moved.
#[derive(Clone, Debug)]
pub struct Moved {
    /// From where.
    pub source: String,
    /// How many rows are on the target now. None when the map had been switched before.
    pub rows: Option<i64>,
    /// How long writes were held up. None when the map had been switched before.
    pub pause: Option<Duration>,
    /// How many rows were deleted on the source.
    pub deleted: u64,
}

struct Sides {
    source: Side,
    target: Side,
}

impl Mover<'_> {
    /// Moves the buckets from `first` to `last`, or goes on with that when it was begun before.
    ///
    /// # Errors
    /// With one line that says what to do; the buckets are then where they were, or run it again.
    pub async fn run(
        &self,
        (first, last): (Bucket, Bucket),
        target: &str,
    ) -> Result<Moved, MoveError> {
        let mut journal = self.journal().await?;
        let wanted: Buckets = Bucket::all()
            .filter(|bucket| (first..=last).contains(bucket))
            .collect();
        let entry = match journal.unfinished().await? {
            Some(entry) if entry.buckets() == wanted && entry.target == target => entry,
            Some(other) => return Err(other.unfinished()),
            None => {
                let source = journal.holder(&wanted).await?;
                if source == target {
                    return Err(MoveError::Nothing(wanted));
                }
                let range = (first.as_i16(), last.as_i16());
                self.prepare(&source, target, range).await?;
                journal.begin((first, last), &source, target).await?
            }
        };
        let mut sides = self
            .sides(&entry.source, &entry.target, range(&entry))
            .await?;
        sides.source.evict().await?;
        sides.target.evict().await?;
        let verified = match entry.phase {
            Phase::Switched => None,
            Phase::Copying => {
                let limit = self.shards.move_copy_timeout;
                let copied = timeout(limit, self.copy(&mut sides)).await;
                copied.unwrap_or(Err(MoveError::Timeout {
                    step: "copying",
                    limit,
                    setting: "shards.move_copy_timeout",
                }))?;
                Some(self.hand_over(&mut sides, &mut journal, &entry).await?)
            }
        };
        let deleted = self.clean_up(&mut sides, &mut journal, &entry).await?;
        Ok(Moved {
            source: entry.source,
            rows: verified.map(|(rows, _)| rows),
            pause: verified.map(|(_, pause)| pause),
            deleted,
        })
    }

    /// Undoes a move whose map was not switched.
    ///
    /// # Errors
    /// When there is none, it is too late, or a server cannot be reached.
    pub async fn abort(&self) -> Result<Buckets, MoveError> {
        let mut journal = self.journal().await?;
        let entry = journal
            .unfinished()
            .await?
            .ok_or(MoveError::NothingToAbort)?;
        if entry.phase == Phase::Switched {
            return Err(MoveError::TooLateToAbort {
                buckets: entry.buckets(),
                target: entry.target,
            });
        }
        let Sides {
            mut source,
            mut target,
        } = self
            .sides(&entry.source, &entry.target, range(&entry))
            .await?;
        source.evict().await?;
        target.evict().await?;
        source.unfence().await?;
        target.unsubscribe().await?;
        source.drop_slot().await?;
        source.unpublish().await?;
        source.drop_indexes().await?;
        target.delete().await?;
        target.drop_indexes().await?;
        target.guard(&journal.held_by(&entry.target).await?).await?;
        journal.end(&entry, "aborted").await?;
        Ok(entry.buckets())
    }

    async fn journal(&self) -> Result<Journal, MoveError> {
        let (_, options) = self.admin(HOME)?;
        Journal::open(connect(HOME, options, "holdfast-journal").await?).await
    }

    async fn sides(
        &self,
        source: &str,
        target: &str,
        range: (i16, i16),
    ) -> Result<Sides, MoveError> {
        let side = async |name: &str| {
            let connection = connect(name, self.admin(name)?.1, WORKER).await?;
            Ok(Side::new(name, connection, self.tables, range))
        };
        Ok(Sides {
            source: side(source).await?,
            target: side(target).await?,
        })
    }

    /// Where a cluster is reached by those who administrate it.
    fn admin(&self, name: &str) -> Result<(&SecretString, PgConnectOptions), MoveError> {
        let url = if name == HOME {
            let own = self.shards.home_admin_url.as_ref();
            own.unwrap_or(self.postgres.direct_url())
        } else {
            let cluster = self.shards.clusters.get(name);
            let cluster = cluster.ok_or_else(|| MoveError::UnknownCluster(name.to_owned()))?;
            cluster.admin_url.as_ref().unwrap_or(cluster.direct_url())
        };
        let options = parse(url).ok_or_else(|| MoveError::InvalidUrl(name.to_owned()))?;
        Ok((url, options))
    }

    /// Has Postgres copy the rows, until the target is close behind.
    async fn copy(&self, Sides { source, target }: &mut Sides) -> Result<(), MoveError> {
        // Whoever was killed while writes were held up left them so.
        source.unfence().await?;
        (self.say)("indexing the rows to move on both sides");
        source.index().await?;
        target.index().await?;
        source.publish().await?;
        if !target.is_subscribed().await? {
            source.drop_slot().await?;
            (self.say)("copying");
            let url = self.admin(&source.name)?.0;
            target.subscribe(url.expose_secret()).await?;
        }
        let is_close = async |source: &mut Side, target: &mut Side| {
            let is_copied = target.is_copied().await?;
            let behind = source.position().await? - source.applied().await?;
            Ok::<_, MoveError>(is_copied && behind < CLOSE_BYTES)
        };
        while !is_close(source, target).await? {
            sleep(COPY_POLL).await;
        }
        Ok(())
    }

    /// Holds up writes, compares, and switches the map. How many rows there are, and how long it took.
    async fn hand_over(
        &self,
        sides: &mut Sides,
        journal: &mut Journal,
        entry: &Entry,
    ) -> Result<(i64, Duration), MoveError> {
        let held = journal.held_by(&entry.target).await?;
        let moving = entry.buckets();
        sides
            .target
            .guard(&held.iter().chain(moving.iter()).collect())
            .await?;
        (self.say)("holding up writes to them");
        sides.source.fence().await?;
        let start = Instant::now();
        let verified = self.verify(sides, start).await;
        let rows = match verified {
            Ok(rows) => rows,
            Err(error) => {
                sides.source.bound(None).await?;
                sides.source.unfence().await?;
                return Err(error);
            }
        };
        // Should its outcome stay unknown, the fence has to stay too: run again, the journal tells.
        journal.switch(entry).await?;
        let pause = start.elapsed();
        (self.say)(&format!(
            "{rows} rows are the same on both sides; switched after {pause:?}"
        ));
        Ok((rows, pause))
    }

    /// Waits until the target has all that was written, and compares. How many rows there are.
    async fn verify(&self, sides: &mut Sides, start: Instant) -> Result<i64, MoveError> {
        let limit = self.shards.move_pause_max;
        let late = |step| MoveError::Timeout {
            step,
            limit,
            setting: "shards.move_pause_max",
        };
        let Sides { source, target } = sides;
        let end = source.position().await?;
        while source.applied().await? < end {
            if start.elapsed() >= limit {
                return Err(late("catching up while writes wait"));
            }
            sleep(FENCE_POLL).await;
        }
        let left = limit.saturating_sub(start.elapsed());
        source.bound(Some(left)).await?;
        target.bound(Some(left)).await?;
        let rows = match compare(sides, self.tables).await {
            Err(error) if is_out_of_time(&error) => {
                return Err(late("comparing both sides while writes wait"));
            }
            outcome => outcome?,
        };
        sides.source.bound(None).await?;
        sides.target.bound(None).await?;
        Ok(rows)
    }

    /// After everybody has the new map: deletes what the source still has, and everything the move had made.
    async fn clean_up(
        &self,
        Sides { source, target }: &mut Sides,
        journal: &mut Journal,
        entry: &Entry,
    ) -> Result<u64, MoveError> {
        // First of all, or what is deleted here would be deleted there.
        target.unsubscribe().await?;
        source.drop_slot().await?;
        source.unpublish().await?;
        let grace = self.shards.move_grace;
        let left = grace.saturating_sub(journal.since_switch(entry).await?);
        (self.say)(&format!(
            "waiting {left:?} until nobody can have an old map"
        ));
        sleep(left).await;
        (self.say)("deleting the rows on the source");
        let deleted = source.delete().await?;
        source.guard(&journal.held_by(&entry.source).await?).await?;
        source.unfence().await?;
        source.drop_indexes().await?;
        target.drop_indexes().await?;
        journal.end(entry, "done").await?;
        Ok(deleted)
    }
}
