//! The range checks that `garde` does not bring along: durations.

use std::time::Duration;

/// A validator that accepts durations from `min` to `max`, and says so when it refuses one.
pub fn between(min: Duration, max: Duration) -> impl FnOnce(&Duration, &()) -> garde::Result {
    move |value, ()| {
        if (min..=max).contains(value) {
            return Ok(());
        }
        Err(garde::Error::new(format!(
            "must be from {min:?} to {max:?}"
        )))
    }
}
