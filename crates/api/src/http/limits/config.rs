//! The settings of the rate limits.

use std::time::Duration;

use garde::Validate;
use resilience::Rate;
use serde::{Deserialize, Serialize};

use super::Policy;

/// How much a principal may ask, of all processes together: `limits.*`.
#[derive(Clone, Debug, Serialize, Deserialize, Validate)]
#[serde(default, deny_unknown_fields)]
#[garde(allow_unvalidated)]
pub struct Config {
    /// Reads (GET, HEAD) of an address without a session. Many people may share one.
    pub address_read: Rate,
    /// Writes of an address without a session: registering and signing in.
    pub address_write: Rate,
    /// Reads of a user, whatever the session and address.
    pub user_read: Rate,
    /// Writes of a user.
    pub user_write: Rate,
    /// Principals that this process keeps count of; beyond that those that asked least lately are forgotten. One takes about
    /// 100 bytes.
    #[garde(range(min = 1_000, max = 10_000_000))]
    pub keys_max: usize,
    /// Processes that share the limits. While Redis is away each keeps to its part.
    #[garde(range(min = 1, max = 10_000))]
    pub instances_expected: u32,
}

impl Config {
    pub(super) fn rate(&self, policy: Policy) -> Rate {
        match policy {
            Policy::AddressRead => self.address_read,
            Policy::AddressWrite => self.address_write,
            Policy::UserRead => self.user_read,
            Policy::UserWrite => self.user_write,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        let a_minute = |quota| Rate {
            quota,
            window: Duration::from_secs(60),
        };
        Self {
            address_read: a_minute(1_200),
            address_write: a_minute(60),
            user_read: a_minute(600),
            user_write: a_minute(120),
            keys_max: 100_000,
            instances_expected: 2,
        }
    }
}
