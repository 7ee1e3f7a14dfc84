//! How Postgres copies the rows and follows what is written: a publication with a row filter, a subscription, a slot.

use super::super::Table;
use super::error::MoveError;
use super::side::{NAME, Side};

impl Side {
    /// Indexes over nothing but the moving rows, so that counting and deleting them costs what they are and not what the
    /// tables are. They are made anew, for one that was interrupted is not valid.
    pub(super) async fn index(&mut self) -> Result<(), MoveError> {
        self.drop_indexes().await?;
        for Table { name, key } in self.tables {
            let is_moving = self.is_moving(key);
            let sql = format!(
                "create index concurrently {name}_{NAME}_idx on {name} ({key}) where {is_moving}"
            );
            self.run("indexing the rows to move", sql).await?;
        }
        Ok(())
    }

    pub(super) async fn drop_indexes(&mut self) -> Result<(), MoveError> {
        for Table { name, .. } in self.tables {
            let sql = format!("drop index concurrently if exists {name}_{NAME}_idx");
            self.run("dropping an index", sql).await?;
        }
        Ok(())
    }

    /// Says what subscribers get: the moving rows.
    pub(super) async fn publish(&mut self) -> Result<(), MoveError> {
        if self.has("pg_publication", "pubname").await? {
            return Ok(());
        }
        let tables = self.tables.iter();
        let filtered =
            tables.map(|Table { name, key }| format!("{name} where ({})", self.is_moving(key)));
        let filtered: Vec<_> = filtered.collect();
        let sql = format!(
            "create publication {NAME} for table {}",
            filtered.join(", ")
        );
        self.run("publishing the rows to move", sql).await.map(drop)
    }

    pub(super) async fn unpublish(&mut self) -> Result<(), MoveError> {
        let sql = format!("drop publication if exists {NAME}");
        self.run("dropping the publication", sql).await.map(drop)
    }

    pub(super) async fn is_subscribed(&mut self) -> Result<bool, MoveError> {
        self.has("pg_subscription", "subname").await
    }

    async fn has(&mut self, catalog: &str, column: &str) -> Result<bool, MoveError> {
        let sql = format!("select exists (select from {catalog} where {column} = '{NAME}')");
        let (has,) = self.ask("looking for what is there", sql).await?;
        Ok(has)
    }

    /// Has the server fetch the rows from `source`, and go on to fetch what is changed there.
    pub(super) async fn subscribe(&mut self, source: &str) -> Result<(), MoveError> {
        // What is applied counts at once and not when the log happens to be flushed: somebody waits for it.
        let sql = format!(
            "create subscription {NAME} connection '{}' publication {NAME}
             with (copy_data = true, synchronous_commit = local)",
            source.replace('\'', "''")
        );
        self.run("subscribing to the rows to move", sql)
            .await
            .map(drop)
    }

    /// Ends the subscription, and its slot on the source.
    pub(super) async fn unsubscribe(&mut self) -> Result<(), MoveError> {
        let sql = format!("drop subscription if exists {NAME}");
        self.run("ending the subscription", sql).await.map(drop)
    }

    /// A slot that no subscription is left for: it would keep the log from being removed for ever.
    pub(super) async fn drop_slot(&mut self) -> Result<(), MoveError> {
        // One that is still in use goes a moment later.
        let sql = format!(
            "select count(case when not active then pg_drop_replication_slot(slot_name) end) + count(*)
             from pg_replication_slots where slot_name = '{NAME}'"
        );
        self.until_none("dropping the slot", &sql).await
    }

    /// Whether every table has been copied and is kept up to date.
    pub(super) async fn is_copied(&mut self) -> Result<bool, MoveError> {
        let sql = format!(
            "select count(*) = {} and bool_and(srsubstate = 'r') from pg_subscription_rel
             join pg_subscription on pg_subscription.oid = srsubid where subname = '{NAME}'",
            self.tables.len()
        );
        let (is_copied,): (Option<bool>,) = self.ask("looking at the copy", sql).await?;
        Ok(is_copied.unwrap_or(false))
    }

    /// The end of the log.
    pub(super) async fn position(&mut self) -> Result<i64, MoveError> {
        let sql = "select (pg_current_wal_flush_lsn() - '0/0')::int8";
        let (lsn,) = self.ask("looking at the log", sql.to_owned()).await?;
        Ok(lsn)
    }

    /// How far the subscriber has applied the log.
    pub(super) async fn applied(&mut self) -> Result<i64, MoveError> {
        let sql = format!(
            "select coalesce((select (confirmed_flush_lsn - '0/0')::int8 from pg_replication_slots where slot_name = '{NAME}'), 0)"
        );
        let (lsn,) = self.ask("looking at the slot", sql).await?;
        Ok(lsn)
    }
}
