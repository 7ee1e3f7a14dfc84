//! The background: takes over what is set by hand and what the remote service says, carries out what operators order, looks at the load, and keeps the copy.

use std::{array, sync::Arc};

use data::{
    flags::{Follower, NewOverride, Override},
    postgres::Clusters,
};
use futures::future::join3;
use resilience::{admission::Admission, brownout::Brownout};
use tokio::{
    sync::oneshot,
    time::{Duration, Instant, MissedTickBehavior, interval, sleep, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::{
    Flags,
    copy::Copy,
    list::Flag,
    state::{ByHand, COUNT, Knowledge},
};

/// How often the load is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// The pause after a reading, however many changes there is word of.
const PAUSE: Duration = Duration::from_millis(10);

/// What an operator orders.
#[derive(Clone, Debug)]
pub struct Change {
    pub flag: Flag,
    /// None: the flag is left to the code again.
    pub set: Option<Set>,
}

/// What a flag is to be set to.
#[derive(Clone, Debug)]
pub struct Set {
    pub value: bool,
    pub reason: String,
    pub changed_by: String,
    pub ttl: Duration,
}

pub(super) struct Order {
    change: Change,
    answer: oneshot::Sender<Result<(), data::Error>>,
}

impl Flags {
    /// Keeps the flags as they are set and as the load wants them, until `stop`. To be run by one task for as long as
    /// the process lives.
    pub async fn keep(self, clusters: Clusters, admission: Admission, stop: CancellationToken) {
        let all = join3(
            self.follow(Follower::new(clusters)),
            self.follow_service(),
            self.watch_load(&admission),
        );
        stop.run_until_cancelled(all).await;
    }

    /// Has a change made for the whole fleet, and is back when this process goes by it.
    ///
    /// # Errors
    /// When it was not confirmed until `deadline`; it may come to be nevertheless, and may be ordered again.
    pub async fn order(&self, change: Change, deadline: Instant) -> Result<(), data::Error> {
        let late = || data::Error::Deadline {
            dependency: "postgres-primary",
        };
        let (answer, answered) = oneshot::channel();
        let order = async {
            let sent = self.0.orders.send(Order { change, answer }).await;
            sent.map_err(|_| late())?;
            answered.await.map_err(|_| late())?
        };
        timeout_at(deadline, order)
            .await
            .unwrap_or_else(|_| Err(late()))
    }

    async fn follow(&self, mut follower: Follower) {
        let mut orders = self.0.ordered.lock().await;
        let mut ticks = interval(self.0.config.poll_interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut last_read, mut was_read) = (Instant::now(), true);
        loop {
            let order = tokio::select! {
                order = orders.recv() => order,
                _ = ticks.tick() => None,
                () = follower.changed() => None,
            };
            let ordered = match &order {
                Some(order) => carry_out(&order.change, &mut follower).await,
                None => Ok(()),
            };
            let read = follower.read().await;
            // Said once, and not at every look.
            if let (Err(error), true) = (&read, was_read) {
                let cause = std::error::Error::source(error).map(ToString::to_string);
                tracing::warn!(%error, cause, "it cannot be found out which flags are set by hand");
            }
            was_read = read.is_ok();
            match read {
                Ok(overrides) => {
                    last_read = Instant::now();
                    self.take_over(overrides);
                    self.copy().await;
                }
                Err(_) if last_read.elapsed() >= self.0.config.stale_after => self.grow_stale(),
                Err(_) => {}
            }
            if let Some(Order { answer, .. }) = order {
                // An operator who has gone finds it in the list.
                let _ = answer.send(ordered);
            }
            sleep(PAUSE).await;
        }
    }

    fn take_over(&self, overrides: Vec<Override>) {
        let now = Instant::now();
        let mut by_hand = array::from_fn::<_, COUNT, _>(|_| None);
        for set in overrides {
            let flag = Flag::named(&set.name);
            let set = ByHand::of(set, now).map(Arc::new);
            // A name that this release does not know is another's.
            if let Some(flag) = flag {
                by_hand[flag as usize] = set;
            }
        }
        self.change(|state| {
            for flag in Flag::ALL {
                let (before, after) = (state.by_hand(flag), by_hand[flag as usize].as_deref());
                let [before, after] = [before, after].map(|set| set.map(|set| set.value));
                if before != after {
                    let (flag, by_hand) = (flag.name(), after);
                    tracing::info!(flag, by_hand, "a flag was set, or left to the code again");
                }
            }
            state.by_hand = by_hand;
            state.store = Knowledge::Current;
        });
    }

    /// What is known goes on to count.
    fn grow_stale(&self) {
        if self.0.state.load().store == Knowledge::Current {
            self.change(|state| state.store = Knowledge::Stale);
        }
    }

    pub(super) async fn copy(&self) {
        let Some(copies) = &self.0.copies else {
            return;
        };
        let copy = Copy::of(&self.0.state.load());
        if let Err(error) = copies.write(&copy).await {
            // Tried again with each reading, so it is said once, and counted.
            if self.0.metrics.copies_failed.inc() == 0 {
                tracing::warn!(%error, "the copy of the flags cannot be written");
            }
        }
    }

    async fn watch_load(&self, admission: &Admission) {
        let mut brownout = Brownout::new(&self.0.config.brownout, Flag::BROWNOUT.len());
        let mut level = 0;
        let mut ticks = interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let now = ticks.tick().await;
            let wanted = brownout.look(now, admission.is_overloaded());
            if wanted != level {
                let flag = Flag::BROWNOUT[wanted.min(level)].name();
                match wanted > level {
                    true => tracing::warn!(flag, level = wanted, "overloaded: switched off"),
                    false => tracing::info!(flag, level = wanted, "no longer overloaded: back on"),
                }
                level = wanted;
                self.change(|state| state.level = level);
            }
        }
    }
}

async fn carry_out(change: &Change, follower: &mut Follower) -> Result<(), data::Error> {
    let name = change.flag.name();
    let Some(set) = &change.set else {
        return follower.unset(name).await;
    };
    follower
        .set(&NewOverride {
            name,
            value: set.value,
            reason: &set.reason,
            changed_by: &set.changed_by,
            ttl: set.ttl,
        })
        .await
}
