//! Requests that are sent again and must not take effect again: one record for each idempotency key, in Postgres, because an
//! effect, the record of it and the answer commit in one transaction there or not at all. Redis may be away.
//!
//! A request claims its key, which is then its own until a lease ends. Whoever takes over after that does so with a fencing token
//! of his own, so a claimant that was only slow can no longer commit anything that names the old one. Work of several steps leaves a point
//! behind with each, from which it is resumed.

mod config;
mod store;
mod sweep;

use std::time::Duration;

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::Error;
use crate::postgres::{Db, Place, Tx};

pub use config::Config;
pub use sweep::sweep;

/// A request that came with a key.
#[derive(Debug)]
pub struct Request<'a> {
    /// What it asks for, such as a method and a path.
    pub operation: &'a str,
    /// Whose key it is. Another caller's is another key.
    pub caller: Uuid,
    /// The caller's name for the request.
    pub key: &'a str,
    /// A digest of all that makes it the same request.
    pub fingerprint: [u8; 32],
}

impl Request<'_> {
    fn key_hash(&self) -> [u8; 32] {
        Sha256::new()
            .chain_update(self.caller.as_bytes())
            .chain_update(self.key)
            .finalize()
            .into()
    }
}

/// What became of a claim.
#[derive(Debug)]
pub enum Claimed {
    /// The key is the claimant's, to begin or to resume.
    Ours(Claim),
    /// The request was answered before; until when that is remembered.
    Answered(Answer, OffsetDateTime),
    /// Somebody else is at it.
    Running,
    /// The key was used for another request.
    OtherRequest,
}

/// An answer that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its code.
    pub status: u16,
    /// Names and values.
    pub headers: Vec<(String, String)>,
    /// The bytes as they were sent.
    pub body: Bytes,
}

impl Answer {
    fn headers_json(&self) -> Result<serde_json::Value, Error> {
        serde_json::to_value(&self.headers).map_err(Error::encoding)
    }
}

/// A key that is one's own for as long as the lease lasts.
#[derive(Clone, Debug)]
pub struct Claim {
    key_hash: [u8; 32],
    fence: i64,
    caller: Uuid,
    point: Option<serde_json::Value>,
    expires_at: OffsetDateTime,
}

/// Claims the key of a request. One round trip.
///
/// # Errors
/// As any statement on the primary.
pub async fn claim(db: &Db, config: &Config, request: &Request<'_>) -> Result<Claimed, Error> {
    let claimed = store::claim(&db.write(), config, request).await?;
    if matches!(claimed, Claimed::Answered(..)) {
        // What was written then, the client's next read has to see as if it had been written now.
        db.hand_on(request.caller).await;
    }
    Ok(claimed)
}

/// Claims a key whose work has begun and was left by everyone for `age`. None when there is none.
///
/// # Errors
/// As any statement on the primary.
pub async fn claim_abandoned(
    db: &Db,
    config: &Config,
    operation: &str,
    age: Duration,
) -> Result<Option<Claim>, Error> {
    store::claim_abandoned(&db.write(), config, operation, age).await
}

/// What writes here fails with [`Error::LeaseLost`] when the key is somebody else's by now. Propagated, that rolls the transaction back.
/// So it does in a transaction on another cluster than home, where there is no such record.
impl Claim {
    /// Whose key it is.
    pub fn caller(&self) -> Uuid {
        self.caller
    }

    /// From when on the answer is no longer remembered.
    pub fn expires_at(&self) -> OffsetDateTime {
        self.expires_at
    }

    /// The point from which the work is to be resumed. None: from the beginning.
    ///
    /// # Errors
    /// `Encoding` for a point that another version has left and this one cannot read.
    pub fn point<T: DeserializeOwned>(&self) -> Result<Option<T>, Error> {
        let read = |point: &serde_json::Value| T::deserialize(point).map_err(Error::encoding);
        self.point.as_ref().map(read).transpose()
    }

    /// The work has come as far as this when the transaction commits.
    ///
    /// # Errors
    /// `LeaseLost`; as any statement of a transaction.
    pub async fn reach<P: Place>(
        &self,
        tx: &mut Tx<P>,
        point: &impl Serialize,
    ) -> Result<(), Error> {
        let point = serde_json::to_value(point).map_err(Error::encoding)?;
        store::reach(tx, self, &point).await
    }

    /// The work is done and answered so when the transaction commits.
    ///
    /// # Errors
    /// `LeaseLost`; as any statement of a transaction.
    pub async fn finish<P: Place>(&self, tx: &mut Tx<P>, answer: &Answer) -> Result<(), Error> {
        store::finish(tx, self, answer).await
    }

    /// Nothing was done, and that is the answer. One round trip.
    ///
    /// # Errors
    /// `LeaseLost`; as any statement on the primary.
    pub async fn answer(&self, db: &Db, answer: &Answer) -> Result<(), Error> {
        store::answer(&db.write(), self, answer).await
    }

    /// Lets the same request be tried again at once, from the point it has reached.
    ///
    /// # Errors
    /// As any statement on the primary.
    pub async fn release(&self, db: &Db) -> Result<(), Error> {
        store::release(&db.write(), self).await
    }
}
