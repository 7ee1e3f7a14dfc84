//! What is wrong with the settings, said so that an operator can put it right without reading code.

use std::{fmt, time::Duration};

use crate::Origin;

/// One thing that is wrong, and the settings it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    keys: Vec<Named>,
    problem: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Named {
    key: String,
    described: Option<String>,
}

impl Fault {
    /// A fault of the setting `key`. `problem` says what is allowed and must not contain the value:
    /// [`load`](crate::load) adds value and origin.
    #[must_use]
    pub fn new(key: &str, problem: impl Into<String>) -> Self {
        Self {
            keys: Vec::new(),
            problem: problem.into(),
        }
        .and(key)
    }

    /// A fault of no single setting, such as an unreadable file.
    #[must_use]
    pub fn general(problem: impl Into<String>) -> Self {
        Self {
            keys: Vec::new(),
            problem: problem.into(),
        }
    }

    /// Names one more setting that has a part in the fault.
    #[must_use]
    pub fn and(mut self, key: &str) -> Self {
        self.keys.push(Named {
            key: key.to_owned(),
            described: None,
        });
        self
    }

    pub(crate) fn names(&self, key: &str) -> bool {
        self.keys.iter().any(|named| named.key == key)
    }

    pub(crate) fn shares_a_key_with(&self, other: &Self) -> bool {
        self.keys.iter().any(|named| other.names(&named.key))
    }

    /// Says value and origin of every named setting, as `shown` knows them.
    pub(crate) fn describe(mut self, shown: impl Fn(&str) -> (String, Origin)) -> Self {
        for named in &mut self.keys {
            let (value, origin) = shown(&named.key);
            named
                .described
                .get_or_insert_with(|| format!("{} = {value} ({origin})", named.key));
        }
        self
    }

    /// Says only where the setting was found, for values that must not or cannot be shown.
    pub(crate) fn found_in(mut self, origin: &Origin) -> Self {
        for named in &mut self.keys {
            named.described = Some(format!("{} ({origin})", named.key));
        }
        self
    }

    pub(crate) fn without(mut self, secret: &str) -> Self {
        if !secret.is_empty() {
            self.problem = self.problem.replace(secret, crate::keys::MASK);
        }
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, named) in self.keys.iter().enumerate() {
            let text = named.described.as_ref().unwrap_or(&named.key);
            write!(f, "{}{text}", if at == 0 { "" } else { ", " })?;
        }
        let separator = if self.keys.is_empty() { "" } else { ": " };
        write!(f, "{separator}{}", self.problem)
    }
}

/// Everything that is wrong, one line each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults(Vec<Fault>);

impl Faults {
    pub(crate) fn new(faults: Vec<Fault>) -> Self {
        Self(faults)
    }

    /// The single faults, in the order they were found.
    pub fn iter(&self) -> impl Iterator<Item = &Fault> {
        self.0.iter()
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.0.iter().map(Fault::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for Faults {}

/// Checks that the durations rise strictly from rung to rung: an inner timeout that is not shorter than the
/// one around it never fires. One fault for each pair that does not, naming both settings.
#[must_use]
pub fn ladder(rungs: &[(&str, Duration)]) -> Vec<Fault> {
    rungs
        .windows(2)
        .filter(|pair| pair[0].1 >= pair[1].1)
        .map(|pair| {
            let problem = "the first must be shorter than the second, which waits for it";
            Fault::new(pair[0].0, problem).and(pair[1].0)
        })
        .collect()
}
