//! The client's side of a Postgres session, read for the statements it runs (PostgreSQL documentation, "Message
//! Formats"). Reads plain sessions only; of an encrypted one nothing counts.

use std::collections::HashMap;

use bytes::{Buf, Bytes, BytesMut};

/// The major version in the first message of a session; requests for encryption have another in its place.
const PROTOCOL: u16 = 3;

/// What is known of one session from what its client has sent.
pub(super) struct Session {
    application: String,
    unread: BytesMut,
    stage: Stage,
    /// Statements by the name they were prepared under.
    prepared: HashMap<Bytes, String>,
    /// Statements by the portal they were last bound to.
    bound: HashMap<Bytes, String>,
}

#[derive(Clone, Copy, PartialEq)]
enum Stage {
    Starting,
    Counted,
    Ignored,
}

impl Session {
    /// A session that counts if it calls itself `application`.
    pub(super) fn of(application: &str) -> Self {
        Self {
            application: application.to_owned(),
            unread: BytesMut::new(),
            stage: Stage::Starting,
            prepared: HashMap::new(),
            bound: HashMap::new(),
        }
    }

    /// Whether the session counts, and the statements that these bytes run.
    pub(super) fn hear(&mut self, bytes: &[u8]) -> (bool, Vec<String>) {
        let mut run = Vec::new();
        if self.stage != Stage::Ignored {
            self.unread.extend_from_slice(bytes);
        }
        loop {
            let next = match self.stage {
                Stage::Starting => self.message(0).map(|(_, body)| self.start(body)),
                Stage::Counted => self
                    .message(1)
                    .map(|(kind, body)| run.extend(self.statement(kind, body))),
                Stage::Ignored => None,
            };
            if next.is_none() {
                return (self.stage == Stage::Counted, run);
            }
        }
    }

    /// The next whole message: its kind, which the first one has none of, and what follows its length.
    fn message(&mut self, kind_bytes: usize) -> Option<(Option<u8>, Bytes)> {
        let mut length = self.unread.get(kind_bytes..kind_bytes + 4)?;
        let end = kind_bytes + usize::try_from(length.get_u32()).ok()?;
        if end < kind_bytes + 4 || self.unread.len() < end {
            return None;
        }
        let mut message = self.unread.split_to(end).freeze();
        let kind = message.split_to(kind_bytes);
        message.advance(4);
        Some((kind.first().copied(), message))
    }

    fn start(&mut self, mut body: Bytes) {
        if body.len() < 4 || body.get_u16() != PROTOCOL {
            return;
        }
        body.advance(2);
        let fields: Vec<Bytes> =
            std::iter::from_fn(|| Some(text(&mut body)).filter(|text| !text.is_empty())).collect();
        let is_ours = fields
            .chunks_exact(2)
            .any(|pair| pair[0] == "application_name" && pair[1] == self.application);
        self.stage = if is_ours {
            Stage::Counted
        } else {
            Stage::Ignored
        };
    }

    /// The statement that a message runs, if it runs one.
    fn statement(&mut self, kind: Option<u8>, mut body: Bytes) -> Option<String> {
        let sql = |bytes: Bytes| String::from_utf8_lossy(&bytes).into_owned();
        match kind? {
            b'Q' => Some(sql(text(&mut body))),
            b'P' => {
                let name = text(&mut body);
                self.prepared.insert(name, sql(text(&mut body)));
                None
            }
            b'B' => {
                let portal = text(&mut body);
                let statement = self.prepared.get(&text(&mut body))?.clone();
                self.bound.insert(portal, statement);
                None
            }
            b'E' => self.bound.get(&text(&mut body)).cloned(),
            _ => None,
        }
    }
}

/// Takes a text with a NUL at its end.
fn text(bytes: &mut Bytes) -> Bytes {
    let end = bytes
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(bytes.len());
    let text = bytes.split_to(end);
    bytes.advance(usize::from(!bytes.is_empty()));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: &str, body: &str) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).unwrap();
        [kind.as_bytes(), &length.to_be_bytes(), body.as_bytes()].concat()
    }

    fn login(application: &str) -> Vec<u8> {
        message(
            "",
            &format!("\0\x03\0\0user\0me\0application_name\0{application}\0\0"),
        )
    }

    #[test]
    fn a_statement_is_counted_each_time_it_is_run_however_the_bytes_arrive() {
        // 1234 in the place of the version, as a client begins that would rather be encrypted.
        let asks_for_encryption = [8_u32.to_be_bytes(), 80_877_103_u32.to_be_bytes()].concat();
        let stream = [
            asks_for_encryption,
            login("ours"),
            message("P", "s1\0select 1\0\0\0"),
            message("D", "Ss1\0"),
            message("B", "\0s1\0\0\0\0\0\0\0"),
            message("E", "\0\0\0\0\0"),
            message("E", "\0\0\0\0\0"),
            message("S", ""),
            message("Q", "begin\0"),
        ]
        .concat();

        for size in [1, 7, stream.len()] {
            let mut session = Session::of("ours");
            let heard: Vec<String> = stream
                .chunks(size)
                .flat_map(|bytes| session.hear(bytes).1)
                .collect();
            assert_eq!(heard, ["select 1", "select 1", "begin"], "{size}");
        }
    }

    #[test]
    fn a_session_of_another_name_does_not_count() {
        let mut session = Session::of("ours");

        let heard = session.hear(&[login("theirs"), message("Q", "select 1\0")].concat());

        assert_eq!(heard, (false, Vec::new()));
    }
}
