//! Where a message stands, and how far a client has come.

use std::fmt::{self, Write};

/// A message's place in its topic: the id that Redis gave its entry in the stream. Later ones are greater.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Offset {
    /// When it was published, by the clock of Redis.
    pub ms: u64,
    /// Its number among those of the same millisecond.
    pub number: u64,
}

impl Offset {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (ms, number) = text.split_once('-')?;
        Some(Self {
            ms: ms.parse().ok()?,
            number: number.parse().ok()?,
        })
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.number)
    }
}

/// A place that means the same in every process. When Redis has lost its data there is another epoch, and no place of an earlier
/// one means anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    pub(super) epoch: u64,
    pub(super) offset: Offset,
}

/// How far a client has come in each of its topics. To the client it is one word without a meaning.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Token(Vec<(String, Position)>);

impl Token {
    /// Topics in one token; a longer one is none of ours.
    const TOPICS_MAX: usize = 16;

    /// Reads the text form back. What is none counts as none: its client is told to fetch anew.
    pub fn parse(text: &str) -> Option<Self> {
        let parts = text.split('~').take(Self::TOPICS_MAX + 1);
        let parts = parts.map(part).collect::<Option<Vec<_>>>()?;
        (parts.len() <= Self::TOPICS_MAX).then_some(Self(parts))
    }

    /// How far it is in a topic.
    pub(super) fn of(&self, topic: &str) -> Option<Position> {
        let mut parts = self.0.iter();
        parts
            .find(|(name, _)| name == topic)
            .map(|(_, position)| *position)
    }

    /// The text form, of letters that need no escape in a URL or a header.
    pub(super) fn write<'a>(parts: impl Iterator<Item = (&'a str, Position)>) -> String {
        let mut text = String::with_capacity(96);
        for (topic, Position { epoch, offset }) in parts {
            let between = if text.is_empty() { "" } else { "~" };
            let Offset { ms, number } = offset;
            write!(text, "{between}{topic}.{epoch:x}.{ms:x}.{number:x}")
                .expect("a string can be written to");
        }
        text
    }
}

fn part(text: &str) -> Option<(String, Position)> {
    let mut fields = text.split('.');
    let topic = fields.next()?.to_owned();
    let mut number = || u64::from_str_radix(fields.next()?, 16).ok();
    let (epoch, ms, number) = (number()?, number()?, number()?);
    let offset = Offset { ms, number };
    fields
        .next()
        .is_none()
        .then_some((topic, Position { epoch, offset }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(epoch: u64, ms: u64, number: u64) -> Position {
        let offset = Offset { ms, number };
        Position { epoch, offset }
    }

    #[test]
    fn a_token_reads_back_and_needs_no_escape() {
        let parts = [
            ("orders", position(u64::MAX, 1_764_000_000_000, 7)),
            ("stock", position(1, 0, 0)),
        ];

        let text = Token::write(parts.into_iter());
        let token = Token::parse(&text).unwrap();

        println!("{text}: {} bytes", text.len());
        assert!(
            text.bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b".~".contains(&byte))
        );
        assert_eq!(
            parts.map(|(topic, _)| token.of(topic)),
            parts.map(|(_, at)| Some(at))
        );
        assert_eq!(token.of("others"), None);
    }

    #[test]
    fn what_is_no_token_is_none() {
        let many = vec!["a.1.1.1"; 17].join("~");
        for text in [
            "",
            "~",
            "orders",
            "orders.1.2",
            "orders.1.2.3.4",
            "orders.x.2.3",
            "a.1.2.3~",
            "a.1.2.-3",
            &many,
        ] {
            assert_eq!(Token::parse(text), None, "{text}");
        }
    }
}
