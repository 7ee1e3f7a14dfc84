//! What is looked at before anything is begun, and before anything is switched.

use super::super::Table;
use super::error::MoveError;
use super::{Mover, Sides};

impl Mover<'_> {
    /// Everything that can be found out before anything is begun.
    pub(super) async fn prepare(
        &self,
        source: &str,
        target: &str,
        range: (i16, i16),
    ) -> Result<(), MoveError> {
        let mut sides = self.sides(source, target, range).await?;
        let (from, to) = (sides.source.facts().await?, sides.target.facts().await?);
        let lacks = |cluster: &str, what: &str| {
            Err(MoveError::NotPrepared {
                cluster: cluster.to_owned(),
                what: what.to_owned(),
            })
        };
        if from.is_in_recovery || to.is_in_recovery {
            let standby = if from.is_in_recovery { source } else { target };
            return lacks(standby, "the admin URL leads to a standby");
        }
        if from.system == to.system {
            return lacks(target, "is the same server as the source");
        }
        if from.wal_level != "logical" {
            return lacks(source, "set wal_level = logical and restart it");
        }
        if !from.may_publish {
            return lacks(
                source,
                "the role of the admin URL needs REPLICATION or superuser",
            );
        }
        if !to.may_subscribe {
            return lacks(
                target,
                "the role of the admin URL needs superuser, or from Postgres 16 on pg_create_subscription",
            );
        }
        if from.schema_version != to.schema_version {
            return lacks(
                target,
                "its schema is another one; run `holdfast migrate` first",
            );
        }
        for table in self.tables {
            if sides.target.digest(*table).await?.rows > 0 {
                return lacks(
                    target,
                    "has rows of these buckets that nobody reads; delete them first",
                );
            }
        }
        Ok(())
    }
}

/// How many rows there are on both sides, if they are the same.
pub(super) async fn compare(
    Sides { source, target }: &mut Sides,
    tables: &'static [Table],
) -> Result<i64, MoveError> {
    let mut rows = 0;
    for table in tables {
        let (on_origin, on_target) = tokio::join!(source.digest(*table), target.digest(*table));
        let (on_origin, on_target) = (on_origin?, on_target?);
        if on_origin != on_target {
            return Err(MoveError::Mismatch {
                table: table.name,
                origin: source.name.clone(),
                target: target.name.clone(),
                on_origin: on_origin.to_string(),
                on_target: on_target.to_string(),
            });
        }
        rows += on_origin.rows;
    }
    Ok(rows)
}
