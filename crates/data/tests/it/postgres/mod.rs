//! Postgres: the pool, the choice between the nodes, transactions, migrations.

mod consistency;
mod failover;
mod faults;
mod load;
mod migrations;
mod moves;
mod pool;
mod pooler;
mod replicas;
pub mod rig;
mod round_trips;
mod routing;
mod shards;
mod slow;
mod transactions;
