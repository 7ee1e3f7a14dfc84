//! What a setting of this crate may be.

use std::time::Duration;

/// A check that a duration lies between `min` and `max`, both included.
pub(crate) fn between(
    min: Duration,
    max: Duration,
) -> impl FnOnce(&Duration, &()) -> garde::Result {
    move |duration, ()| {
        if (min..=max).contains(duration) {
            return Ok(());
        }
        Err(garde::Error::new(format!(
            "must be between {min:?} and {max:?}"
        )))
    }
}
