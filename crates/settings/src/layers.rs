//! Collects the values that override the built-in defaults, layer by layer, each with its origin.

use std::{collections::BTreeMap, fmt, fs, io::Read, path::PathBuf};

use config::{File, FileFormat, Source, Value, ValueKind};

use crate::{
    Fault, PREFIX, Settings, Sources,
    keys::{Keys, join},
};

/// The largest settings or secret file that is read. A secret is a line; more is the wrong file.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The default in the code.
    BuiltIn,
    /// The text of the profile of this name.
    Profile(&'static str),
    /// The file named by `HOLDFAST_CONFIG_FILE`.
    File(PathBuf),
    /// The environment variable of this name.
    Env(String),
    /// A file of its own, named by an environment variable.
    Mounted {
        /// The variable that names the file.
        var: String,
        /// The file.
        path: PathBuf,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BuiltIn => f.write_str("built-in default"),
            Self::Profile(name) => write!(f, "profile {name}"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Env(var) => write!(f, "env {var}"),
            Self::Mounted { var, path } => write!(f, "file {} named by env {var}", path.display()),
        }
    }
}

/// A value that somebody set.
#[derive(Clone)]
pub(crate) struct Leaf {
    pub(crate) value: Value,
    pub(crate) origin: Origin,
}

impl Leaf {
    /// The value as text, one for each item of a list.
    pub(crate) fn texts(&self) -> Vec<String> {
        match &self.value.kind {
            ValueKind::Array(items) => items.iter().map(Value::to_string).collect(),
            _ => vec![self.value.to_string()],
        }
    }
}

/// The topmost value of every key that is set anywhere, and what went wrong on the way.
pub(crate) struct Layers {
    pub(crate) profile: &'static str,
    pub(crate) leaves: BTreeMap<String, Leaf>,
    pub(crate) faults: Vec<Fault>,
}

pub(crate) fn collect<T: Settings>(sources: &Sources, keys: &Keys) -> Layers {
    let mut layers = Layers {
        profile: "",
        leaves: BTreeMap::new(),
        faults: Vec::new(),
    };
    layers.add_profile(T::PROFILES, sources, keys);
    if let Some(path) = var(sources, &format!("{PREFIX}_CONFIG_FILE")) {
        let origin = Origin::File(path.into());
        match read(path) {
            Ok(text) => layers.add_text(&text, &origin, keys),
            Err(problem) => layers
                .faults
                .push(Fault::general(format!("{origin}: {problem}"))),
        }
    }
    layers.add_env(sources, keys);
    layers
}

/// A variable that is set to nothing counts as not set, as compose files and charts leave it.
fn var<'a>(sources: &'a Sources, name: &str) -> Option<&'a str> {
    sources
        .env
        .get(name)
        .map(String::as_str)
        .filter(|value| !value.is_empty())
}

impl Layers {
    fn add_profile(&mut self, profiles: &[(&'static str, &str)], sources: &Sources, keys: &Keys) {
        let name = format!("{PREFIX}_PROFILE");
        let Some(wanted) =
            var(sources, &name).or_else(|| profiles.first().map(|(first, _)| *first))
        else {
            return;
        };
        if let Some((profile, text)) = profiles.iter().find(|(profile, _)| *profile == wanted) {
            self.profile = profile;
            self.add_text(text, &Origin::Profile(profile), keys);
        } else {
            let known: Vec<&str> = profiles.iter().map(|(profile, _)| *profile).collect();
            let problem = format!(
                "env {name} = {wanted:?}: no such profile, use one of {}",
                known.join(", ")
            );
            self.faults.push(Fault::general(problem));
        }
    }

    fn add_text(&mut self, text: &str, origin: &Origin, keys: &Keys) {
        match parse(text) {
            Ok(table) => {
                for (key, value) in table {
                    self.add_table(key, value, origin, keys);
                }
            }
            Err(problem) => self
                .faults
                .push(Fault::general(format!("{origin}: {problem}"))),
        }
    }

    /// Descends to the keys the settings know, in maps to the fields of their entries, as the environment names them.
    fn add_table(&mut self, key: String, value: Value, origin: &Origin, keys: &Keys) {
        match value.kind {
            ValueKind::Table(fields)
                if keys.is_map(&key)
                    || keys.is_in_map(&key)
                    || !keys.knows(&key) && (!fields.is_empty() || keys.is_section(&key)) =>
            {
                for (name, field) in fields {
                    self.add_table(join(&key, &name), field, origin, keys);
                }
            }
            _ => self.add(key, value, origin.clone(), keys),
        }
    }

    fn add_env(&mut self, sources: &Sources, keys: &Keys) {
        // Only the double underscore makes a setting: Kubernetes itself sets variables such as
        // HOLDFAST_SERVICE_HOST for a Service of this name.
        let prefix = format!("{PREFIX}__");
        let (mut direct, mut mounted) = (Vec::new(), Vec::new());
        for (name, value) in &sources.env {
            let Some(path) = name.strip_prefix(&prefix) else {
                continue;
            };
            let key = path.to_lowercase().replace("__", ".");
            match key.strip_suffix("_file") {
                // A setting may itself be called `…_file`.
                Some(target)
                    if (!keys.knows(&key) || keys.is_secret(target)) && keys.knows(target) =>
                {
                    mounted.push((target.to_owned(), name, value));
                }
                _ => direct.push((key, name, value)),
            }
        }
        for (key, name, text) in direct {
            if !text.is_empty() || keys.is_list(&key) {
                let value = from_text(text, keys.is_list(&key));
                self.add(key, value, Origin::Env(name.clone()), keys);
            }
        }
        for (key, name, path) in mounted.into_iter().filter(|(_, _, path)| !path.is_empty()) {
            let origin = Origin::Mounted {
                var: name.clone(),
                path: path.into(),
            };
            match read(path) {
                Ok(text) => {
                    let value = from_text(text.trim_end_matches(['\r', '\n']), keys.is_list(&key));
                    self.add(key, value, origin, keys);
                }
                Err(problem) => self
                    .faults
                    .push(Fault::new(&key, problem).found_in(&origin)),
            }
        }
    }

    fn add(&mut self, key: String, value: Value, origin: Origin, keys: &Keys) {
        if keys.knows(&key) {
            self.leaves.insert(key, Leaf { value, origin });
            return;
        }
        // The value is not printed: under a mistyped key it may be a secret.
        let problem = if keys.is_section(&key) {
            "is a section and takes no value of its own".to_owned()
        } else {
            match (keys.nearest(&key), &origin) {
                (None, _) => {
                    "is not a setting; remove it, and `holdfast check-config` lists those there are"
                        .to_owned()
                }
                (Some(near), Origin::Env(_)) => format!(
                    "is not a setting; did you mean {near} (env {})?",
                    env_name(near)
                ),
                (Some(near), _) => format!("is not a setting; did you mean {near}?"),
            }
        };
        self.faults
            .push(Fault::new(&key, problem).found_in(&origin));
    }
}

fn env_name(key: &str) -> String {
    format!("{PREFIX}__{}", key.replace('.', "__").to_uppercase())
}

/// Lists are comma-separated; everything else stays text until its field says what it accepts.
fn from_text(text: &str, list: bool) -> Value {
    if !list {
        return text.into();
    }
    let items = text
        .split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty());
    Value::new(None, ValueKind::Array(items.map(Value::from).collect()))
}

pub(crate) fn parse(text: &str) -> Result<config::Map<String, Value>, String> {
    File::from_str(text, FileFormat::Toml)
        .collect()
        .map_err(|error| {
            // The parser quotes the offending line, which may hold a secret; its first line says where, its last what.
            let message = error.to_string();
            let mut lines = message.lines().filter(|line| !line.is_empty());
            let place = lines.next().unwrap_or("not TOML");
            lines
                .next_back()
                .map_or(place.to_owned(), |what| format!("{place}: {what}"))
        })
}

fn read(path: &str) -> Result<String, String> {
    let explain = |error: std::io::Error| format!("cannot be read: {error}");
    let file = fs::File::open(path).map_err(explain)?;
    if !file.metadata().map_err(explain)?.is_file() {
        return Err("is not a file".to_owned());
    }
    let mut text = String::new();
    file.take(FILE_BYTES_MAX + 1)
        .read_to_string(&mut text)
        .map_err(explain)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("is larger than {FILE_BYTES_MAX} bytes"));
    }
    Ok(text)
}
