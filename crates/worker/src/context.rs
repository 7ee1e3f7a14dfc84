//! What travels with a job from whoever enqueued it to whoever runs it.

use data::postgres::{Consistency, Position, Positions};
use serde::{Deserialize, Serialize};

/// On whose behalf a job is enqueued.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Origin {
    /// The place in a trace, as in the header of that name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// For whom it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
}

/// As it is kept with the job. Whoever reads one that another version has written leaves out what it does not know.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Context {
    #[serde(flatten)]
    pub(crate) origin: Origin,
    /// What the enqueuer has seen of clusters: system, timeline, position in the log.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    seen: Vec<(u64, u32, u64)>,
    #[serde(skip_serializing_if = "is_zero")]
    map_version: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl Context {
    pub(crate) fn new(origin: Origin, seen: &Positions) -> Self {
        let position = |one: &Position| (one.system, one.timeline, one.lsn);
        Self {
            origin,
            seen: seen.iter().map(position).collect(),
            map_version: seen.map_version(),
        }
    }

    /// What the job's reads have to see: what its enqueuer saw, and everything at home that was committed before it was claimed.
    pub(crate) fn consistency(&self, claimed: &Positions) -> Consistency {
        let mut positions = *claimed;
        for &(system, timeline, lsn) in &self.seen {
            positions.add(Position {
                system,
                timeline,
                lsn,
            });
        }
        positions.add_map(self.map_version);
        let consistency = Consistency::default();
        if !positions.is_empty() {
            consistency.require(&positions);
        }
        consistency
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_survives_the_way_through_json() {
        let mut seen = Positions::default();
        for system in [7, u64::MAX] {
            seen.add(Position {
                system,
                timeline: 2,
                lsn: u64::MAX,
            });
        }
        seen.add_map(3);
        let origin = Origin {
            tenant: Some("acme".to_owned()),
            traceparent: None,
        };

        let json = serde_json::to_string(&Context::new(origin.clone(), &seen)).unwrap();
        let read: Context = serde_json::from_str(&json).unwrap();

        println!("{json}");
        assert_eq!(read.origin, origin);
        let consistency = read.consistency(&Positions::default());
        assert_eq!(consistency.seen(), seen);
    }

    #[test]
    fn a_context_of_another_version_can_be_read() {
        let read: Context = serde_json::from_str(r#"{"what": "is this"}"#).unwrap();

        assert_eq!(read.origin, Origin::default());
        assert!(read.consistency(&Positions::default()).seen().is_empty());
    }
}
