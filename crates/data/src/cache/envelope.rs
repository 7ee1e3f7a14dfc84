//! How a cached value lies in Redis: four bytes that say whose it is and of which kind, then JSON.
//!
//! Anything else under the key, cut short or written by somebody else, is no value.

use std::sync::Arc;

use serde::{Serialize, de::DeserializeOwned};

/// The service's mark and the format's number; a new format takes a new number.
const MARK: &[u8; 3] = b"hf1";
const PRESENT: u8 = b'+';
const ABSENT: u8 = b'-';
const HELD: u8 = b'!';

/// What the key holds.
pub(super) enum Content<V> {
    Present(Arc<V>),
    /// Known not to exist.
    Absent,
    /// Removed a moment ago: to be loaded, and not to be filled yet.
    Held,
}

pub(super) fn present<V: Serialize>(value: &V) -> serde_json::Result<Vec<u8>> {
    let mut bytes = prefix(PRESENT);
    serde_json::to_writer(&mut bytes, value)?;
    Ok(bytes)
}

pub(super) fn absent() -> Vec<u8> {
    prefix(ABSENT)
}

pub(super) fn held() -> Vec<u8> {
    prefix(HELD)
}

/// `None` for anything this version of the service did not write itself.
pub(super) fn open<V: DeserializeOwned>(bytes: &[u8]) -> Option<Content<V>> {
    let (kind, json) = bytes.strip_prefix(MARK)?.split_first()?;
    match (*kind, json) {
        (PRESENT, json) => serde_json::from_slice(json)
            .ok()
            .map(|value| Content::Present(Arc::new(value))),
        (ABSENT, []) => Some(Content::Absent),
        (HELD, []) => Some(Content::Held),
        _ => None,
    }
}

fn prefix(kind: u8) -> Vec<u8> {
    let mut bytes = MARK.to_vec();
    bytes.push(kind);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_survives_the_envelope() {
        let sealed = present(&vec![1, 2, 3]).unwrap();

        let opened = open::<Vec<i32>>(&sealed);

        assert!(matches!(opened, Some(Content::Present(value)) if *value == [1, 2, 3]));
    }

    #[test]
    fn whatever_was_not_written_here_is_no_value() {
        let whole = present(&"text").unwrap();
        let cut = &whole[..whole.len() - 1];

        for bytes in [
            b"" as &[u8],
            b"hf",
            b"hf1",
            b"hf1?",
            b"hf1-x",
            b"hf2+1",
            b"\"text\"",
            cut,
        ] {
            assert!(open::<String>(bytes).is_none(), "{bytes:?}");
        }
    }

    #[test]
    fn a_value_of_another_shape_is_no_value() {
        let sealed = present(&"text").unwrap();

        let opened = open::<Vec<i32>>(&sealed);

        assert!(opened.is_none());
    }
}
