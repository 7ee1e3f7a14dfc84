//! A job in its handler's hands.

use data::Error;
use data::postgres::{Clusters, Consistency, Db, Place, Tx};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::context::Origin;
use crate::held::Hold;
use crate::store::{self, Key};

/// See the module.
#[derive(Debug)]
pub struct Running<J> {
    /// What is to be done.
    pub job: J,
    pub(crate) common: Common,
}

/// What jobs of all kinds have.
#[derive(Debug)]
pub(crate) struct Common {
    pub(crate) key: Key,
    pub(crate) attempt: i32,
    pub(crate) origin: Origin,
    pub(crate) clusters: Clusters,
    pub(crate) consistency: Consistency,
    pub(crate) deadline: Instant,
    pub(crate) hold: Hold,
    pub(crate) stopping: CancellationToken,
}

impl<J> Running<J> {
    /// Its number, the same in each attempt: what to name towards others who are to do a thing once.
    pub fn id(&self) -> i64 {
        self.common.key.0
    }

    /// From 1 on.
    pub fn attempt(&self) -> i32 {
        self.common.attempt
    }

    /// Who enqueued it.
    pub fn origin(&self) -> &Origin {
        &self.common.origin
    }

    /// When the attempt is over.
    pub fn deadline(&self) -> Instant {
        self.common.deadline
    }

    /// The database until then. Its reads see what the enqueuer saw and committed.
    pub fn db(&self) -> Db {
        let common = &self.common;
        let db = common.clusters.db(common.deadline);
        db.consistent(common.consistency.clone())
    }

    /// Ends the job when the transaction commits, so that what else it writes takes effect exactly once. To be followed by
    /// `Outcome::Done`.
    ///
    /// # Errors
    /// `LeaseLost` when the job is somebody else's by now, or was cancelled. Propagated, that rolls the transaction back. `NotAtHome`
    /// on another cluster; as any statement of a transaction.
    pub async fn finish<P: Place>(&self, tx: &mut Tx<P>) -> Result<(), Error> {
        tx.check_at_home()?;
        self.common.hold.finishing();
        store::finish(tx, self.common.key).await
    }

    /// Waits until the process is about to end. For what takes long and can stop halfway: with `Outcome::Snooze` it goes on elsewhere.
    pub async fn stopping(&self) {
        self.common.stopping.cancelled().await;
    }
}
