//! One open stream, whatever carries it: what its client is to be told, from the first word to the last.

use std::{pin::Pin, time::Duration};

use data::feed::{Delivery, Subscriber};
use futures::future::BoxFuture;
use tokio::time::{Instant, Sleep, sleep};

use super::{Client, Live, model::Close};

/// A stream that is read. Dropped, it gives its place to another.
pub struct OpenStream {
    live: Live,
    subscriber: Subscriber,
    /// Ends with the reason to end; it holds the stream's place among all.
    end: BoxFuture<'static, Close>,
    /// Until the client's side has to hear something, be it nothing.
    idle: Pin<Box<Sleep>>,
    said: Said,
}

/// What the client is to be told.
pub enum Word {
    /// It has been let in; whether messages may come late at the moment.
    Hello { is_delayed: bool },
    /// Something has happened, or was missed.
    Delivery(Delivery),
    /// Nothing has happened for it, but its token is another.
    Token,
    /// Nothing has happened for `live.ping_interval`.
    Nothing,
    /// The last one.
    Goodbye(Close),
}

/// How far a stream is.
enum Said {
    Nothing,
    Hello,
    Goodbye,
}

impl OpenStream {
    pub(super) fn new(live: Live, client: Client) -> Self {
        let Client { subscriber, place } = client;
        let sockets = live.0.sockets.clone();
        let end = async move {
            tokio::select! {
                () = place.session_ended() => Close::SessionEnded,
                () = sockets.time_to_leave() => Close::Restart,
            }
        };
        Self {
            idle: Box::pin(sleep(live.0.config.ping_interval)),
            live,
            subscriber,
            end: Box::pin(end),
            said: Said::Nothing,
        }
    }

    /// What is to be said next, as soon as there is anything. None after the last word.
    pub async fn next(&mut self) -> Option<Word> {
        match self.said {
            Said::Goodbye => return None,
            Said::Nothing => {
                self.said = Said::Hello;
                let is_delayed = !self.live.0.hub.is_live();
                return Some(Word::Hello { is_delayed });
            }
            Said::Hello => {}
        }
        loop {
            match self.subscriber.try_next() {
                Ok(Some(delivery)) => return Some(Word::Delivery(self.counted(delivery))),
                Ok(None) => {}
                Err(_) => return Some(self.goodbye(Close::TooSlow)),
            }
            tokio::select! {
                close = &mut self.end => return Some(self.goodbye(close)),
                () = self.subscriber.filled() => {}
                () = &mut self.idle => return Some(self.sign_of_life()),
            }
        }
    }

    /// What waits already, to be said along with the word before. When the client is to be cut off, the next word says so.
    pub fn try_next(&mut self) -> Option<Delivery> {
        let Said::Hello = self.said else { return None };
        let delivery = self.subscriber.try_next().ok().flatten()?;
        Some(self.counted(delivery))
    }

    /// How far the client is, once it has all that was said.
    pub fn token(&self) -> String {
        self.subscriber.token()
    }

    /// After how long a client may come back, another time for each.
    pub fn reconnect_after(&self) -> Duration {
        self.live.reconnect_after()
    }

    fn counted(&self, delivery: Delivery) -> Delivery {
        self.live.count(&delivery);
        delivery
    }

    fn sign_of_life(&mut self) -> Word {
        let interval = self.live.0.config.ping_interval;
        self.idle.as_mut().reset(Instant::now() + interval);
        match self.subscriber.catch_up() {
            true => Word::Token,
            false => Word::Nothing,
        }
    }

    fn goodbye(&mut self, close: Close) -> Word {
        self.said = Said::Goodbye;
        self.live.0.metrics.closed(close);
        Word::Goodbye(close)
    }
}
