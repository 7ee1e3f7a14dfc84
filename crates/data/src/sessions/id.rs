//! The secret that stands for a session. Only its hash is ever stored.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

/// 256 random bits. Shows nothing of itself in `Debug`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SessionId([u8; 32]);

impl SessionId {
    pub(super) fn random() -> Self {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes)
            .expect("the operating system has random bytes once it runs services");
        Self(bytes)
    }

    /// Reads the text form back; `None` unless it is exactly what [`SessionId::expose`] writes.
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        let length = URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).ok()?;
        (length == bytes.len()).then_some(Self(bytes))
    }

    /// The text form, 43 characters that need no quoting in a cookie. For the cookie only: never log it.
    pub fn expose(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.0)
    }

    /// What Redis gets to see: reading the store gives nobody a session.
    pub(super) fn hash(&self) -> String {
        URL_SAFE_NO_PAD.encode(Sha256::digest(self.0))
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionId(********)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_form_reads_back() {
        let id = SessionId::random();

        let text = id.expose();

        assert_eq!(text.len(), 43);
        assert_eq!(SessionId::parse(&text), Some(id));
    }

    #[test]
    fn other_text_is_no_id() {
        let text = SessionId::random().expose();

        let long = format!("{text}A");
        let padded = format!("{text}=");
        let short = &text[1..];

        for wrong in ["", "*", short, long.as_str(), padded.as_str()] {
            assert_eq!(SessionId::parse(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn debug_output_holds_nothing_of_the_id() {
        let id = SessionId::random();

        let shown = format!("{id:?}");

        assert_eq!(shown, "SessionId(********)");
    }
}
