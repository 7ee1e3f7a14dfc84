//! One message, as it is published and as it lies in the stream.

use uuid::Uuid;

use super::place::{Offset, Position};

/// What one costs beside its body, about.
const OVERHEAD_BYTES: usize = 128;

/// Something that has happened, the same for all who hear of it.
#[derive(Debug, PartialEq)]
pub struct Message {
    /// The event's own id. One that is published twice has the same both times.
    pub id: Uuid,
    /// Whose it is, or what it is about.
    pub key: Uuid,
    /// JSON.
    pub body: Box<str>,
    pub(super) position: Position,
    /// The message before it in the topic, whoever's that is.
    pub(super) previous: Offset,
}

impl Message {
    /// When it was published, by the clock of Redis, in milliseconds since 1970.
    pub fn published_ms(&self) -> u64 {
        self.position.offset.ms
    }

    pub(super) fn offset(&self) -> Offset {
        self.position.offset
    }

    pub(super) fn bytes(&self) -> usize {
        self.body.len() + OVERHEAD_BYTES
    }

    /// Reads what `publish.lua` has published.
    pub(super) fn from_payload(payload: &[u8]) -> Option<Self> {
        let mut fields = std::str::from_utf8(payload).ok()?.splitn(6, ' ');
        let epoch = epoch(fields.next()?)?;
        let fields = [(); 5].map(|()| fields.next());
        Self::from_fields(
            epoch,
            [fields[0]?, fields[1]?, fields[2]?, fields[3]?, fields[4]?],
        )
    }

    /// Reads an entry: place, the one before it, id, key, body.
    pub(super) fn from_fields(
        epoch: u64,
        [place, previous, id, key, body]: [&str; 5],
    ) -> Option<Self> {
        let offset = Offset::parse(place)?;
        Some(Self {
            id: id.parse().ok()?,
            key: key.parse().ok()?,
            body: body.into(),
            position: Position { epoch, offset },
            previous: Offset::parse(previous)?,
        })
    }
}

pub(super) fn epoch(text: &str) -> Option<u64> {
    u64::from_str_radix(text, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_reads_back_with_spaces_in_its_body() {
        let id = Uuid::from_u128(1);
        let payload = format!("ff 12-3 11-0 {id} {id} {{\"a\": \"b c\"}}");

        let message = Message::from_payload(payload.as_bytes()).unwrap();

        assert_eq!(&*message.body, r#"{"a": "b c"}"#);
        assert_eq!(message.position.epoch, 255);
        assert_eq!(message.previous, Offset { ms: 11, number: 0 });
        assert_eq!((message.id, message.published_ms()), (id, 12));
    }

    #[test]
    fn what_is_no_message_of_ours_is_none() {
        for payload in [
            b"" as &[u8],
            b"\xff",
            b"ff 12-3 11-0 x y {}",
            b"ff 12 11-0",
            b"x",
        ] {
            assert_eq!(Message::from_payload(payload), None);
        }
    }
}
