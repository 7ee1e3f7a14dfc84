//! What a session's requests have to see of the databases, as it lies in Redis beside the session: one field per cluster, its
//! position as text that sorts like the position.

use std::collections::HashMap;

use crate::postgres::{Position, Positions};

/// Digits of a timeline, and of a byte position, in hexadecimal.
const TIMELINE: usize = 8;
const LSN: usize = 16;

pub(super) fn field(position: &Position) -> (String, String) {
    let Position {
        system,
        timeline,
        lsn,
    } = position;
    (
        format!("{system:x}"),
        format!("{timeline:0TIMELINE$x}{lsn:0LSN$x}"),
    )
}

/// A field that is not of this form is left out: a session remembers for comfort, and a client's token says it again.
pub(super) fn read(fields: &HashMap<String, String>) -> Positions {
    let mut seen = Positions::default();
    let positions = fields.iter().filter_map(|(system, at)| {
        let (timeline, lsn) = at.split_at_checked(TIMELINE)?;
        Some(Position {
            system: u64::from_str_radix(system, 16).ok()?,
            timeline: u32::from_str_radix(timeline, 16).ok()?,
            lsn: u64::from_str_radix(lsn, 16).ok()?,
        })
    });
    positions.for_each(|position| seen.add(position));
    seen
}
