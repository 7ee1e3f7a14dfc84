//! Triggers that keep writes off a cluster: of rows on their way, and of rows that it does not hold.

use std::time::Duration;

use tokio::time::sleep;

use super::super::{Buckets, Table, guard};
use super::error::MoveError;
use super::side::{NAME, Side};

/// How long a change of a table's triggers waits for its writers, who in turn wait for it.
const LOCK_TIMEOUT: &str = "200ms";
/// How often that is tried, with a pause that lets the writers pass.
const LOCK_ATTEMPTS_MAX: u32 = 50;
const LOCK_PAUSE: Duration = Duration::from_millis(100);

impl Side {
    /// From here on the server refuses every write to the moving rows, and no earlier one is still under way: making a
    /// trigger waits for all who write to the table.
    pub(super) async fn fence(&mut self) -> Result<(), MoveError> {
        let mut sql = format!("set local lock_timeout = '{LOCK_TIMEOUT}';");
        for Table { name, key } in self.tables {
            for (events, row) in [("insert or update", "new"), ("delete", "old")] {
                let is_moving = self.is_moving(&format!("{row}.{key}"));
                sql += &format!(
                    "create or replace trigger {NAME}_{row} before {events} on {name}
                     for each row when ({is_moving}) execute function refuse_moving_row();"
                );
            }
        }
        self.run_between_writes("holding up writes", &sql).await
    }

    /// Lets writes pass again.
    pub(super) async fn unfence(&mut self) -> Result<(), MoveError> {
        let (fences,): (i64,) = {
            let sql = format!("select count(*) from pg_trigger where tgname like '{NAME}\\_%'");
            self.ask("looking for what is there", sql).await?
        };
        if fences == 0 {
            return Ok(());
        }
        let mut sql = format!("set local lock_timeout = '{LOCK_TIMEOUT}';");
        for Table { name, .. } in self.tables {
            for row in ["new", "old"] {
                sql += &format!("drop trigger if exists {NAME}_{row} on {name};");
            }
        }
        self.run_between_writes("letting writes pass", &sql).await
    }

    /// Has the server refuse rows of other buckets than `held`, from now on and until the next move.
    pub(super) async fn guard(&mut self, held: &Buckets) -> Result<(), MoveError> {
        let guard = guard::statements(self.tables, held);
        let sql = format!("set local lock_timeout = '{LOCK_TIMEOUT}'; {guard}");
        self.run_between_writes("guarding against other rows", &sql)
            .await
    }

    /// A change of triggers waits for a lock and makes everybody behind it wait, so it waits a moment only, again and again.
    async fn run_between_writes(&mut self, step: &'static str, sql: &str) -> Result<(), MoveError> {
        for _ in 0..LOCK_ATTEMPTS_MAX {
            let transaction = format!("begin; {sql} commit");
            match self.run(step, transaction).await {
                Err(MoveError::Failed { source, .. }) if is_lock_timeout(&source) => {
                    self.run(step, "rollback".to_owned()).await?;
                    sleep(LOCK_PAUSE).await;
                }
                outcome => return outcome.map(drop),
            }
        }
        Err(MoveError::Busy {
            cluster: self.name.clone(),
        })
    }
}

fn is_lock_timeout(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    matches!(code.as_deref(), Some("55P03" | "40P01"))
}
