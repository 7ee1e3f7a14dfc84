//! The service's settings: every crate's own `Config`, composed. Nothing is decided here but how they fit together.

use std::time::Duration;

use data::postgres::shards::Overlap;
use garde::Validate;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use settings::{Fault, ladder};

use crate::{
    features, flags,
    http::{self, outbound},
    ladders,
    roles::shutdown,
};

/// Everything that can be set. Keys mirror the fields: `http.read_deadline` is `HOLDFAST__HTTP__READ_DEADLINE`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, Validate)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The public listener.
    #[garde(dive)]
    pub http: http::Config,
    /// The gRPC listener.
    #[garde(dive)]
    pub grpc: http::grpc::Config,
    /// How much each principal may ask.
    #[garde(dive)]
    pub limits: http::limits::Config,
    /// The admin listener.
    #[garde(dive)]
    pub admin: http::AdminConfig,
    /// How much is worked on at once, and who is refused when it is too much.
    #[garde(dive)]
    pub admission: resilience::admission::Config,
    /// What is switched on and off, by whom.
    #[garde(dive)]
    pub flags: flags::Config,
    /// How the process ends.
    #[garde(dive)]
    pub shutdown: shutdown::Config,
    /// Primary, replicas and their pools.
    #[garde(dive)]
    pub postgres: data::postgres::Config,
    /// The clusters beside the one of `postgres`, and how rows move between them.
    #[garde(dive)]
    pub shards: data::postgres::shards::Config,
    /// How patient `holdfast migrate` is.
    #[garde(dive)]
    pub migrate: data::migrate::Config,
    /// The shared connection to Redis.
    #[garde(dive)]
    pub redis: data::redis::Config,
    /// Both levels of the cache.
    #[garde(dive)]
    pub cache: data::cache::Config,
    /// How long idempotency keys are worked on and remembered.
    #[garde(dive)]
    pub idempotency: data::idempotency::Config,
    /// How many jobs run at once, for how long they are one's own, and what becomes of those that fail.
    #[garde(dive)]
    pub jobs: worker::Config,
    /// How what happens is told to others.
    #[garde(dive)]
    pub outbox: data::outbox::Config,
    /// Sessions, their cookie and password hashing.
    #[garde(dive)]
    pub sessions: features::sessions::Config,
    /// Orders of customers on other clusters than the stock, and who is paid.
    #[garde(dive)]
    pub orders: features::orders::Config,
    /// What clients say of what they do.
    #[garde(dive)]
    pub events: features::events::Config,
    /// How much is kept of what has happened.
    #[garde(dive)]
    pub feed: data::feed::Config,
    /// Who hears of it.
    #[garde(dive)]
    pub live: features::live::Config,
    /// What goes well with a product, and who is asked.
    #[garde(dive)]
    pub recommendations: features::recommendations::Config,
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
        "shards.home_admin_url",
        "shards.clusters.*.primary_url",
        "shards.clusters.*.replica_urls",
        "shards.clusters.*.direct_url",
        "shards.clusters.*.admin_url",
        "postgres.token_keys",
        "redis.url",
        "admin.token",
        "http.caller_keys",
        "flags.ofrep.caller_key",
        "flags.ofrep.token",
        "orders.payments.caller_key",
        "orders.payments.token",
        "recommendations.upstream.caller_key",
        "recommendations.upstream.token",
    ];

    fn rules(&self, profile: &str) -> Vec<Fault> {
        let mut faults = [
            self.timeout_ladders(),
            self.upstreams(),
            self.shutdown_ladder(),
            self.shards(),
            self.direct_url(),
            self.limits_in_order(),
            ladders::jobs(self),
            ladders::outbox(self),
            ladders::live(self),
            self.flag_ladders(),
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
        let replicas = |urls: &[SecretString]| urls.len() * postgres.replica_connections_max;
        let further = self.shards.clusters.values();
        let connections = std::iter::once(&postgres.replica_urls)
            .chain(further.map(|cluster| &cluster.replica_urls))
            .map(|urls| postgres.primary_connections_max + replicas(urls))
            .sum::<usize>();
        connections * self.admission.limit_per_connection
    }

    /// Whoever takes a request for lost must not do so while it may still be at work.
    fn over_requests(&self) -> Vec<Fault> {
        let request = ("http.write_deadline", self.http.write_deadline);
        let (postgres, keys) = (&self.postgres, &self.idempotency);
        [
            ladder(&[request, ("postgres.stuck_after", postgres.stuck_after)]),
            ladder(&[
                request,
                ("idempotency.lease", keys.lease),
                ("idempotency.ttl", keys.ttl),
            ]),
        ]
        .concat()
    }

    /// A wait that may outlast the one around it never ends by itself, so each must be shorter than the next.
    fn timeout_ladders(&self) -> Vec<Fault> {
        let (postgres, throttle) = (&self.postgres, &self.sessions.throttle);
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
            self.over_requests(),
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
            // Attempts that are forgotten during a wait would end it.
            ladder(&[
                ("sessions.throttle.delay", throttle.delay),
                (
                    "sessions.throttle.address_delay_max",
                    throttle.address_delay_max,
                ),
                ("sessions.throttle.forget_after", throttle.forget_after),
            ]),
            ladder(&[
                ("sessions.throttle.delay", throttle.delay),
                (
                    "sessions.throttle.account_delay_max",
                    throttle.account_delay_max,
                ),
                ("sessions.throttle.forget_after", throttle.forget_after),
            ]),
            ladder(&[
                ("events.write_timeout", self.events.write_timeout),
                ("events.flush_timeout", self.events.flush_timeout),
            ]),
            ladder(&[
                ("admission.queue_wait", self.admission.queue_wait),
                ("http.read_deadline", self.http.read_deadline),
            ]),
            ladder(&[
                ("redis.command_timeout", self.redis.command_timeout),
                ("http.read_deadline", self.http.read_deadline),
            ]),
            ladders::breakers(self),
            ladders::connections(self),
        ]
        .concat()
    }

    /// The calls to other services, each within the deadline of the requests that make them.
    fn upstreams(&self) -> Vec<Fault> {
        let http = &self.http;
        [
            upstream_ladders(
                "recommendations.upstream",
                &self.recommendations.upstream,
                ("http.read_deadline", http.read_deadline),
            ),
            upstream_ladders(
                "orders.payments",
                &self.orders.payments,
                ("http.write_deadline", http.write_deadline),
            ),
        ]
        .concat()
    }

    /// A look that fails leaves time for another before what is known is stale.
    fn flag_ladders(&self) -> Vec<Fault> {
        let flags = &self.flags;
        let stale_after = ("flags.stale_after", flags.stale_after);
        [
            ladder(&[("flags.poll_interval", flags.poll_interval), stale_after]),
            ladder(&[
                ("flags.brownout.calm_min", flags.brownout.calm_min),
                ("flags.brownout.calm_max", flags.brownout.calm_max),
            ]),
            upstream_ladders("flags.ofrep", &flags.ofrep, stale_after),
        ]
        .concat()
    }

    /// None of it matters while there is one cluster.
    fn shards(&self) -> Vec<Fault> {
        if self.shards.clusters.is_empty() {
            return Vec::new();
        }
        [
            self.shard_overlaps(),
            self.hold_age(),
            self.move_grace(),
            ladder(&[
                ("shards.map_interval", self.shards.map_interval),
                ("shards.map_age_max", self.shards.map_age_max),
            ]),
            ladder(&[
                ("shards.move_pause_max", self.shards.move_pause_max),
                ("http.write_deadline", self.http.write_deadline),
            ]),
        ]
        .concat()
    }

    /// A request that began with an old map must be over when the rows that it would find there are deleted.
    fn move_grace(&self) -> Vec<Fault> {
        let needed = self.shards.map_age_max + self.http.write_deadline;
        if needed < self.shards.move_grace {
            return Vec::new();
        }
        let problem = format!("must be longer than an old map may be in use, together {needed:?}");
        let fault = Fault::new("shards.move_grace", problem);
        let parts = ["shards.map_age_max", "http.write_deadline"];
        vec![parts.into_iter().fold(fault, Fault::and)]
    }

    /// Nobody may look what became of an order while it may still come to be: its request is over by then, and a transaction that
    /// the request left open was ended by the server.
    fn hold_age(&self) -> Vec<Fault> {
        let idle = self.postgres.idle_in_transaction_timeout;
        let needed = self.http.write_deadline + self.postgres.statement_timeout + idle;
        if needed < self.orders.hold_age {
            return Vec::new();
        }
        let problem = format!("must be longer than an order may be under way, together {needed:?}");
        let fault = Fault::new("orders.hold_age", problem);
        let parts = [
            "http.write_deadline",
            "postgres.statement_timeout",
            "postgres.idle_in_transaction_timeout",
        ];
        vec![parts.into_iter().fold(fault, Fault::and)]
    }

    /// A bucket is in one cluster.
    fn shard_overlaps(&self) -> Vec<Fault> {
        let overlaps = self.shards.overlaps().into_iter();
        let fault = |overlap: Overlap| {
            let [one, other] = overlap
                .clusters
                .map(|name| format!("shards.clusters.{name}.buckets"));
            let problem = format!("both claim {}; give each bucket to one", overlap.buckets);
            Fault::new(&one, problem).and(&other)
        };
        overlaps.map(fault).collect()
    }

    /// A pooler shares its sessions between clients, and a migration needs one for itself.
    fn direct_url(&self) -> Vec<Fault> {
        if !self.postgres.pooled {
            return Vec::new();
        }
        let home = ("postgres".to_owned(), &self.postgres.direct_url);
        let others = self.shards.clusters.iter();
        let others = others.map(|(name, at)| (format!("shards.clusters.{name}"), &at.direct_url));
        let missing = std::iter::once(home).chain(others);
        let missing = missing.filter(|(_, url)| url.is_none());
        let problem = "must be set, to the primary without the pooler: migrations need a session of their own";
        missing
            .map(|(section, _)| {
                Fault::new(&format!("{section}.direct_url"), problem).and("postgres.pooled")
            })
            .collect()
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
        let flushes = self.events.flush_timeout + self.telemetry.flush_timeout;
        let requests = self.shutdown.lame_duck + self.shutdown.drain_timeout;
        // Both begin to end at the signal.
        let longest = requests.max(self.jobs.stop_timeout);
        let needed = self.shutdown.pre_stop + longest + flushes;
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
            "jobs.stop_timeout",
            "events.flush_timeout",
            "telemetry.flush_timeout",
        ];
        vec![parts.into_iter().fold(fault, Fault::and)]
    }
}

/// A call to another service has to leave the request around it time to do without the answer, or to keep it.
fn upstream_ladders(
    section: &str,
    upstream: &outbound::Config,
    deadline: (&str, Duration),
) -> Vec<Fault> {
    if upstream.url.is_none() {
        return Vec::new();
    }
    let (breaker, bulkhead) = (&upstream.breaker, &upstream.bulkhead);
    let attempt = ("attempt_timeout", upstream.attempt_timeout);
    let total = ("total_timeout", upstream.total_timeout);
    let within = |rungs: &[(&str, Duration)]| {
        let keys = rungs.iter().map(|(key, _)| format!("{section}.{key}"));
        let keys: Vec<_> = keys.collect();
        let named = keys.iter().zip(rungs);
        let named: Vec<_> = named.map(|(key, rung)| (key.as_str(), rung.1)).collect();
        ladder(&named)
    };
    [
        within(&[
            ("connect_timeout", upstream.connect_timeout),
            attempt,
            total,
        ]),
        ladder(&[(&format!("{section}.{}", total.0), total.1), deadline]),
        // An answer is cut before it could be found slow, if it may not even take that long.
        within(&[("breaker.slow_after", breaker.slow_after), attempt]),
        within(&[
            ("breaker.open_min", breaker.open_min),
            ("breaker.open_max", breaker.open_max),
        ]),
        within(&[("bulkhead.wait", bulkhead.wait), attempt]),
    ]
    .concat()
}
