//! Loads one typed settings struct: built-in defaults, then the profile's text, a file, the environment and
//! mounted secrets, the later over the earlier. Nothing else in the service reads the environment.
//!
//! Every fault is reported at once, with the value, where it came from and what is allowed. Secrets are
//! never printed: not in faults, not by [`Loaded::render`].
#![warn(missing_docs, unreachable_pub)]

mod check;
mod fault;
mod keys;
mod layers;
mod prod;
mod sources;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::{Serialize, de::DeserializeOwned};

pub use fault::{Fault, Faults, ladder};
pub use layers::Origin;
pub use sources::Sources;

use keys::Keys;
use layers::Leaf;

/// What every environment variable of the service begins with.
pub const PREFIX: &str = "HOLDFAST";

/// The profile in which default and world-readable secrets are refused.
pub const PROD: &str = "prod";

/// A settings struct that [`load`] can fill: sections of plain fields, each with a built-in default.
pub trait Settings: Default + Serialize + DeserializeOwned + garde::Validate<Context = ()> {
    /// The profiles as `(name, TOML text)`; the first is used when `HOLDFAST_PROFILE` is not set.
    const PROFILES: &'static [(&'static str, &'static str)];

    /// Dotted keys whose values must never be printed. A secret's development value belongs into a profile's
    /// text and not into `Default`, so that `prod` can recognise and refuse it.
    const SECRETS: &'static [&'static str];

    /// Rules that span fields, such as [`ladder`]. `profile` is the name of the profile in use.
    fn rules(&self, profile: &str) -> Vec<Fault> {
        let _ = profile;
        Vec::new()
    }
}

/// Settings that passed every check, with the origin of each value.
#[derive(Clone, Debug)]
pub struct Loaded<T> {
    /// The values in force.
    pub settings: T,
    /// The name of the profile in use.
    pub profile: &'static str,
    origins: BTreeMap<String, Origin>,
}

impl<T: Settings> Loaded<T> {
    /// The settings as aligned lines `key = value  # origin`, secrets masked.
    #[must_use]
    pub fn render(&self) -> String {
        let keys = Keys::of(&self.settings, T::SECRETS);
        let left: Vec<(String, String)> = keys
            .iter()
            .map(|key| {
                (
                    format!("{key} = {}", keys.show(key)),
                    self.origin(key).to_string(),
                )
            })
            .collect();
        // One very long value must not push every origin off the screen.
        let width = left
            .iter()
            .map(|(text, _)| text.len())
            .filter(|len| *len <= 72)
            .max()
            .unwrap_or(0);

        left.iter()
            .map(|(text, origin)| format!("{text:width$}  # {origin}\n"))
            .collect()
    }

    /// Where the value of `key` came from.
    #[must_use]
    pub fn origin(&self, key: &str) -> Origin {
        self.origins.get(key).cloned().unwrap_or(Origin::BuiltIn)
    }
}

/// Reads and checks the settings.
///
/// # Errors
/// Everything that is wrong, at once: unknown keys and profiles, unreadable files, values of the wrong type
/// or out of range, broken [`Settings::rules`], and secrets that `prod` refuses.
pub fn load<T: Settings>(sources: &Sources) -> Result<Loaded<T>, Faults> {
    let keys = Keys::of(&T::default(), T::SECRETS);
    debug_assert!(
        T::SECRETS.iter().all(|key| keys.knows(key)),
        "SECRETS names a key that does not exist"
    );
    let layers = layers::collect::<T>(sources, &keys);
    let (leaves, bad) = check::types::<T>(layers.leaves, &keys);
    let mut faults = layers.faults;
    faults.extend(bad);

    let settings: T = match check::build(&leaves, &keys) {
        Ok(settings) => settings,
        Err(fault) => {
            faults.push(fault);
            return Err(Faults::new(faults));
        }
    };
    let mut rules = settings.rules(layers.profile);
    if layers.profile == PROD {
        rules.extend(prod::secrets::<T>(&leaves, &keys));
    }
    // A setting whose value could not be used stands here with its default, and is no second fault.
    rules.retain(|fault| {
        !faults
            .iter()
            .any(|unusable| unusable.shares_a_key_with(fault))
    });
    let shown = Shown {
        keys: Keys::of(&settings, T::SECRETS),
        leaves: &leaves,
    };
    let ranges = check::ranges(&settings);
    faults.extend(
        ranges
            .into_iter()
            .chain(rules)
            .map(|fault| shown.complete(fault)),
    );
    if !faults.is_empty() {
        return Err(Faults::new(faults));
    }
    let origins = leaves
        .into_iter()
        .map(|(key, leaf)| (key, leaf.origin))
        .collect();

    Ok(Loaded {
        settings,
        profile: layers.profile,
        origins,
    })
}

/// The values in force and their origins, to complete faults with.
struct Shown<'a> {
    keys: Keys,
    leaves: &'a BTreeMap<String, Leaf>,
}

impl Shown<'_> {
    /// Adds value and origin to each key the fault names, and takes secrets out of its text.
    fn complete(&self, fault: Fault) -> Fault {
        let secrets = self
            .leaves
            .iter()
            .filter(|(key, _)| self.keys.is_secret(key) && fault.names(key));
        let texts: Vec<String> = secrets.flat_map(|(_, leaf)| leaf.texts()).collect();
        let fault = texts.iter().fold(fault, |fault, text| fault.without(text));
        fault.describe(|key| {
            let origin = self
                .leaves
                .get(key)
                .map_or(Origin::BuiltIn, |leaf| leaf.origin.clone());
            (self.keys.show(key), origin)
        })
    }
}
