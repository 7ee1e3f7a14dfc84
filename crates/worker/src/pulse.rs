//! Signs of life, and word of new jobs: both on a connection of their own, because a pool that jobs have filled must not cost them their
//! leases.

use data::postgres::Listener;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::runner::Shared;
use crate::store;

/// What enqueuing says.
const CHANNEL: &str = "jobs";

/// Renews all leases again and again, and wakes who claims. Asked without leases too: it keeps the connection on which word comes.
pub(crate) async fn renew(shared: &Shared) {
    let mut listener = Listener::new(shared.clusters.clone(), CHANNEL, "holdfast-jobs");
    let mut ticks = interval(shared.config.heartbeat_interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = listener.heard() => shared.wake.notify_one(),
            _ = ticks.tick() => renew_once(shared, &mut listener).await,
        }
    }
}

async fn renew_once(shared: &Shared, listener: &mut Listener) {
    let (keys, lease) = (shared.held.keys(), shared.config.lease);
    // Before it is asked, so that the lease ends here no later than there.
    let begun = Instant::now();
    match listener.ask(store::renew(&keys, lease)).await {
        Ok(ours) => {
            let ours = ours.into_iter().collect();
            shared.held.renewed(&keys, &ours, begun + lease);
        }
        Err(error) => tracing::warn!(%error, "leases on jobs cannot be renewed now"),
    }
    shared.held.let_go_of_ended();
}
