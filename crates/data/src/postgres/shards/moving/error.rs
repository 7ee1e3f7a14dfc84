//! Why a move did not happen, in one line each.

use std::time::Duration;

use super::super::Buckets;

/// Why buckets were not moved, or not to the end.
#[derive(Debug, thiserror::Error)]
pub enum MoveError {
    /// No such cluster.
    #[error("no cluster is called {0}: shards.clusters and `home` are those there are")]
    UnknownCluster(String),
    /// A URL cannot be read.
    #[error("the admin URL of {0} is not the URL of a Postgres database")]
    InvalidUrl(String),
    /// The buckets are on several clusters.
    #[error(
        "{buckets} are not all on one cluster: {on_first} are on {first}, move them one by one"
    )]
    SeveralSources {
        /// All that was asked for.
        buckets: Buckets,
        /// A part of them.
        on_first: Buckets,
        /// Where that part is.
        first: String,
    },
    /// The map has not been dealt.
    #[error("there is no shard map: set shards.clusters and run `holdfast migrate`")]
    NoMap,
    /// They are there already.
    #[error("{0} are there already")]
    Nothing(Buckets),
    /// One at a time.
    #[error("another move is running")]
    Running,
    /// Another move was begun and not ended.
    #[error(
        "the move of {buckets} from {origin} to {target} is unfinished: finish it with `holdfast shard move {buckets} --to {target}`, or undo it with `holdfast shard move --abort`"
    )]
    Unfinished {
        /// What it moves.
        buckets: Buckets,
        /// From where.
        origin: String,
        /// To where.
        target: String,
    },
    /// There is nothing to undo.
    #[error("no move is unfinished")]
    NothingToAbort,
    /// Rows are written to the target already.
    #[error(
        "the map names {target} already: finish the move with `holdfast shard move {buckets} --to {target}`, and move back if need be"
    )]
    TooLateToAbort {
        /// What it moves.
        buckets: Buckets,
        /// To where.
        target: String,
    },
    /// A server is not set up for it.
    #[error("{cluster}: {what}")]
    NotPrepared {
        /// Which one.
        cluster: String,
        /// What it lacks.
        what: String,
    },
    /// A step took too long.
    #[error(
        "{step} took longer than {limit:?} ({setting}); run the command again to go on, or with --abort to undo it"
    )]
    Timeout {
        /// Which one.
        step: &'static str,
        /// How long it may take.
        limit: Duration,
        /// What says so.
        setting: &'static str,
    },
    /// Writers held the tables all the time.
    #[error(
        "writes to {cluster} could not be held up for a moment: a long transaction on a sharded table? run the command again"
    )]
    Busy {
        /// Which one.
        cluster: String,
    },
    /// What was left from before does not end.
    #[error("{cluster}: {step} takes too long; run the command again")]
    Lingering {
        /// Which one.
        cluster: String,
        /// What was waited for.
        step: &'static str,
    },
    /// Source and target differ although nothing was written.
    #[error(
        "{table} differs between {origin} ({on_origin}) and {target} ({on_target}); nothing was switched, run with --abort"
    )]
    Mismatch {
        /// In which table.
        table: &'static str,
        /// From where.
        origin: String,
        /// To where.
        target: String,
        /// Its rows and their checksum there.
        on_origin: String,
        /// And here.
        on_target: String,
    },
    /// A server answered with an error, or not at all.
    #[error("{cluster}: {step} failed")]
    Failed {
        /// Which one.
        cluster: String,
        /// At what.
        step: &'static str,
        /// What it said.
        #[source]
        source: sqlx::Error,
    },
}
