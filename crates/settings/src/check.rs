//! Turns collected values into the typed settings and says what does not fit.

use std::collections::BTreeMap;

use config::{Config, ConfigError, Value};

use crate::{Fault, Settings, keys::Keys, layers::Leaf};

type Leaves = BTreeMap<String, Leaf>;

/// Splits the values into those that fit their field and the faults of the others. Each is tried on its own,
/// because deserialising them together stops at the first fault.
pub(crate) fn types<T: Settings>(leaves: Leaves, keys: &Keys) -> (Leaves, Vec<Fault>) {
    let mut faults = Vec::new();
    let fits = |key: &String, leaf: &mut Leaf| match assemble::<T>([(key, &*leaf)], keys) {
        Ok(_) => true,
        Err(error) => {
            faults.push(misfit::<T>(key, leaf, &error, keys));
            false
        }
    };
    let mut leaves = leaves;
    leaves.retain(fits);
    (leaves, faults)
}

fn misfit<T: Settings>(key: &str, leaf: &Leaf, error: &ConfigError, keys: &Keys) -> Fault {
    if keys.is_secret(key) {
        // What is allowed may quote what was found.
        return Fault::new(key, "is not a value this secret can have").found_in(&leaf.origin);
    }
    if keys.is_in_map(key) && error.to_string().contains("unknown field") {
        // Under a mistyped name it may be a secret.
        return Fault::new(key, allowed::<T>(key, leaf, error)).found_in(&leaf.origin);
    }
    let value = match &leaf.value.kind {
        config::ValueKind::String(text) => format!("{text:?}"),
        other => other.to_string(),
    };
    Fault::new(key, allowed::<T>(key, leaf, error))
        .describe(|_| (value.clone(), leaf.origin.clone()))
}

/// Builds the settings from values that each fit.
pub(crate) fn build<T: Settings>(leaves: &Leaves, keys: &Keys) -> Result<T, Fault> {
    // The text of this error is withheld: it may quote any value, a secret too.
    assemble(leaves, keys)
        .map_err(|_| Fault::general("the settings fit one by one but not together"))
}

/// The defaults are set one by one, too. Serde takes what a section does not set from the default of the section's type, and
/// what stands around the section may have put another value there.
fn assemble<'a, T: Settings>(
    leaves: impl IntoIterator<Item = (&'a String, &'a Leaf)>,
    keys: &Keys,
) -> Result<T, ConfigError> {
    let mut builder = Config::builder();
    for (key, value) in keys.plain() {
        let value: Option<Value> = serde_json::from_value(value.clone()).ok();
        if let Some(value) = value {
            builder = builder.set_default(key, value)?;
        }
    }
    for (key, leaf) in leaves {
        builder = builder.set_override(key, leaf.value.clone())?;
    }
    builder.build()?.try_deserialize()
}

/// What the field would have accepted.
fn allowed<T: Settings>(key: &str, leaf: &Leaf, error: &ConfigError) -> String {
    match error {
        // The `config` crate says so of negative numbers too.
        ConfigError::Type {
            expected: "an integer",
            ..
        } if leaf.value.clone().into_int().is_ok() => "must not be negative".to_owned(),
        ConfigError::Type { expected, .. } => format!("must be {expected}"),
        ConfigError::At { error, .. } => allowed::<T>(key, leaf, error),
        other => match expected(&other.to_string()).or_else(|| variants::<T>(key, leaf)) {
            Some(what) if what == "a duration" => {
                "must be a duration such as 250ms, 5s or 1m 30s".to_owned()
            }
            Some(what) => format!("must be {what}"),
            None => other.to_string(),
        },
    }
}

/// Messages of serde end in what was expected.
fn expected(message: &str) -> Option<String> {
    message
        .rsplit_once("expected ")
        .map(|(_, what)| what.to_owned())
}

/// The `config` crate does not say which names an enum has; serde_json, given the same value, does.
fn variants<T: Settings>(key: &str, leaf: &Leaf) -> Option<String> {
    let text = serde_json::Value::String(leaf.value.to_string());
    let tree = key
        .rsplit('.')
        .fold(text, |value, name| serde_json::json!({ name: value }));
    let error = serde_json::from_value::<T>(tree).err()?;
    expected(&error.to_string())
}

/// The faults that the fields' own rules find.
pub(crate) fn ranges<T: Settings>(settings: &T) -> Vec<Fault> {
    let Err(report) = settings.validate() else {
        return Vec::new();
    };
    report
        .iter()
        .map(|(path, error)| {
            let path = path.to_string();
            // A rule may point into a list: `urls[1]` is a fault of `urls`.
            let key = path.split('[').next().unwrap_or(&path);
            let item = path.strip_prefix(key).unwrap_or_default();
            let rule = match error.message() {
                bound if bound.starts_with("greater") || bound.starts_with("lower") => {
                    format!("must not be {bound}")
                }
                other => other.to_owned(),
            };
            let problem = if item.is_empty() {
                rule
            } else {
                format!("{item} {rule}")
            };
            Fault::new(key, problem)
        })
        .collect()
}
