//! One WebSocket, from its opening to its end.

use std::{convert::Infallible, pin::pin, time::Duration};

use axum::{
    extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade},
    response::Response,
};
use bytes::Bytes;
use data::feed::Subscriber;
use futures::SinkExt;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::tungstenite::{self, error::ProtocolError};

use super::{
    Client, Live,
    config::Config,
    model::{Close, Frame},
};

/// What is read at once. A client sends next to nothing, and there are thousands.
const READ_BYTES: usize = 512;
/// What is written at once at most: several small messages, or one that is larger.
const WRITE_BYTES: usize = 4 * 1024;

/// Answers with a WebSocket.
pub(super) fn upgrade(upgrade: WebSocketUpgrade, live: Live, client: Client) -> Response {
    let bytes_max = live.0.config.message_bytes_max;
    upgrade
        .read_buffer_size(READ_BYTES)
        .write_buffer_size(WRITE_BYTES)
        .max_message_size(bytes_max)
        .max_frame_size(bytes_max)
        .on_upgrade(async move |socket| serve(socket, live, client).await)
}

/// How it ends.
enum End {
    /// The client has gone.
    Gone,
    /// The process ends. With the token of what the client has, if it has all that was written.
    Leave(Option<String>),
    /// The service closes it for another reason.
    Closed(Close),
}

/// What is to be written.
enum Step {
    Hello,
    News,
    Ping,
}

async fn serve(mut socket: WebSocket, live: Live, mut client: Client) {
    let Err(end) = converse(&mut socket, &live, &mut client).await;
    let patience = live.0.config.close_timeout;
    // There is nobody to hear of a failure to take leave.
    let _ = timeout(patience, take_leave(&mut socket, &live, end)).await;
}

/// Says why it ends, and waits until the client has heard of it.
async fn take_leave(socket: &mut WebSocket, live: &Live, end: End) -> Result<(), axum::Error> {
    let close = match end {
        End::Gone => return socket.close().await,
        End::Leave(token) => {
            if let Some(token) = token {
                let after = live.reconnect_after();
                let frame = Frame::Reconnect { after }.json(&token);
                socket.feed(text(frame)).await?;
            }
            Close::Restart
        }
        End::Closed(close) => close,
    };
    live.0.metrics.closed(close);
    tracing::debug!(reason = close.reason(), "a socket is closed");
    let frame = CloseFrame {
        code: close.code(),
        reason: close.reason().into(),
    };
    socket.send(Message::Close(Some(frame))).await?;
    while let Some(Ok(_)) = socket.recv().await {}
    Ok(())
}

/// Goes on until one of both ends it. Writing may take as long as the client takes to read, and must hold up nothing.
async fn converse(
    socket: &mut WebSocket,
    live: &Live,
    client: &mut Client,
) -> Result<Infallible, End> {
    let Client { subscriber, place } = client;
    let mut ended = pin!(place.session_ended());
    let mut leave = pin!(live.0.sockets.time_to_leave());
    let mut cut = pin!(subscriber.cut());
    let mut pulse = Pulse::new(&live.0.config);
    let mut step = Step::Hello;
    loop {
        tokio::select! {
            written = write(socket, live, subscriber, &step) => written?,
            () = &mut cut => return Err(End::Closed(Close::TooSlow)),
            () = &mut ended => return Err(End::Closed(Close::SessionEnded)),
            () = &mut leave => return Err(End::Leave(None)),
        }
        step = loop {
            tokio::select! {
                () = subscriber.filled() => break Step::News,
                heard = socket.recv() => {
                    judge(heard)?;
                    pulse.heard();
                }
                () = sleep_until(pulse.next) => {
                    pulse.beat()?;
                    break Step::Ping;
                }
                () = &mut ended => return Err(End::Closed(Close::SessionEnded)),
                () = &mut leave => return Err(End::Leave(Some(subscriber.token()))),
            }
        };
    }
}

async fn write(
    socket: &mut WebSocket,
    live: &Live,
    subscriber: &mut Subscriber,
    step: &Step,
) -> Result<(), End> {
    let gone = |_| End::Gone;
    match step {
        Step::Hello => {
            let frame = live.hello(subscriber);
            socket.feed(text(frame)).await.map_err(gone)?;
        }
        Step::News => {}
        Step::Ping => {
            socket
                .feed(Message::Ping(Bytes::new()))
                .await
                .map_err(gone)?;
            if subscriber.catch_up() {
                let frame = Frame::Token.json(&subscriber.token());
                socket.feed(text(frame)).await.map_err(gone)?;
            }
        }
    }
    let too_slow = |_| End::Closed(Close::TooSlow);
    while let Some(delivery) = subscriber.try_next().map_err(too_slow)? {
        let frame = live.delivered(&delivery, &subscriber.token());
        socket.feed(text(frame)).await.map_err(gone)?;
    }
    socket.flush().await.map_err(gone)
}

fn text(frame: String) -> Message {
    Message::Text(frame.into())
}

/// A client says nothing but that it is there, or takes leave.
fn judge(heard: Option<Result<Message, axum::Error>>) -> Result<(), End> {
    match heard {
        Some(Ok(Message::Ping(_) | Message::Pong(_))) => Ok(()),
        Some(Ok(Message::Close(_))) | None => Err(End::Gone),
        Some(Ok(Message::Text(_) | Message::Binary(_))) => Err(End::Closed(Close::Unexpected)),
        Some(Err(error)) => Err(judge_error(&*error.into_inner())),
    }
}

fn judge_error(error: &(dyn std::error::Error + Send + Sync + 'static)) -> End {
    use tungstenite::Error::{Capacity, Protocol, Utf8};
    match error.downcast_ref() {
        Some(Capacity(_)) => End::Closed(Close::TooLarge),
        Some(Protocol(ProtocolError::ResetWithoutClosingHandshake)) => End::Gone,
        Some(Protocol(_) | Utf8(_)) => End::Closed(Close::Broken),
        _ => End::Gone,
    }
}

/// Whether the client is still there.
struct Pulse {
    interval: Duration,
    patience: Duration,
    asked: Option<Instant>,
    /// When there is something to do.
    next: Instant,
}

impl Pulse {
    /// Sockets that were opened together are not asked together.
    fn new(config: &Config) -> Self {
        let first = config.ping_interval.mul_f64(fastrand::f64());
        Self {
            interval: config.ping_interval,
            patience: config.pong_timeout,
            asked: None,
            next: Instant::now() + first,
        }
    }

    /// Any word of the client says that it is there.
    fn heard(&mut self) {
        if let Some(asked) = self.asked.take() {
            self.next = asked + self.interval;
        }
    }

    /// It is time to ask, or was time to answer.
    fn beat(&mut self) -> Result<(), End> {
        if self.asked.is_some() {
            return Err(End::Closed(Close::Silent));
        }
        let now = Instant::now();
        self.asked = Some(now);
        self.next = now + self.patience;
        Ok(())
    }
}
