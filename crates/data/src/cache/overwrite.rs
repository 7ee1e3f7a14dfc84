//! Writes as Redis and the other processes hear of them: a value replaces whatever is there, a removal holds the key, and
//! both are published.

use std::time::Duration;

use deadpool_redis::redis::aio::MultiplexedConnection;
use deadpool_redis::redis::{Cmd, Pipeline, RedisResult, cmd, pipe};
use tokio::time::Instant;

use super::envelope::{self, Sealed};
use super::remote::{Name, Remote, set};
use crate::jitter;

impl Remote {
    /// Stores what was just written, over whatever is there; whether Redis did.
    pub(super) async fn put<V>(
        &self,
        name: &Name,
        sealed: &Sealed<V>,
        ttl: Duration,
        deadline: Instant,
    ) -> bool {
        let set = set(&name.redis_key, sealed.bytes(), jitter::around(ttl));
        self.overwrite(&[(name, set)], deadline).await
    }

    /// Takes the values away, and keeps loaders from filling the keys for `removal_hold`; whether Redis did.
    pub(super) async fn remove(&self, names: &[Name], deadline: Instant) -> bool {
        let holds: Vec<_> = names
            .iter()
            .map(|name| (name, self.hold(&name.redis_key)))
            .collect();
        self.overwrite(&holds, deadline).await
    }

    fn hold(&self, redis_key: &str) -> Cmd {
        let held = envelope::held(redis_key);
        set(redis_key, &held, jitter::around(self.removal_hold))
    }

    /// Writes and tells the other processes, in one round trip; each message comes after what it is about. While a new
    /// release replaces the last one, either keeps values of its own version, which the other's writes take away.
    async fn overwrite(&self, sets: &[(&Name, Cmd)], deadline: Instant) -> bool {
        let (mut write, mut forget) = (pipe(), pipe());
        for (name, set) in sets {
            let mut tell = cmd("PUBLISH");
            tell.arg(&self.channel)
                .arg(self.invalidations.message(self.name, &name.key));
            write.add_command(set.clone());
            forget.cmd("UNLINK").arg(&name.redis_key);
            for version in [self.version.wrapping_sub(1), self.version.wrapping_add(1)] {
                let neighbour = self.redis_key(version, &name.key);
                write.add_command(self.hold(&neighbour));
                forget.arg(neighbour);
            }
            write.add_command(tell.clone());
            forget.add_command(tell);
        }
        let written = self.redis.call(deadline, |mut connection| async move {
            match outcome_of_first(&mut write, &mut connection).await {
                // A full Redis takes no value, but forgets the old ones.
                Err(error) if !error.is_io_error() => {
                    outcome_of_first(&mut forget, &mut connection).await
                }
                written => written,
            }
        });
        let written = written.await;
        let is_written = written.is_ok();
        self.note(written);
        is_written
    }
}

/// Sends all commands and says how the first ended: what Redis refuses of one write it refuses of all. A message that may not be published is not missed: whoever is not
/// allowed to hear it keeps nothing for long.
async fn outcome_of_first(
    commands: &mut Pipeline,
    connection: &mut MultiplexedConnection,
) -> RedisResult<()> {
    let outcomes: Vec<RedisResult<()>> = commands.ignore_errors().query_async(connection).await?;
    outcomes.into_iter().next().unwrap_or(Ok(()))
}
