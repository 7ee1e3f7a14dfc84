//! Buckets: what keys fall into and what moves between clusters as a whole.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

/// How many buckets there are. Never to be changed: it decides where rows are.
const COUNT: u16 = 1024;

/// One of 1024 parts of all keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bucket(u16);

impl Bucket {
    /// How many there are.
    pub const COUNT: usize = COUNT as usize;

    /// The bucket of a key: its last ten bits, which are random in versions 4 and 7. No hash, so that a publication's row
    /// filter, which may use built-in functions only, finds the same.
    pub fn of(key: Uuid) -> Self {
        let bytes = key.as_bytes();
        Self(u16::from_be_bytes([bytes[14], bytes[15]]) % COUNT)
    }

    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..COUNT).map(Self)
    }

    /// Its number, from 0 to 1023.
    pub fn number(self) -> u16 {
        self.0
    }

    /// Its number as a column of Postgres holds it.
    pub(super) fn as_i16(self) -> i16 {
        self.0.cast_signed()
    }

    pub(super) fn index(self) -> usize {
        usize::from(self.0)
    }

    /// What Postgres computes a key's bucket with, from nothing but built-in immutable functions.
    pub(super) fn sql(column: &str) -> String {
        format!(
            "((get_byte(uuid_send({column}), 14) & 3) << 8 | get_byte(uuid_send({column}), 15))"
        )
    }
}

impl TryFrom<u16> for Bucket {
    type Error = InvalidBuckets;

    fn try_from(number: u16) -> Result<Self, InvalidBuckets> {
        if number < COUNT {
            Ok(Self(number))
        } else {
            Err(InvalidBuckets)
        }
    }
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A set of buckets, written as numbers and ranges: `0..511`, `7`, `0..3,9`. Sorted, each once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Buckets(Vec<Bucket>);

/// A text that is no set of buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be numbers and ranges from 0 to 1023 such as 0..511,700")]
pub struct InvalidBuckets;

impl Buckets {
    /// Each bucket, in order.
    pub fn iter(&self) -> impl Iterator<Item = Bucket> {
        self.0.iter().copied()
    }

    /// How many they are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those that both have.
    pub fn common(&self, other: &Self) -> Self {
        let is_common = |bucket: &Bucket| other.0.binary_search(bucket).is_ok();
        self.iter().filter(is_common).collect()
    }

    /// Runs of neighbours, as first and last.
    pub fn ranges(&self) -> Vec<(Bucket, Bucket)> {
        let mut ranges: Vec<(Bucket, Bucket)> = Vec::new();
        for bucket in self.iter() {
            match ranges.last_mut() {
                Some((_, last)) if last.0 + 1 == bucket.0 => *last = bucket,
                _ => ranges.push((bucket, bucket)),
            }
        }
        ranges
    }
}

impl FromIterator<Bucket> for Buckets {
    fn from_iter<I: IntoIterator<Item = Bucket>>(buckets: I) -> Self {
        let mut buckets: Vec<Bucket> = buckets.into_iter().collect();
        buckets.sort_unstable();
        buckets.dedup();
        Self(buckets)
    }
}

impl FromStr for Buckets {
    type Err = InvalidBuckets;

    fn from_str(text: &str) -> Result<Self, InvalidBuckets> {
        let number = |text: &str| text.trim().parse::<u16>().map_err(|_| InvalidBuckets);
        let mut buckets = Vec::new();
        for part in text.split(',').filter(|part| !part.trim().is_empty()) {
            let (first, last) = match part.split_once("..") {
                Some((first, last)) => (number(first)?, number(last)?),
                None => (number(part)?, number(part)?),
            };
            if first > last {
                return Err(InvalidBuckets);
            }
            Bucket::try_from(last)?;
            buckets.extend((first..=last).map(Bucket));
        }
        Ok(buckets.into_iter().collect())
    }
}

impl fmt::Display for Buckets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, (first, last)) in self.ranges().into_iter().enumerate() {
            let comma = if number == 0 { "" } else { "," };
            if first == last {
                write!(f, "{comma}{first}")?;
            } else {
                write!(f, "{comma}{first}..{last}")?;
            }
        }
        Ok(())
    }
}

impl Serialize for Buckets {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Buckets {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let expected = "numbers and ranges from 0 to 1023 such as 0..511,700";
        let unexpected = serde::de::Unexpected::Str(&text);
        text.parse()
            .map_err(|_| serde::de::Error::invalid_value(unexpected, &expected))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_is_the_last_ten_bits_of_a_key() {
        let key = |tail: u128| Uuid::from_u128(0xabcd << 96 | tail);

        let buckets = [0, 1, 1023, 1024, 0xffff].map(|tail| Bucket::of(key(tail)).number());

        assert_eq!(buckets, [0, 1, 1023, 0, 1023]);
    }

    #[test]
    fn keys_of_versions_4_and_7_spread_evenly() {
        for make in [Uuid::new_v4, Uuid::now_v7] {
            let mut counts = vec![0; Bucket::COUNT];
            for _ in 0..102_400 {
                counts[Bucket::of(make()).index()] += 1;
            }
            let (least, most) = (counts.iter().min(), counts.iter().max());
            // 100 each on average, with a standard deviation of 10.
            assert!(
                least > Some(&40) && most < Some(&160),
                "{least:?} to {most:?}"
            );
        }
    }

    #[test]
    fn sets_of_buckets_are_read_and_written() {
        let written = |text: &str| text.parse::<Buckets>().map(|buckets| buckets.to_string());

        assert_eq!(written("9, 0..3,2,4,1023").unwrap(), "0..4,9,1023");
        assert_eq!(written("").unwrap(), "");
        for wrong in ["1024", "-1", "3..1", "a", "0..1024", "1...3"] {
            assert_eq!(written(wrong), Err(InvalidBuckets), "{wrong}");
        }
    }
}
