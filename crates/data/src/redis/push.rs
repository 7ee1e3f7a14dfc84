//! What the server sends on its own: the messages of a channel, and that the connection is gone.

use std::sync::{Arc, Weak};

use deadpool_redis::redis::aio::{AsyncPushSender, SendError};
use deadpool_redis::redis::{PushInfo, PushKind, Value};
use tokio::time::timeout;

use super::connection::{Failure, Peer};
use super::{Redis, Shared};

/// Hears a channel. It is called where the connection is read, so nothing in it may wait, and nothing has to queue.
pub(crate) trait Listener: Send + Sync {
    /// Somebody published this, perhaps this process.
    fn message(&self, payload: &[u8]);
    /// From now on no message is missed.
    fn subscribed(&self);
    /// Messages may be missed until `subscribed` is called again.
    fn lost(&self);
}

#[derive(Clone)]
pub(super) struct Subscription {
    channel: String,
    listener: Arc<dyn Listener>,
}

impl Redis {
    /// Has `listener` hear `channel` for as long as this handle lives, across reconnects.
    pub(crate) fn listen(&self, channel: String, listener: Arc<dyn Listener>) {
        self.0
            .listeners
            .send_modify(|all| all.push(Subscription { channel, listener }));
    }

    /// Subscribes on the connection in use. A server that refuses, by its access rules, still serves commands.
    pub(super) async fn subscribe_all(&self) {
        let subscriptions = self.0.listeners.borrow().clone();
        let Some(connection) = self.connection() else {
            return;
        };
        for Subscription { channel, listener } in subscriptions {
            let mut handle = connection.handle();
            let subscribed = timeout(self.0.config.connect_timeout, handle.subscribe(&channel));
            match subscribed.await {
                Ok(Ok(())) => listener.subscribed(),
                Ok(Err(error)) => tracing::warn!(
                    channel,
                    error = error.category(),
                    "Redis refused the subscription"
                ),
                Err(_) => self.abandon(connection.peer(), &Failure::Silence),
            }
        }
        // It may have been lost between the last answer and the call of `subscribed`.
        if connection.peer().is_closed() || !self.is_current(connection.peer()) {
            self.abandon(connection.peer(), &Failure::Closed);
            self.tell_lost();
        }
    }

    pub(super) fn tell_lost(&self) {
        for subscription in self.0.listeners.borrow().iter() {
            subscription.listener.lost();
        }
    }

    fn is_current(&self, peer: &Arc<Peer>) -> bool {
        self.connection()
            .is_some_and(|current| Arc::ptr_eq(current.peer(), peer))
    }
}

/// Where one connection delivers what it was sent.
pub(super) struct Pushes {
    shared: Weak<Shared>,
    peer: Arc<Peer>,
}

impl Pushes {
    pub(super) fn new(shared: &Arc<Shared>, peer: &Arc<Peer>) -> Self {
        Self {
            shared: Arc::downgrade(shared),
            peer: Arc::clone(peer),
        }
    }
}

impl AsyncPushSender for Pushes {
    fn send(&self, info: PushInfo) -> Result<(), SendError> {
        let Some(shared) = self.shared.upgrade() else {
            return Ok(());
        };
        match (info.kind, info.data.as_slice()) {
            (PushKind::Disconnection, _) => {
                self.peer.close();
                Redis(shared).abandon(&self.peer, &Failure::Closed);
            }
            (PushKind::Message, [Value::BulkString(channel), Value::BulkString(payload)]) => {
                for subscription in shared.listeners.borrow().iter() {
                    if subscription.channel.as_bytes() == channel {
                        subscription.listener.message(payload);
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }
}
