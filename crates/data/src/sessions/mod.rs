//! Sessions in Redis: any process serves any session, and ending one takes effect everywhere at once.
//!
//! There is no in-process copy, for that reason. Ids are stored hashed. Needs Redis 6.2, and one Redis rather
//! than a cluster: the scripts touch a session and its user's index together.

mod config;
mod id;
mod seen;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use deadpool_redis::redis::{ErrorKind, RedisError, Script, cmd, pipe};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use tokio::time::Instant;
use uuid::Uuid;

pub use self::config::Config;
pub use self::id::SessionId;
use crate::Error;
use crate::postgres::Positions;
use crate::rates::{self, Pace, Taken};
use crate::redis::Redis;

/// Whose session it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Session {
    /// The user who logged in.
    pub user_id: Uuid,
    /// What the user may do; the store does not read it.
    pub role: String,
    /// When the user logged in; the absolute timeout counts from here.
    #[serde(with = "time::serde::timestamp::milliseconds")]
    pub created_at: OffsetDateTime,
    /// What the session's requests have to see of the databases, see [`Sessions::remember`].
    #[serde(skip)]
    pub seen: Positions,
    /// What the look-up took of the user's quota, if it was to take any.
    #[serde(skip)]
    pub taken: Option<Taken>,
}

/// The quota of each user that a look-up takes one of.
#[derive(Clone, Copy, Debug)]
pub struct Quota<'a> {
    /// Its name, which is part of the key.
    pub policy: &'a str,
    /// How fast it comes back.
    pub pace: Pace,
}

/// The store. A clone is cheap.
#[derive(Clone)]
pub struct Sessions(Arc<Inner>);

struct Inner {
    redis: Redis,
    config: Config,
    create: Script,
    find: Script,
    remove: Script,
    remove_all: Script,
    remember: Script,
}

impl Sessions {
    /// A store in `redis`, under its key prefix.
    pub fn new(config: &Config, redis: Redis) -> Self {
        Self(Arc::new(Inner {
            redis,
            config: config.clone(),
            create: Script::new(include_str!("create.lua")),
            find: Script::new(&[rates::GCRA, include_str!("find.lua")].concat()),
            remove: Script::new(include_str!("remove.lua")),
            remove_all: Script::new(include_str!("remove_all.lua")),
            remember: Script::new(include_str!("remember.lua")),
        }))
    }

    /// Starts a session under a new random id, and ends the user's oldest ones above `per_user_max`.
    /// A login calls it and then removes the id the client came with: an id never changes its owner.
    ///
    /// # Errors
    /// As [`Redis::call`].
    pub async fn create(
        &self,
        user_id: Uuid,
        role: &str,
        deadline: Instant,
    ) -> Result<SessionId, Error> {
        let id = SessionId::random();
        let hash = id.hash();
        let session = Session {
            user_id,
            role: role.to_owned(),
            created_at: OffsetDateTime::now_utc(),
            seen: Positions::default(),
            taken: None,
        };
        let Config {
            idle_timeout,
            absolute_timeout,
            per_user_max,
        } = self.0.config;

        let mut call = self.0.create.key(self.session_key(&hash));
        call.key(self.index_key(&user_id.to_string()))
            .arg(serde_json::to_string(&session).expect("plain fields always encode"))
            .arg(millis(idle_timeout.min(absolute_timeout)))
            .arg(millis(absolute_timeout))
            .arg(session.created_at.unix_timestamp_nanos() / 1_000)
            .arg(per_user_max)
            .arg(self.session_key(""))
            .arg(&hash);
        let created: bool = self.0.redis.invoke(&call, deadline).await?;
        if created {
            Ok(id)
        } else {
            Err(refused("the new session id is taken"))
        }
    }

    /// The session, if it lives, with its idle time started anew, and one of its user's quota taken. One round trip; a second
    /// one only in the last `idle_timeout` of its absolute life, to keep Redis from holding it longer.
    ///
    /// # Errors
    /// As [`Redis::call`]. An unknown, ended or expired session is `None`.
    pub async fn find(
        &self,
        id: &SessionId,
        quota: Option<Quota<'_>>,
        deadline: Instant,
    ) -> Result<Option<Session>, Error> {
        let hash = id.hash();
        let key = self.session_key(&hash);
        let idle = self.0.config.idle_timeout;
        let mut call = self.0.find.key(&key);
        call.key(self.seen_key(&hash)).arg(millis(idle));
        if let Some(Quota { policy, pace }) = quota {
            let [interval, window] = pace.micros();
            call.arg(rates::key(&self.0.redis, policy, ""));
            call.arg(interval).arg(window);
        }
        let (record, seen, granted, whole_in): (Option<Vec<u8>>, HashMap<String, String>, _, _) =
            self.0.redis.invoke(&call, deadline).await?;
        let Some(record) = record else {
            return Ok(None);
        };
        let Ok(mut session) = serde_json::from_slice::<Session>(&record) else {
            tracing::warn!("a session record does not decode; it is treated as no session");
            return Ok(None);
        };
        session.seen = seen::read(&seen);
        session.taken = quota.map(|_| Taken::from((granted, whole_in)));

        let ends_at = session.created_at + self.0.config.absolute_timeout;
        let left = ends_at - OffsetDateTime::now_utc();
        if left < idle {
            // A time in the past deletes the key.
            let mut cap = cmd("PEXPIREAT");
            cap.arg(&key).arg(millis_of(ends_at));
            self.0.redis.query::<()>(&cap, deadline).await?;
        }
        Ok(left.is_positive().then_some(session))
    }

    /// Which of the sessions live, without starting their idle time anew. One round trip for all.
    ///
    /// # Errors
    /// As [`Redis::call`].
    pub async fn living(&self, ids: &[SessionId], deadline: Instant) -> Result<Vec<bool>, Error> {
        let mut all = pipe();
        for id in ids {
            all.exists(self.session_key(&id.hash()));
        }
        let ask = |mut connection| async move { all.query_async(&mut connection).await };
        self.0.redis.call(deadline, ask).await
    }

    /// Has the session's later requests see `positions`, whichever process they reach, for `ttl`.
    ///
    /// # Errors
    /// As [`Redis::call`].
    pub async fn remember(
        &self,
        id: &SessionId,
        positions: &Positions,
        ttl: Duration,
        deadline: Instant,
    ) -> Result<(), Error> {
        let mut call = self.0.remember.key(self.seen_key(&id.hash()));
        call.arg(millis(ttl));
        for position in positions.iter() {
            let (cluster, at) = seen::field(position);
            call.arg(cluster).arg(at);
        }
        self.0.redis.invoke(&call, deadline).await
    }

    /// Ends one session; whether there was one.
    ///
    /// # Errors
    /// As [`Redis::call`].
    pub async fn remove(&self, id: &SessionId, deadline: Instant) -> Result<bool, Error> {
        let hash = id.hash();
        let mut call = self.0.remove.key(self.session_key(&hash));
        call.arg(self.index_key("")).arg(&hash);
        self.0.redis.invoke(&call, deadline).await
    }

    /// Ends every session of a user, atomically; how many there were.
    ///
    /// # Errors
    /// As [`Redis::call`].
    pub async fn remove_all(&self, user_id: Uuid, deadline: Instant) -> Result<u64, Error> {
        let mut call = self.0.remove_all.key(self.index_key(&user_id.to_string()));
        call.arg(self.session_key(""));
        self.0.redis.invoke(&call, deadline).await
    }

    fn session_key(&self, hash: &str) -> String {
        self.0.redis.key(&["session", hash])
    }

    fn seen_key(&self, hash: &str) -> String {
        self.0.redis.key(&["session-seen", hash])
    }

    fn index_key(&self, user_id: &str) -> String {
        self.0.redis.key(&["user-sessions", user_id])
    }
}

fn refused(reason: &'static str) -> Error {
    Error::Command(Arc::new(RedisError::from((ErrorKind::Client, reason))))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Milliseconds since 1970, as Redis counts.
fn millis_of(at: OffsetDateTime) -> i64 {
    i64::try_from(at.unix_timestamp_nanos() / 1_000_000).unwrap_or(i64::MAX)
}
