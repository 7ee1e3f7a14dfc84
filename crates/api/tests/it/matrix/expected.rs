//! Reads `deploy/failure-matrix.toml`, and says in one line what is wrong with it.

use std::{collections::BTreeMap, fmt, time::Duration};

use serde::Deserialize;

use super::axes::{Dependency, Fault, Route};
use crate::told::Names;

/// The file as it stands.
pub const FILE: &str = include_str!("../../../../../deploy/failure-matrix.toml");

/// Every cell, and what each route does while all is well.
#[derive(Debug)]
pub struct Matrix {
    pub slack: Duration,
    pub settings: BTreeMap<String, String>,
    pub well: BTreeMap<Route, Expected>,
    pub cells: Vec<Cell>,
}

/// One route during one fault of one dependency.
#[derive(Clone, Debug, PartialEq)]
pub struct Cell {
    pub dependency: Dependency,
    pub fault: Fault,
    pub route: Route,
    pub expected: Expected,
}

/// What a client may expect of an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Expected {
    /// Any of these.
    pub statuses: Vec<u16>,
    pub within: Duration,
    /// What `Degraded` says, of answers from when the dependency is known to be away.
    pub labels: Names,
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let statuses: Vec<_> = self.statuses.iter().map(u16::to_string).collect();
        let within = self.within.as_millis();
        write!(f, "{} in {within} ms", statuses.join(" or "))?;
        for label in &self.labels {
            write!(f, ", {label}")?;
        }
        Ok(())
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(with = "humantime_serde")]
    slack: Duration,
    settings: BTreeMap<String, String>,
    routes: BTreeMap<Route, Row>,
    dependency: BTreeMap<Dependency, Table>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    /// Said of every answer.
    label: Option<String>,
    /// Routes that do as while all is well.
    unharmed: Vec<Route>,
    #[serde(default)]
    routes: BTreeMap<Route, Row>,
}

/// What is not said is as while all is well.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    status: Option<Vec<u16>>,
    #[serde(default, with = "humantime_serde")]
    within: Option<Duration>,
    #[serde(default)]
    labels: Names,
    #[serde(default)]
    but: BTreeMap<Fault, Exception>,
}

/// How one fault differs from the others. What is not said is as for them.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Exception {
    status: Option<Vec<u16>>,
    #[serde(default, with = "humantime_serde")]
    within: Option<Duration>,
    labels: Option<Names>,
}

impl Matrix {
    pub fn read(text: &str) -> Result<Self, String> {
        let file: File = toml::from_str(text).map_err(|error| {
            let span = error.span().unwrap_or_default();
            let line = text[..span.start].matches('\n').count() + 1;
            let at = text[span].lines().next().unwrap_or_default();
            format!("line {line}, at `{at}`: {}", error.message())
        })?;
        let well = well(&file.routes)?;
        let mut cells = Vec::new();
        for dependency in Dependency::ALL {
            let table = file.dependency.get(&dependency);
            let table = table.ok_or(format!("[dependency]: `{dependency}` is missing"))?;
            let rows = table
                .rows()
                .map_err(|problem| format!("[dependency.{dependency}]: {problem}"))?;
            for fault in Fault::ALL {
                cells.extend(rows.iter().map(|(route, row)| Cell {
                    dependency,
                    fault,
                    route: *route,
                    expected: row.expected(fault, table.label.as_ref(), &well[route]),
                }));
            }
        }
        Ok(Self {
            slack: file.slack,
            settings: file.settings,
            well,
            cells,
        })
    }
}

fn well(routes: &BTreeMap<Route, Row>) -> Result<BTreeMap<Route, Expected>, String> {
    let row = |route| {
        let row = routes.get(&route);
        let row = row.ok_or(format!("[routes]: `{route}` is missing"))?;
        let (Some(statuses), Some(within), true, true) = (
            row.status.clone(),
            row.within,
            row.labels.is_empty(),
            row.but.is_empty(),
        ) else {
            return Err(format!(
                "[routes]: `{route}` needs `status` and `within`, and nothing else"
            ));
        };
        let expected = Expected {
            statuses,
            within,
            labels: Names::new(),
        };
        Ok((route, expected))
    };
    Route::ALL.into_iter().map(row).collect()
}

impl Table {
    /// One row for each route, no more and no less.
    fn rows(&self) -> Result<Vec<(Route, &Row)>, String> {
        static AS_WELL: Row = Row {
            status: None,
            within: None,
            labels: Names::new(),
            but: BTreeMap::new(),
        };
        let row = |route| {
            let unharmed = self.unharmed.iter().filter(|one| **one == route);
            let unharmed = unharmed.map(|_| &AS_WELL);
            let mut named = unharmed.chain(self.routes.get(&route));
            match (named.next(), named.next()) {
                (Some(row), None) => Ok((route, row)),
                (Some(_), Some(_)) => Err(format!("`{route}` is named twice")),
                (None, _) => Err(format!("`{route}` is missing")),
            }
        };
        Route::ALL.into_iter().map(row).collect()
    }
}

impl Row {
    fn expected(&self, fault: Fault, label: Option<&String>, well: &Expected) -> Expected {
        let but = self.but.get(&fault);
        let status = but.and_then(|but| but.status.as_ref());
        let status = status.or(self.status.as_ref());
        let within = but.and_then(|but| but.within).or(self.within);
        let labels = but.and_then(|but| but.labels.as_ref());
        let labels = labels.unwrap_or(&self.labels);
        Expected {
            statuses: status.unwrap_or(&well.statuses).clone(),
            within: within.unwrap_or(well.within),
            labels: labels.iter().chain(label).cloned().collect(),
        }
    }
}
