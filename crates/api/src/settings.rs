//! The service's settings: every crate's own `Config`, composed. Nothing is decided here but how they fit together.

use std::time::Duration;

use garde::Validate;
use serde::{Deserialize, Serialize};
use settings::{Fault, ladder};

use crate::{features, http, roles::shutdown};

/// Everything that can be set. Keys mirror the fields: `http.read_deadline` is `HOLDFAST__HTTP__READ_DEADLINE`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, Validate)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The public listener.
    #[garde(dive)]
    pub http: http::Config,
    /// The admin listener.
    #[garde(dive)]
    pub admin: http::AdminConfig,
    /// How much is worked on at once, and who is refused when it is too much.
    #[garde(dive)]
    pub admission: resilience::admission::Config,
    /// How the process ends.
    #[garde(dive)]
    pub shutdown: shutdown::Config,
    /// Primary, replicas and their pools.
    #[garde(dive)]
    pub postgres: data::postgres::Config,
    /// How patient `holdfast migrate` is.
    #[garde(dive)]
    pub migrate: data::migrate::Config,
    /// The shared connection to Redis.
    #[garde(dive)]
    pub redis: data::redis::Config,
    /// Both levels of the cache.
    #[garde(dive)]
    pub cache: data::cache::Config,
    /// Sessions, their cookie and password hashing.
    #[garde(dive)]
    pub sessions: features::sessions::Config,
    /// Logs, traces and metrics.
    #[garde(dive)]
    pub telemetry: telemetry::Config,
}

impl settings::Settings for Settings {
    const PROFILES: &'static [(&'static str, &'static str)] = &[
        ("dev", include_str!("../../../deploy/config/dev.toml")),
        ("test", include_str!("../../../deploy/config/test.toml")),
        ("prod", include_str!("../../../deploy/config/prod.toml")),
    ];

    const SECRETS: &'static [&'static str] = &[
        "postgres.primary_url",
        "postgres.replica_urls",
        "postgres.direct_url",
        "postgres.token_keys",
        "redis.url",
        "admin.token",
        "http.caller_keys",
    ];

    fn rules(&self, profile: &str) -> Vec<Fault> {
        let mut faults = [
            self.timeout_ladders(),
            self.shutdown_ladder(),
            self.direct_url(),
            self.limits_in_order(),
        ]
        .concat();
        let postgres = &self.postgres;
        if profile == "prod" && !postgres.replica_urls.is_empty() && postgres.token_keys.is_empty()
        {
            let problem = "must be set where there are replicas, the same in every process: else a client that reaches another \
                           process does not see what it wrote";
            faults.push(Fault::new("postgres.token_keys", problem));
        }
        faults
    }
}

impl Settings {
    /// What the pools serve at most, by `admission.limit_per_connection`.
    pub fn requests_served_at_once(&self) -> usize {
        let postgres = &self.postgres;
        let connections = postgres.primary_connections_max
            + postgres.replica_urls.len() * postgres.replica_connections_max;
        connections * self.admission.limit_per_connection
    }

    /// A wait that may outlast the one around it never ends by itself, so each must be shorter than the next.
    fn timeout_ladders(&self) -> Vec<Fault> {
        let postgres = &self.postgres;
        [
            ladder(&[
                ("postgres.replica_timeout", postgres.replica_timeout),
                ("postgres.statement_timeout", postgres.statement_timeout),
                ("http.read_deadline", self.http.read_deadline),
                ("http.write_deadline", self.http.write_deadline),
                ("shutdown.drain_timeout", self.shutdown.drain_timeout),
            ]),
            ladder(&[
                ("postgres.acquire_timeout", postgres.acquire_timeout),
                ("postgres.connect_timeout", postgres.connect_timeout),
                ("postgres.statement_timeout", postgres.statement_timeout),
            ]),
            // A token that ends before every replica has caught up would allow a stale read.
            ladder(&[
                ("postgres.token_wait", postgres.token_wait),
                ("postgres.replica_timeout", postgres.replica_timeout),
                ("postgres.lag_max", postgres.lag_max),
                ("postgres.token_ttl", postgres.token_ttl),
            ]),
            ladder(&[
                ("postgres.ejection_min", postgres.ejection_min),
                ("postgres.ejection_max", postgres.ejection_max),
            ]),
            ladder(&[
                ("http.write_deadline", self.http.write_deadline),
                ("postgres.stuck_after", postgres.stuck_after),
            ]),
            // A value read from the most lagging replica must not be cached after the write it has not seen.
            ladder(&[
                ("postgres.lag_max", postgres.lag_max),
                ("cache.removal_hold", self.cache.removal_hold),
            ]),
            // Nor may a refresh outlast the hold of a removal that it has not seen.
            ladder(&[
                ("cache.refresh_timeout", self.cache.refresh_timeout),
                ("cache.removal_hold", self.cache.removal_hold),
            ]),
            ladder(&[
                ("telemetry.export_timeout", self.telemetry.export_timeout),
                ("telemetry.flush_timeout", self.telemetry.flush_timeout),
            ]),
            ladder(&[
                ("admission.queue_wait", self.admission.queue_wait),
                ("http.read_deadline", self.http.read_deadline),
            ]),
            ladder(&[
                ("redis.command_timeout", self.redis.command_timeout),
                ("http.read_deadline", self.http.read_deadline),
            ]),
        ]
        .concat()
    }

    /// A pooler shares its sessions between clients, and a migration needs one for itself.
    fn direct_url(&self) -> Vec<Fault> {
        let postgres = &self.postgres;
        if postgres.pooled && postgres.direct_url.is_none() {
            let problem = "must be set, to the primary without the pooler: migrations need a session of their own";
            return vec![Fault::new("postgres.direct_url", problem).and("postgres.pooled")];
        }
        Vec::new()
    }

    /// A limit begins where it may stay.
    fn limits_in_order(&self) -> Vec<Fault> {
        let admission = &self.admission;
        if admission.limit_min <= admission.limit_initial
            && admission.limit_initial <= admission.limit_max
        {
            return Vec::new();
        }
        let problem = "must be from admission.limit_min to admission.limit_max";
        let fault = Fault::new("admission.limit_initial", problem);
        vec![fault.and("admission.limit_min").and("admission.limit_max")]
    }

    /// The orchestrator kills the process after `grace`, so all that the process does on its way out must fit in.
    fn shutdown_ladder(&self) -> Vec<Fault> {
        let needed: Duration =
            self.shutdown.phases().sum::<Duration>() + self.telemetry.flush_timeout;
        if needed < self.shutdown.grace {
            return Vec::new();
        }
        let fault = Fault::new(
            "shutdown.grace",
            format!("must be longer than all that happens in it, together {needed:?}"),
        );
        let parts = [
            "shutdown.pre_stop",
            "shutdown.lame_duck",
            "shutdown.drain_timeout",
            "telemetry.flush_timeout",
        ];
        vec![parts.into_iter().fold(fault, Fault::and)]
    }
}
