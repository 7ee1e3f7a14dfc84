//! One stream of server-sent events: the same messages, for clients that cannot have a WebSocket. A browser comes back by itself, and
//! says with which token.

use std::{convert::Infallible, pin::Pin};

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use data::feed::{Subscriber, TooSlow};
use futures::{Stream, future::BoxFuture, stream};
use http::{HeaderName, header};
use tokio::time::{Instant, Sleep, sleep};

use super::{
    Client, Live,
    model::{Close, Frame},
};

const HEADERS: [(HeaderName, &str); 3] = [
    (header::CONTENT_TYPE, "text/event-stream"),
    (header::CACHE_CONTROL, "no-store"),
    // Understood by nginx, which else holds back what is sent until there is more.
    (HeaderName::from_static("x-accel-buffering"), "no"),
];

/// About what is sent at once.
const EVENTS_BYTES: usize = 16 * 1024;

/// Answers with a stream.
pub(super) fn answer(live: Live, client: Client) -> Response {
    (HEADERS, Body::from_stream(events(live, client))).into_response()
}

fn events(live: Live, client: Client) -> impl Stream<Item = Result<Bytes, Infallible>> {
    let Client { subscriber, place } = client;
    let sockets = live.0.sockets.clone();
    let end = async move {
        tokio::select! {
            () = place.session_ended() => Close::SessionEnded,
            () = sockets.time_to_leave() => Close::Restart,
        }
    };
    let open = Open {
        idle: Box::pin(sleep(live.0.config.ping_interval)),
        live,
        subscriber,
        end: Box::pin(end),
        said: Said::Nothing,
    };
    stream::unfold(open, |mut open| async move {
        let events = open.next().await?;
        Some((Ok(events.into()), open))
    })
}

/// A stream that is read.
struct Open {
    live: Live,
    subscriber: Subscriber,
    /// Ends with the reason to end; it holds the stream's place among all.
    end: BoxFuture<'static, Close>,
    /// Until the client's side has to hear something, be it nothing.
    idle: Pin<Box<Sleep>>,
    said: Said,
}

/// How far a stream is.
enum Said {
    Nothing,
    Hello,
    Goodbye,
}

impl Open {
    /// What is to be sent next, as soon as there is anything.
    async fn next(&mut self) -> Option<String> {
        match self.said {
            Said::Goodbye => return None,
            Said::Nothing => {
                self.said = Said::Hello;
                return Some(self.event(&self.live.hello(&self.subscriber)));
            }
            Said::Hello => {}
        }
        loop {
            match self.news() {
                Ok(news) if !news.is_empty() => return Some(news),
                Ok(_) => {}
                Err(TooSlow) => return Some(self.goodbye(Close::TooSlow)),
            }
            tokio::select! {
                close = &mut self.end => return Some(self.goodbye(close)),
                () = self.subscriber.filled() => {}
                () = &mut self.idle => return Some(self.sign_of_life()),
            }
        }
    }

    /// All that waits, up to what is sent at once.
    fn news(&mut self) -> Result<String, TooSlow> {
        let mut news = String::new();
        while news.len() < EVENTS_BYTES
            && let Some(delivery) = self.subscriber.try_next()?
        {
            let token = self.subscriber.token();
            news += &self.event(&self.live.delivered(&delivery, &token));
        }
        Ok(news)
    }

    /// A browser says the event's id when it comes back.
    fn event(&self, json: &str) -> String {
        let token = self.subscriber.token();
        // A line break would end the field.
        let json = json.replace('\n', "\ndata: ");
        format!("id: {token}\ndata: {json}\n\n")
    }

    fn sign_of_life(&mut self) -> String {
        let interval = self.live.0.config.ping_interval;
        self.idle.as_mut().reset(Instant::now() + interval);
        match self.subscriber.catch_up() {
            true => self.event(&Frame::Token.json(&self.subscriber.token())),
            false => ":\n\n".to_owned(),
        }
    }

    fn goodbye(&mut self, close: Close) -> String {
        self.said = Said::Goodbye;
        self.live.0.metrics.closed(close);
        if close != Close::Restart {
            let json = Frame::Close(close).json("");
            return format!("data: {json}\n\n");
        }
        let after = self.live.0.config.reconnect_spread.mul_f64(fastrand::f64());
        let json = Frame::Reconnect { after }.json(&self.subscriber.token());
        format!("retry: {}\n{}", after.as_millis(), self.event(&json))
    }
}
