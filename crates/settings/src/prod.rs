//! What `prod` asks of secrets beyond the rules of every profile: somebody chose them, and nobody else can
//! read them.

use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt, path::Path};

use config::{Config, Value};

use crate::{
    Fault, Origin, PROD, Settings,
    keys::Keys,
    layers::{self, Leaf},
};

/// Permission bits of everybody who is neither owner nor group. The group may read: that is how a pod with
/// `fsGroup` sees its mounted secrets.
const OTHERS: u32 = 0o007;

pub(crate) fn secrets<T: Settings>(leaves: &BTreeMap<String, Leaf>, defaults: &Keys) -> Vec<Fault> {
    let known: Vec<Config> = T::PROFILES
        .iter()
        .filter(|(name, _)| *name != PROD)
        .filter_map(|(_, text)| layers::parse(text).ok())
        .filter_map(|table| {
            let fill =
                |builder: config::ConfigBuilder<_>, (key, value)| builder.set_override(key, value);
            table
                .into_iter()
                .try_fold(Config::builder(), fill)
                .ok()?
                .build()
                .ok()
        })
        .collect();
    let published = |key: &str, value: &Value| {
        known.iter().any(|profile| {
            profile
                .get::<Value>(key)
                .is_ok_and(|known| known.kind == value.kind)
        })
    };

    let of_entries = leaves
        .keys()
        .filter(|key| defaults.is_in_map(key) && defaults.is_secret(key));
    T::SECRETS
        .iter()
        .copied()
        .filter(|key| !defaults.is_in_map(key))
        .chain(of_entries.map(String::as_str))
        .filter_map(|key| fault(key, leaves.get(key), defaults, &published))
        .collect()
}

fn fault(
    key: &str,
    leaf: Option<&Leaf>,
    defaults: &Keys,
    published: &dyn Fn(&str, &Value) -> bool,
) -> Option<Fault> {
    let Some(leaf) = leaf else {
        let problem =
            "must be set in prod; mount a file and name it by the variable with _FILE at its end";
        return defaults.has_value(key).then(|| Fault::new(key, problem));
    };
    if published(key, &leaf.value) || matches!(leaf.origin, Origin::Profile(_)) {
        return Some(Fault::new(
            key,
            "is published in the repository; prod needs a value of its own",
        ));
    }
    let (Origin::File(path) | Origin::Mounted { path, .. }) = &leaf.origin else {
        return None;
    };
    let mode = mode(path)?;
    (mode & OTHERS != 0).then(|| {
        let problem = format!("the file has mode {mode:04o} and is open to every user; use 0440 or 0400 (defaultMode in a pod)");
        Fault::new(key, problem)
    })
}

/// The mode of the file itself, behind the symbolic links of a Kubernetes mount. A file that vanished since
/// it was read exposes nothing.
fn mode(path: &Path) -> Option<u32> {
    fs::metadata(path)
        .ok()
        .map(|meta| meta.permissions().mode() & 0o7777)
}
