//! How a cached value lies in Redis: a head that says what it is, until when it is fresh and whose it is, then JSON.
//!
//! ```text
//! hf2 | kind | fresh until, ms since 1970 | load took, ms | check | JSON
//!  3  |  1   |             8              |       4       |   8   | rest
//! ```
//! The check covers the key and all other bytes. So what is cut short, mixed up, copied from another key or written by
//! somebody else is no value. It is no signature: whoever can write to Redis can make one.

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};

/// The service's mark and the format's number; a new format takes a new number.
const MARK: &[u8; 3] = b"hf2";
const PRESENT: u8 = b'+';
const ABSENT: u8 = b'-';
const HELD: u8 = b'!';
const CLAIMED: u8 = b'?';

const CHECKED_BYTES: usize = 16;
const HEAD_BYTES: usize = 24;

/// What comes before the JSON. No two values have the same, so it also says which one a loader has seen.
pub(super) type Head = [u8; HEAD_BYTES];

/// When a value was made, as far as its readers need to know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Age {
    /// From then on it should be loaded again; milliseconds since 1970.
    pub(super) fresh_until_ms: u64,
    /// How long its load took.
    pub(super) took_ms: u32,
}

/// A value with the bytes it lies in.
#[derive(Debug)]
pub(super) struct Sealed<V> {
    pub(super) value: V,
    pub(super) age: Age,
    bytes: Bytes,
}

impl<V> Sealed<V> {
    /// The value as JSON: a share of the bytes that lie in Redis.
    pub(super) fn json(&self) -> Bytes {
        self.bytes.slice(HEAD_BYTES..)
    }

    pub(super) fn head(&self) -> Head {
        head_of(&self.bytes).expect("a sealed value has a head")
    }

    /// All of it, for Redis.
    pub(super) fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}

impl<V: Serialize> Sealed<V> {
    pub(super) fn new(redis_key: &str, value: V, age: Age) -> serde_json::Result<Self> {
        let mut bytes = unchecked(PRESENT, age.fresh_until_ms, age.took_ms);
        serde_json::to_writer(&mut bytes, &value)?;
        Ok(Self {
            value,
            age,
            bytes: checked(redis_key, bytes).into(),
        })
    }
}

/// What the key holds.
pub(super) enum Content<V> {
    Present(Sealed<V>),
    /// Known not to exist.
    Absent,
    /// Removed a moment ago: to be loaded, and not to be filled yet.
    Held,
    /// Being loaded by the process of this number.
    Claimed(u64),
}

pub(super) fn absent(redis_key: &str) -> Vec<u8> {
    checked(redis_key, unchecked(ABSENT, 0, 0))
}

pub(super) fn held(redis_key: &str) -> Vec<u8> {
    checked(redis_key, unchecked(HELD, 0, 0))
}

pub(super) fn claimed(redis_key: &str, process: u64) -> Vec<u8> {
    checked(redis_key, unchecked(CLAIMED, process, 0))
}

pub(super) fn head_of(bytes: &[u8]) -> Option<Head> {
    bytes.first_chunk().copied()
}

/// `None` for anything this version of the service did not write itself, under this very key.
pub(super) fn open<V: DeserializeOwned>(redis_key: &str, bytes: Bytes) -> Option<Content<V>> {
    let (head, json) = bytes.split_first_chunk::<HEAD_BYTES>()?;
    let (facts, check) = head.split_at(CHECKED_BYTES);
    let [mark @ .., kind] = *facts.first_chunk::<4>()?;
    if mark != *MARK || check != check_of(redis_key, facts, json) {
        return None;
    }
    let number = u64::from_be_bytes(facts[4..12].try_into().ok()?);
    match (kind, json) {
        (PRESENT, json) => {
            let value = serde_json::from_slice(json).ok()?;
            let age = Age {
                fresh_until_ms: number,
                took_ms: u32::from_be_bytes(facts[12..].try_into().ok()?),
            };
            Some(Content::Present(Sealed { value, age, bytes }))
        }
        (ABSENT, []) => Some(Content::Absent),
        (HELD, []) => Some(Content::Held),
        (CLAIMED, []) => Some(Content::Claimed(number)),
        _ => None,
    }
}

/// A head whose check is still missing.
fn unchecked(kind: u8, number: u64, took_ms: u32) -> Vec<u8> {
    let mut bytes = MARK.to_vec();
    bytes.push(kind);
    bytes.extend(number.to_be_bytes());
    bytes.extend(took_ms.to_be_bytes());
    bytes.resize(HEAD_BYTES, 0);
    bytes
}

fn checked(redis_key: &str, mut bytes: Vec<u8>) -> Vec<u8> {
    let check = check_of(redis_key, &bytes[..CHECKED_BYTES], &bytes[HEAD_BYTES..]);
    bytes[CHECKED_BYTES..HEAD_BYTES].copy_from_slice(&check);
    bytes
}

fn check_of(redis_key: &str, facts: &[u8], json: &[u8]) -> [u8; HEAD_BYTES - CHECKED_BYTES] {
    let mut digest = Sha256::new();
    digest.update((redis_key.len() as u64).to_be_bytes());
    digest.update(redis_key);
    digest.update(facts);
    digest.update(json);
    let digest = digest.finalize();
    *digest.first_chunk().expect("a digest has 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGE: Age = Age {
        fresh_until_ms: 1_234,
        took_ms: 56,
    };

    fn sealed<V: Serialize>(value: V) -> Bytes {
        Sealed::new("key", value, AGE).unwrap().bytes.clone()
    }

    #[test]
    fn a_value_survives_the_envelope_with_its_age_and_its_json() {
        let opened = open::<Vec<i32>>("key", sealed([1, 2, 3]));

        let Some(Content::Present(sealed)) = opened else {
            panic!("it was not opened");
        };
        assert_eq!((sealed.value.as_slice(), sealed.age), (&[1, 2, 3][..], AGE));
        assert_eq!(sealed.json(), "[1,2,3]");
    }

    #[test]
    fn no_byte_can_be_changed_or_cut_off() {
        let whole = sealed("text");

        for place in 0..whole.len() {
            let mut changed = whole.to_vec();
            changed[place] ^= 1;
            assert!(open::<String>("key", changed.into()).is_none(), "{place}");
            let cut = whole.slice(..place);
            assert!(open::<String>("key", cut).is_none(), "{place}");
        }
        assert!(open::<String>("key", whole).is_some());
    }

    #[test]
    fn a_value_of_another_key_or_shape_is_no_value() {
        let sealed = sealed("text");

        assert!(open::<String>("other", sealed.clone()).is_none());
        assert!(open::<Vec<i32>>("key", sealed).is_none());
        assert!(open::<String>("key", Bytes::from_static(b"\"foreign\"")).is_none());
    }

    #[test]
    fn a_claim_names_its_process() {
        let opened = open::<String>("key", claimed("key", 7).into());

        assert!(matches!(opened, Some(Content::Claimed(7))));
    }
}
