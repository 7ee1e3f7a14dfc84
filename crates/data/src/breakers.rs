//! What is said of a breaker when it changes.

use resilience::breaker::State;

/// Logs a breaker's new state.
pub(crate) fn log(dependency: &str, state: State) {
    match state {
        State::Open => {
            tracing::warn!(dependency, "left alone for a while: it fails or is slow");
        }
        State::HalfOpen => tracing::info!(dependency, "trying whether it is well again"),
        State::Closed => tracing::info!(dependency, "is asked again"),
    }
}
