//! Where settings may come from besides the code. The environment is a plain map, so that tests need no
//! global state.

use std::collections::BTreeMap;

use crate::PREFIX;

/// The environment the settings are read from; files and secrets are named by its variables.
#[derive(Clone, Default)]
pub struct Sources {
    pub(crate) env: BTreeMap<String, String>,
}

impl Sources {
    /// The variables of this process.
    ///
    /// Values that are not UTF-8 have the offending bytes replaced; such a value fails its check.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place that reads the environment"
    )]
    pub fn from_env() -> Self {
        std::env::vars_os()
            .map(|(name, value)| {
                (
                    name.to_string_lossy().into_owned(),
                    value.to_string_lossy().into_owned(),
                )
            })
            .collect()
    }
}

impl<K: Into<String>, V: Into<String>> FromIterator<(K, V)> for Sources {
    /// Keeps the variables of the service and drops all others.
    fn from_iter<I: IntoIterator<Item = (K, V)>>(vars: I) -> Self {
        let vars = vars
            .into_iter()
            .map(|(name, value)| (name.into(), value.into()));
        Self {
            env: vars.filter(|(name, _)| name.starts_with(PREFIX)).collect(),
        }
    }
}

/// Names only: a value may be a secret.
impl std::fmt::Debug for Sources {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.env.keys()).finish()
    }
}
