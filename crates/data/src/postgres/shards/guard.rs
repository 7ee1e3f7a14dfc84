//! Has a cluster refuse rows of buckets that it does not hold, whoever sends them: a process that was started before there were
//! several clusters knows of no map, and what it wrote would be lost sight of.

use super::{Bucket, Buckets, Table};

/// What makes a cluster accept the rows of `held` and no others. Triggers fire in sessions of clients, and not where
/// replication applies what is on its way here.
pub(super) fn statements(tables: &[Table], held: &Buckets) -> String {
    let numbers: Vec<String> = held.iter().map(|bucket| bucket.to_string()).collect();
    let numbers = numbers.join(",");
    let guard = |Table { name, key }: &Table| {
        if held.len() == Bucket::COUNT {
            return format!("drop trigger if exists shard_guard on {name};");
        }
        let bucket = Bucket::sql(&format!("new.{key}"));
        format!(
            "create or replace trigger shard_guard before insert or update on {name}
             for each row when ({bucket} <> all ('{{{numbers}}}'::int[])) execute function refuse_moving_row();"
        )
    };
    tables.iter().map(guard).collect()
}
