//! Server-sent events: the same messages, for clients that cannot have a WebSocket. A browser comes back by itself, and says with which
//! token.

use std::convert::Infallible;

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures::{Stream, stream};
use http::{HeaderName, header};

use super::{
    model::{Close, Frame},
    stream::{OpenStream, Word},
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
pub(super) fn answer(open: OpenStream) -> Response {
    (HEADERS, Body::from_stream(events(open))).into_response()
}

fn events(open: OpenStream) -> impl Stream<Item = Result<Bytes, Infallible>> {
    stream::unfold(open, |mut open| async move {
        let word = open.next().await?;
        let mut events = text(&open, &word);
        while events.len() < EVENTS_BYTES
            && let Some(delivery) = open.try_next()
        {
            events += &event(&open, &Frame::Delivery(&delivery));
        }
        Some((Ok(events.into()), open))
    })
}

fn text(open: &OpenStream, word: &Word) -> String {
    match word {
        Word::Hello { is_delayed } => event(
            open,
            &Frame::Hello {
                is_delayed: *is_delayed,
            },
        ),
        Word::Delivery(delivery) => event(open, &Frame::Delivery(delivery)),
        Word::Token => event(open, &Frame::Token),
        Word::Nothing => ":\n\n".to_owned(),
        Word::Goodbye(Close::Restart) => {
            let after = open.reconnect_after();
            let last = event(open, &Frame::Reconnect { after });
            format!("retry: {}\n{last}", after.as_millis())
        }
        Word::Goodbye(close) => format!("data: {}\n\n", Frame::Close(*close).json("")),
    }
}

/// A browser says the event's id when it comes back.
fn event(open: &OpenStream, frame: &Frame<'_>) -> String {
    let token = open.token();
    // A line break would end the field.
    let json = frame.json(&token).replace('\n', "\ndata: ");
    format!("id: {token}\ndata: {json}\n\n")
}
