//! What there is to hear, how it is asked for, and what is sent.

use std::time::Duration;

use data::feed::{Delivery, Interest, Token};
use garde::Validate;
use serde::Deserialize;
use utoipa::IntoParams;
use uuid::Uuid;

use crate::http::{ApiError, ApiResult};

/// Something that goes on. A new one is a variant here, and somebody who publishes to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic {
    /// What becomes of orders; each customer hears of their own.
    Orders,
    /// What is left of products.
    Stock,
}

/// The names of all topics.
pub const TOPICS: [&str; Topic::ALL.len()] = [Topic::Orders.name(), Topic::Stock.name()];

impl Topic {
    pub const ALL: [Self; 2] = [Self::Orders, Self::Stock];

    /// Its name in requests, tokens and metrics, and where it is published.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Orders => "orders",
            Self::Stock => "stock",
        }
    }

    /// The type of its messages.
    fn kind(self) -> &'static str {
        match self {
            Self::Orders => "order",
            Self::Stock => "stock",
        }
    }

    /// Whether it takes a session to hear of it.
    pub(super) fn is_private(self) -> bool {
        match self {
            Self::Orders => true,
            Self::Stock => false,
        }
    }

    /// What of it a client hears. None of what is another's.
    pub(super) fn interest(self, customer: Option<Uuid>) -> Option<Interest> {
        match self {
            Self::Orders => customer.map(Interest::Key),
            Self::Stock => Some(Interest::All),
        }
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|topic| topic.name() == name)
    }
}

/// What a client asks for.
#[derive(Deserialize, Validate, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct LiveParams {
    /// What to hear of, separated by commas: `orders` (the caller's own, with a session), `stock`. `stock` if nothing is said.
    #[garde(skip)]
    topics: Option<String>,
    /// The last `token` that came, to hear first what was missed since.
    #[garde(skip)]
    resume: Option<String>,
}

impl LiveParams {
    pub(super) fn topics(&self) -> ApiResult<Vec<Topic>> {
        let names = self.topics.as_deref().unwrap_or(Topic::Stock.name());
        let mut topics = Vec::new();
        for name in names.split(',') {
            let topic = Topic::named(name);
            let topic = topic.ok_or_else(|| {
                ApiError::field("topics", format!("must be some of {}", TOPICS.join(", ")))
            })?;
            if !topics.contains(&topic) {
                topics.push(topic);
            }
        }
        Ok(topics)
    }

    /// How far the client has come. `last_event_id` is newer than what its URL says: a browser repeats that one each time. One that
    /// cannot be read is one of which nobody knows what came after.
    pub(super) fn resume(&self, last_event_id: Option<&str>) -> Option<Token> {
        last_event_id.or(self.resume.as_deref()).and_then(resume)
    }
}

/// How far a client says that it has come, if it says anything.
pub(super) fn resume(said: &str) -> Option<Token> {
    (!said.is_empty()).then(|| Token::parse(said).unwrap_or_default())
}

/// What is sent, each as one JSON object in which `type` says which it is.
pub(super) enum Frame<'a> {
    /// The first one. Whether messages may come late at the moment.
    Hello { is_delayed: bool },
    /// Something has happened, or was missed.
    Delivery(&'a Delivery),
    /// Nothing has happened for this client; a newer token for the one it has.
    Token,
    /// The socket is about to be closed, and the client to come back after a while, with the token.
    Reconnect { after: Duration },
    /// The stream is at its end. A WebSocket says so by its own means.
    Close(Close),
}

impl Frame<'_> {
    pub(super) fn json(&self, token: &str) -> String {
        match self {
            Self::Hello { is_delayed } => {
                format!(r#"{{"type":"hello","token":"{token}","delayed":{is_delayed}}}"#)
            }
            Self::Delivery(Delivery::Message { topic, message, .. }) => {
                let kind = Topic::named(topic).map_or("", Topic::kind);
                let (id, body) = (message.id, &message.body);
                format!(r#"{{"type":"{kind}","token":"{token}","id":"{id}","data":{body}}}"#)
            }
            Self::Delivery(Delivery::Refetch { topic }) => {
                format!(r#"{{"type":"refetch","token":"{token}","topic":"{topic}"}}"#)
            }
            Self::Token => format!(r#"{{"type":"token","token":"{token}"}}"#),
            Self::Reconnect { after } => {
                let after_ms = after.as_millis();
                format!(r#"{{"type":"reconnect","token":"{token}","after_ms":{after_ms}}}"#)
            }
            Self::Close(close) => {
                let (code, reason) = (close.code(), close.reason());
                format!(r#"{{"type":"close","code":{code},"reason":"{reason}"}}"#)
            }
        }
    }
}

/// Why the service closes a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    /// The process ends: come back.
    Restart,
    /// The client's session has ended: sign in again.
    SessionEnded,
    /// The client does not read as fast as things happen: come back, or ask for less.
    TooSlow,
    /// The client has not said that it is there.
    Silent,
    /// The client has sent what nobody asked for.
    Unexpected,
    /// The client has sent too much.
    TooLarge,
    /// The client does not speak the protocol.
    Broken,
}

impl Close {
    /// Its code in the closing frame (RFC 6455 section 7.4, and the IANA's registry for 1012).
    pub(super) fn code(self) -> u16 {
        match self {
            Self::Broken => 1002,
            Self::Unexpected => 1008,
            Self::TooLarge => 1009,
            Self::Restart => 1012,
            Self::SessionEnded => 4001,
            Self::TooSlow => 4008,
            Self::Silent => 4009,
        }
    }

    /// Its name to clients, also in metrics.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Restart => "restart",
            Self::SessionEnded => "session_ended",
            Self::TooSlow => "too_slow",
            Self::Silent => "silent",
            Self::Unexpected => "unexpected",
            Self::TooLarge => "too_large",
            Self::Broken => "broken",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(topics: &str, resume: &str) -> LiveParams {
        LiveParams {
            topics: Some(topics.to_owned()),
            resume: Some(resume.to_owned()),
        }
    }

    #[test]
    fn topics_are_asked_for_by_name_and_once() {
        use Topic::{Orders, Stock};
        let topics = |text| params(text, "").topics().ok();

        assert_eq!(topics("stock"), Some(vec![Stock]));
        assert_eq!(topics("stock,orders,stock"), Some(vec![Stock, Orders]));
        assert_eq!(topics(""), None);
        assert_eq!(topics("stock,users"), None);
    }

    #[test]
    fn a_token_that_cannot_be_read_is_not_the_same_as_none() {
        let asked = params("stock", "stock.1.2.3");

        assert_eq!(params("stock", "").resume(None), None);
        assert_eq!(params("stock", "?").resume(None), Some(Token::default()));
        assert_ne!(asked.resume(None), Some(Token::default()));
        assert_ne!(asked.resume(Some("stock.1.2.4")), asked.resume(None));
    }

    #[test]
    fn every_frame_is_json() {
        let refetch = Delivery::Refetch { topic: "stock" };
        let frames = [
            Frame::Hello { is_delayed: true },
            Frame::Delivery(&refetch),
            Frame::Token,
            Frame::Reconnect {
                after: Duration::from_millis(7),
            },
            Frame::Close(Close::TooSlow),
        ];
        for frame in frames {
            let json = frame.json("stock.1.2.3");
            let value: serde_json::Value = serde_json::from_str(&json).unwrap();
            println!("{json}");
            assert!(value["type"].is_string());
        }
    }
}
