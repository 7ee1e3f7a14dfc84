//! What happens when this process does not have a value: Redis is asked, another process is waited for, the source is
//! asked, and both levels are filled. Also in the background, for a value that is about to expire.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use super::entry::Entry;
use super::envelope::{Head, Sealed};
use super::namespace::Inner;
use super::remote::{Look, Name, Remote};
use super::source::Source;
use crate::{Error, jitter};

/// The first pause between two looks whether another process has loaded what this one waits for. Each next one doubles,
/// so a quick load is seen soon and a slow one is not asked for often. One per process and key waits, so they are few.
const LOOK_AGAIN_MIN: Duration = Duration::from_millis(1);
const LOOK_AGAIN_MAX: Duration = Duration::from_millis(20);

/// Where a loaded value is kept.
#[derive(Clone, Copy)]
enum Keep {
    /// Here, and in Redis in the place of this process's claim, or of nothing.
    Both(Option<Head>),
    /// Here, and in Redis in the place of the value that was seen there.
    Instead(Head),
    /// Redis was away a moment ago, and is not waited for again.
    Here,
    /// It may be older than a removal, so only those get it who wait for it now.
    Nowhere,
}

impl<S: Source> Inner<S> {
    /// What Redis has, else what the source has.
    pub(super) async fn fetch(
        &self,
        key: &S::Key,
        deadline: Instant,
    ) -> Result<Arc<Entry<S::Value>>, Error> {
        let generation = self.local.generation(key);
        let name = self.remote.name(key);
        let (keep, stale) = match self.look_or_wait(&name, deadline).await {
            Look::Value(sealed) if !self.is_expired(sealed.age) => {
                return Ok(self.entry(Some(sealed), generation));
            }
            Look::Value(sealed) => (Keep::Instead(sealed.head()), Some(sealed)),
            Look::Absent => return Ok(self.entry(None, generation)),
            Look::Unknown(seen) => (Keep::Both(seen), None),
            Look::Claimed => (Keep::Both(None), None),
            Look::Held => (Keep::Nowhere, None),
            Look::Away => (Keep::Here, None),
        };
        let limit = match stale {
            // Time is left to serve the old value if the load takes too long.
            Some(_) => halfway(deadline),
            None => deadline,
        };
        let loaded = self.load(key, &name, (keep, generation), limit).await;
        match (loaded, stale) {
            (Err(error), Some(stale)) if error.is_transient() => {
                Ok(self.degraded(stale, generation))
            }
            (loaded, _) => loaded,
        }
    }

    /// Looks until there is something to do: a value, or a load that is this process's to do. Another process is waited
    /// for as long as its claim may last, and at most half of the time there is.
    async fn look_or_wait(&self, name: &Name, deadline: Instant) -> Look<S::Value> {
        let patience = halfway(deadline).min(Instant::now() + self.config.load_lock);
        let mut pause = LOOK_AGAIN_MIN;
        loop {
            let look = self.remote.look(name, deadline).await;
            let is_elsewhere = match &look {
                Look::Claimed => true,
                Look::Value(sealed) if self.is_expired(sealed.age) => {
                    !self.remote.claim_reload(name, deadline).await
                }
                Look::Value(_) | Look::Absent | Look::Held | Look::Unknown(_) | Look::Away => false,
            };
            if !is_elsewhere || Instant::now() >= patience {
                if is_elsewhere {
                    self.counters.wait_in_vain.inc();
                } else if pause > LOOK_AGAIN_MIN {
                    self.counters.wait_filled.inc();
                }
                return look;
            }
            sleep(jitter::up_to(pause)).await;
            pause = (pause * 2).min(LOOK_AGAIN_MAX);
        }
    }

    /// Asks the source, and fills.
    async fn load(
        &self,
        key: &S::Key,
        name: &Name,
        (keep, generation): (Keep, u64),
        deadline: Instant,
    ) -> Result<Arc<Entry<S::Value>>, Error> {
        let begun = Instant::now();
        let loaded = match timeout_at(deadline, self.source.load(key, deadline)).await {
            Ok(loaded) => loaded,
            Err(_) => Err(Error::Deadline {
                dependency: "cache",
            }),
        };
        let is_failing = loaded.as_ref().is_err_and(Error::is_transient);
        self.is_failing.store(is_failing, Ordering::Relaxed);
        match loaded {
            Ok(value) => {
                self.counters.loaded.inc();
                let sealed = value
                    .map(|value| self.seal(name, value, begun.elapsed()))
                    .transpose()?;
                let keep = (keep, generation);
                Ok(self.keep(name, sealed.map(Arc::new), keep, deadline).await)
            }
            Err(error) => {
                self.counters.load_failed.inc();
                if let Keep::Both(Some(claim)) = keep {
                    self.remote.give_back(name, claim, deadline).await;
                }
                Err(error)
            }
        }
    }

    async fn keep(
        &self,
        name: &Name,
        loaded: Option<Arc<Sealed<S::Value>>>,
        (keep, generation): (Keep, u64),
        deadline: Instant,
    ) -> Arc<Entry<S::Value>> {
        let seen = match keep {
            Keep::Both(claim) => claim,
            Keep::Instead(seen) => Some(seen),
            Keep::Here => return self.entry(loaded, generation),
            Keep::Nowhere => return Arc::new(Entry::new(loaded, generation, Duration::ZERO)),
        };
        let absent = Remote::absent(name);
        let offer = match &loaded {
            Some(sealed) => (&sealed.bytes()[..], self.lifetime.whole()),
            None => (&absent[..], self.config.absent_ttl),
        };
        let there = self.remote.fill(name, seen, offer, deadline).await;
        match there {
            // A writer was faster, and what it left is newer.
            Some(Look::Value(newer)) => self.entry(Some(newer), generation),
            Some(Look::Absent) => self.entry(None, generation),
            Some(Look::Held) => Arc::new(Entry::new(loaded, generation, Duration::ZERO)),
            Some(Look::Unknown(_) | Look::Claimed | Look::Away) | None => {
                self.entry(loaded, generation)
            }
        }
    }

    /// Loads a value again while the one that is there is served.
    pub(super) async fn refresh(&self, key: S::Key, old: Head) {
        let deadline = Instant::now() + self.config.refresh_timeout;
        let generation = self.local.generation(&key);
        let name = self.remote.name(&key);
        let keep = match self.remote.look(&name, deadline).await {
            Look::Value(there) if there.head() != old => {
                self.counters.refreshed_elsewhere.inc();
                let entry = self.entry(Some(there), generation);
                return self.local.insert(key, entry).await;
            }
            Look::Value(_) if self.remote.claim_reload(&name, deadline).await => Keep::Instead(old),
            Look::Unknown(seen) => Keep::Both(seen),
            Look::Away => Keep::Here,
            Look::Value(_) | Look::Absent | Look::Held | Look::Claimed => {
                self.counters.refreshed_elsewhere.inc();
                return;
            }
        };
        match self.load(&key, &name, (keep, generation), deadline).await {
            Ok(entry) => {
                self.counters.refreshed.inc();
                self.local.insert(key, entry).await;
            }
            Err(error) => {
                self.counters.refresh_failed.inc();
                tracing::debug!(cache.namespace = self.remote.name, %error, "a refresh failed");
            }
        }
    }
}

fn halfway(deadline: Instant) -> Instant {
    let now = Instant::now();
    now + deadline.saturating_duration_since(now) / 2
}
