//! Moments in write-ahead logs, and the few of them that a request has to remember.

/// So many clusters a request remembers apart. Beyond them it remembers only that there were more.
pub(crate) const POSITIONS_MAX: usize = 8;

/// A moment in the log of one cluster: what was committed up to it is visible from it on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// The cluster's `system_identifier`, the same on a primary and its standbys. 0: any cluster.
    pub system: u64,
    /// A promotion begins a new one; positions of two timelines cannot be compared (PostgreSQL documentation, "Timelines").
    pub timeline: u32,
    /// Bytes since the log began.
    pub lsn: u64,
}

impl Position {
    /// Somewhere, some time: no replica is known to have reached it.
    pub(crate) const UNKNOWN: Self = Self {
        system: 0,
        timeline: u32::MAX,
        lsn: u64::MAX,
    };

    fn is_before(&self, other: &Self) -> bool {
        (self.timeline, self.lsn) < (other.timeline, other.lsn)
    }
}

/// The newest position of each of a few clusters, and the newest shard map. A plain value without allocation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Positions {
    entries: [Position; POSITIONS_MAX],
    count: usize,
    map_version: u32,
}

impl Positions {
    /// Remembers a position, if it is newer than what is remembered of that cluster.
    pub fn add(&mut self, position: Position) {
        let known = self.entries[..self.count]
            .iter_mut()
            .find(|known| known.system == position.system);
        match known {
            Some(known) if known.is_before(&position) => *known = position,
            Some(_) => {}
            None if self.count < POSITIONS_MAX => {
                self.entries[self.count] = position;
                self.count += 1;
            }
            // Forgetting one would allow a stale read; remembering "anything" only costs reads on primaries.
            None => self.entries[POSITIONS_MAX - 1] = Position::UNKNOWN,
        }
    }

    /// Remembers all of another's positions.
    pub fn merge(&mut self, other: &Self) {
        other.iter().for_each(|position| self.add(*position));
        self.add_map(other.map_version);
    }

    /// Remembers the version of a shard map by which something was written, if it is newer.
    pub fn add_map(&mut self, version: u32) {
        self.map_version = self.map_version.max(version);
    }

    /// The newest shard map by which anything was written. By an older one it would be looked for where it was before.
    pub fn map_version(&self) -> u32 {
        self.map_version
    }

    /// What is remembered of a cluster.
    pub fn of(&self, system: u64) -> Option<Position> {
        let of = |wanted| self.iter().find(move |known| known.system == wanted);
        of(system).or_else(|| of(Position::UNKNOWN.system)).copied()
    }

    /// Each cluster's position.
    pub fn iter(&self) -> impl Iterator<Item = &Position> {
        self.entries[..self.count].iter()
    }

    /// Whether nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.count == 0 && self.map_version == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(system: u64, timeline: u32, lsn: u64) -> Position {
        Position {
            system,
            timeline,
            lsn,
        }
    }

    #[test]
    fn the_newest_position_of_each_cluster_is_kept() {
        let mut positions = Positions::default();

        for (system, timeline, lsn) in [(7, 1, 50), (8, 1, 10), (7, 1, 40), (7, 2, 45), (7, 1, 90)]
        {
            positions.add(position(system, timeline, lsn));
        }

        assert_eq!(positions.of(7), Some(position(7, 2, 45)));
        assert_eq!(positions.of(8), Some(position(8, 1, 10)));
        assert_eq!(positions.of(9), None);
    }

    #[test]
    fn with_too_many_clusters_the_unknown_ones_are_remembered_as_one() {
        let mut positions = Positions::default();

        for system in 1..=20 {
            positions.add(position(system, 1, 1));
        }

        assert_eq!(positions.of(1), Some(position(1, 1, 1)));
        assert_eq!(positions.of(20), Some(Position::UNKNOWN));
        assert_eq!(positions.of(99), Some(Position::UNKNOWN));
    }
}
