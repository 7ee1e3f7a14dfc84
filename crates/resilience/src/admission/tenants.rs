//! How much each caller has in flight, in a table that does not grow.

use std::hash::{BuildHasher, Hash, RandomState};

/// Counts by caller, those of critical work apart. Two callers may share a place in the table, and are then one caller; which ones, nobody outside can tell,
/// for the hash is keyed anew in each process.
#[derive(Debug)]
pub(super) struct Tenants {
    keys: RandomState,
    /// Sheddable work, then critical.
    tables: [Table; 2],
}

#[derive(Debug)]
struct Table {
    in_flight: Box<[u32]>,
    /// Places that are not 0.
    active: usize,
}

/// A caller's place in a table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    table: usize,
    index: usize,
}

impl Tenants {
    pub(super) fn new(places: usize) -> Self {
        let table = || Table {
            in_flight: vec![0; places.max(1)].into(),
            active: 0,
        };
        Self {
            keys: RandomState::new(),
            tables: [table(), table()],
        }
    }

    pub(super) fn place(&self, is_critical: bool, tenant: impl Hash) -> Place {
        let table = usize::from(is_critical);
        let places = self.tables[table].in_flight.len() as u64;
        Place {
            table,
            index: (self.keys.hash_one(tenant) % places) as usize,
        }
    }

    pub(super) fn begin(&mut self, place: Place) {
        let table = &mut self.tables[place.table];
        let count = &mut table.in_flight[place.index];
        table.active += usize::from(*count == 0);
        *count += 1;
    }

    pub(super) fn end(&mut self, place: Place) {
        let table = &mut self.tables[place.table];
        let count = &mut table.in_flight[place.index];
        *count -= 1;
        table.active -= usize::from(*count == 0);
    }

    /// Whether the caller has its part of `limit` already, where all who have something in flight get the same.
    pub(super) fn has_its_part(&self, place: Place, limit: usize) -> bool {
        let table = &self.tables[place.table];
        let own = table.in_flight[place.index] as usize;
        let callers = table.active + usize::from(own == 0);
        callers > 1 && own >= limit.div_ceil(callers)
    }
}
