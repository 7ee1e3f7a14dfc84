//! Consistency tokens: what a client has seen and written, signed, so that any process serves its next read no older state.
//!
//! A token is opaque to clients: a version byte, the moment it ends, the version of the shard map, up to [`POSITIONS_MAX`]
//! positions and the first half of an HMAC-SHA256 (RFC 2104, truncated as its section 5 allows), in base64url. It is signed because a made-up one would
//! send its reads to the primary.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;

use super::position::{POSITIONS_MAX, Position, Positions};
use crate::postgres::config::Config;

const VERSION: u8 = 1;
const HEAD_BYTES: usize = 1 + 8 + 4;
const POSITION_BYTES: usize = 8 + 4 + 8;
const MAC_BYTES: usize = 16;
const BYTES_MAX: usize = HEAD_BYTES + POSITIONS_MAX * POSITION_BYTES + MAC_BYTES;

/// Signs tokens and checks them. Cheap to clone.
#[derive(Clone)]
pub struct Tokens(Arc<Inner>);

struct Inner {
    /// The first signs, all of them are accepted. With their key blocks already hashed.
    keys: Vec<Hmac<Sha256>>,
    ttl: Duration,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens")
            .field("keys", &self.0.keys.len())
            .finish_non_exhaustive()
    }
}

impl Tokens {
    /// With the keys of `config.token_keys`; without any, with one that no other process knows.
    pub fn new(config: &Config) -> Self {
        let mut keys: Vec<_> = config
            .token_keys
            .iter()
            .map(SecretString::expose_secret)
            .map(|secret| key(secret.as_bytes()))
            .collect();
        if keys.is_empty() {
            let mut random = [0; 32];
            getrandom::fill(&mut random)
                .expect("the operating system has random bytes once it runs services");
            keys.push(key(&random));
        }
        Self(Arc::new(Inner {
            keys,
            ttl: config.token_ttl,
        }))
    }

    /// How long a token holds.
    pub fn ttl(&self) -> Duration {
        self.0.ttl
    }

    /// The token for these positions.
    pub fn sign(&self, positions: &Positions, now: SystemTime) -> String {
        let mut bytes = Vec::with_capacity(BYTES_MAX);
        bytes.push(VERSION);
        bytes.extend_from_slice(&seconds(now + self.0.ttl).to_be_bytes());
        bytes.extend_from_slice(&positions.map_version().to_be_bytes());
        for position in positions.iter() {
            bytes.extend_from_slice(&position.system.to_be_bytes());
            bytes.extend_from_slice(&position.timeline.to_be_bytes());
            bytes.extend_from_slice(&position.lsn.to_be_bytes());
        }
        let mac = self.0.keys[0].clone().chain_update(&bytes).finalize();
        bytes.extend_from_slice(&mac.into_bytes()[..MAC_BYTES]);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// What a token holds. None for whatever was not signed here, or has ended: it is then as if there were no token.
    /// Allocates nothing.
    pub fn verify(&self, token: &str, now: SystemTime) -> Option<Positions> {
        let mut buffer = [0; BYTES_MAX];
        let length = URL_SAFE_NO_PAD.decode_slice(token, &mut buffer).ok()?;
        let (signed, mac) = buffer[..length].split_last_chunk::<MAC_BYTES>()?;
        let is_ours = |key: &Hmac<Sha256>| {
            let key = key.clone().chain_update(signed);
            key.verify_truncated_left(mac).is_ok()
        };
        if !self.0.keys.iter().any(is_ours) {
            return None;
        }
        let (&version, rest) = signed.split_first()?;
        let (ends, rest) = rest.split_first_chunk::<8>()?;
        let (map_version, mut rest) = rest.split_first_chunk::<4>()?;
        if version != VERSION || u64::from_be_bytes(*ends) < seconds(now) {
            return None;
        }
        let mut positions = Positions::default();
        positions.add_map(u32::from_be_bytes(*map_version));
        while let Some((position, more)) = rest.split_first_chunk::<POSITION_BYTES>() {
            positions.add(read(position)?);
            rest = more;
        }
        Some(positions)
    }
}

fn key(secret: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(secret).expect("HMAC takes keys of any length")
}

fn read(bytes: &[u8; POSITION_BYTES]) -> Option<Position> {
    let (system, rest) = bytes.split_first_chunk::<8>()?;
    let (timeline, rest) = rest.split_first_chunk::<4>()?;
    let (lsn, _) = rest.split_first_chunk::<8>()?;
    Some(Position {
        system: u64::from_be_bytes(*system),
        timeline: u32::from_be_bytes(*timeline),
        lsn: u64::from_be_bytes(*lsn),
    })
}

fn seconds(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    fn tokens(keys: &[&str]) -> Tokens {
        Tokens::new(&Config {
            token_keys: keys.iter().map(|key| SecretString::from(*key)).collect(),
            ..Config::default()
        })
    }

    fn positions(count: u64) -> Positions {
        let mut positions = Positions::default();
        positions.add_map(7);
        for system in 1..=count {
            positions.add(Position {
                system,
                timeline: 3,
                lsn: 0x16_B374_D848,
            });
        }
        positions
    }

    #[test]
    fn a_token_reads_back_with_any_number_of_positions() {
        let tokens = tokens(&["a"]);

        for count in 0..=POSITIONS_MAX as u64 {
            let token = tokens.sign(&positions(count), NOW);
            assert_eq!(tokens.verify(&token, NOW), Some(positions(count)));
        }
    }

    #[test]
    fn a_token_ends() {
        let tokens = tokens(&["a"]);
        let token = tokens.sign(&positions(1), NOW);

        assert!(tokens.verify(&token, NOW + tokens.ttl()).is_some());
        let later = NOW + tokens.ttl() + Duration::from_secs(1);
        assert_eq!(tokens.verify(&token, later), None);
    }

    #[test]
    fn keys_can_be_changed_without_a_gap() {
        let old = tokens(&["old"]).sign(&positions(1), NOW);

        assert!(tokens(&["new", "old"]).verify(&old, NOW).is_some());
        assert_eq!(tokens(&["new"]).verify(&old, NOW), None);
        assert_eq!(tokens(&[]).verify(&old, NOW), None);
    }

    #[test]
    fn no_bit_of_a_token_can_be_changed_and_no_part_be_left_out() {
        let tokens = tokens(&["a"]);
        let token = tokens.sign(&positions(2), NOW);
        let bytes = URL_SAFE_NO_PAD.decode(&token).unwrap();

        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let changed = URL_SAFE_NO_PAD.encode(changed);
            assert_eq!(tokens.verify(&changed, NOW), None, "bit {bit}");
        }
        for length in 0..token.len() {
            assert_eq!(tokens.verify(&token[..length], NOW), None, "{length} bytes");
        }
        for wrong in ["", "*", &token.repeat(9)] {
            assert_eq!(tokens.verify(wrong, NOW), None, "{wrong}");
        }
    }

    #[test]
    fn keys_do_not_show() {
        assert!(!format!("{:?}", tokens(&["hunter2"])).contains("hunter2"));
    }
}
