//! The dotted keys of a settings struct, read from its serialised form.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

pub(crate) const MASK: &str = "********";

/// The farthest a typing error may be from the key that is suggested for it, in edits.
const EDITS_MAX: usize = 5;

/// Every key with its serialised value, in the order of their names.
pub(crate) struct Keys {
    leaves: BTreeMap<String, Value>,
    secrets: &'static [&'static str],
}

impl Keys {
    pub(crate) fn of<T: Serialize>(settings: &T, secrets: &'static [&'static str]) -> Self {
        let tree =
            serde_json::to_value(settings).expect("settings are plain structs with string keys");
        let mut leaves = BTreeMap::new();
        flatten("", tree, &mut leaves);
        Self { leaves, secrets }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &str> {
        self.leaves.keys().map(String::as_str)
    }

    /// The keys whose value is plain data, with it. A secret's is masked, and what is not set or is an empty table has none.
    pub(crate) fn plain(&self) -> impl Iterator<Item = (&str, &Value)> {
        let leaves = self.leaves.iter().map(|(key, value)| (key.as_str(), value));
        leaves.filter(|(key, value)| !self.is_secret(key) && !value.is_null() && !value.is_object())
    }

    /// Whether something can be set there: a key, or anything below a map whose entries the operator names.
    pub(crate) fn knows(&self, key: &str) -> bool {
        self.leaves.contains_key(key) || self.is_in_map(key)
    }

    /// Whether `key` is a map whose entries the operator names.
    pub(crate) fn is_map(&self, key: &str) -> bool {
        self.leaves.get(key).is_some_and(Value::is_object)
    }

    /// Whether `key` is below such a map.
    pub(crate) fn is_in_map(&self, key: &str) -> bool {
        let mut sections = key.match_indices('.').map(|(end, _)| &key[..end]);
        sections.any(|section| self.is_map(section))
    }

    /// Whether `key` is a part of other keys, so that no value can stand there.
    pub(crate) fn is_section(&self, key: &str) -> bool {
        let prefix = format!("{key}.");
        self.leaves
            .range(prefix.clone()..)
            .next()
            .is_some_and(|(leaf, _)| leaf.starts_with(&prefix))
    }

    pub(crate) fn is_list(&self, key: &str) -> bool {
        self.leaves.get(key).is_some_and(Value::is_array)
    }

    pub(crate) fn is_secret(&self, key: &str) -> bool {
        self.secrets.iter().any(|secret| covers(secret, key))
    }

    /// Whether the service has some value of `key` without anybody setting it.
    pub(crate) fn has_value(&self, key: &str) -> bool {
        self.leaves.get(key).is_some_and(|value| match value {
            Value::Null => false,
            Value::Array(items) => !items.is_empty(),
            _ => true,
        })
    }

    /// The value of `key` as it may be printed.
    pub(crate) fn show(&self, key: &str) -> String {
        match self.leaves.get(key) {
            Some(Value::Array(items)) if items.is_empty() => "[]".to_owned(),
            Some(Value::Object(_)) => "(none)".to_owned(),
            Some(Value::Null) | None => "(not set)".to_owned(),
            Some(_) if self.is_secret(key) => MASK.to_owned(),
            Some(value) => value.to_string(),
        }
    }

    pub(crate) fn nearest(&self, unknown: &str) -> Option<&str> {
        self.iter()
            .map(|key| (strsim::damerau_levenshtein(key, unknown), key))
            .filter(|(edits, _)| *edits <= EDITS_MAX)
            .min()
            .map(|(_, key)| key)
    }
}

/// Whether a secret's name is that of `key`; `*` stands for an entry of a map, whatever its name.
pub(crate) fn covers(secret: &str, key: &str) -> bool {
    let mut names = key.split('.');
    let is_same = secret
        .split('.')
        .all(|part| names.next().is_some_and(|name| part == "*" || part == name));
    is_same && names.next().is_none()
}

/// An empty table is a leaf: a map whose entries are the operator's to name.
fn flatten(at: &str, value: Value, leaves: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(fields) if at.is_empty() || !fields.is_empty() => {
            for (name, field) in fields {
                flatten(&join(at, &name), field, leaves);
            }
        }
        leaf => {
            leaves.insert(at.to_owned(), leaf);
        }
    }
}

pub(crate) fn join(section: &str, name: &str) -> String {
    if section.is_empty() {
        name.to_owned()
    } else {
        format!("{section}.{name}")
    }
}
