//! Spreads what would otherwise happen to everybody at once: reconnects and expiries.

use std::time::Duration;

/// Between half of `delay` and the whole of it.
pub(crate) fn up_to(delay: Duration) -> Duration {
    delay.mul_f64(0.5 + fastrand::f64() / 2.0)
}

/// Between 90 % and 110 % of `ttl`.
pub(crate) fn around(ttl: Duration) -> Duration {
    ttl.mul_f64(0.9 + fastrand::f64() / 5.0)
}
