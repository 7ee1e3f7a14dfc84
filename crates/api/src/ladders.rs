//! Which wait ends before which, beyond those of a request's way. `tests/it/ladders.rs` finds the setting that is in none.

use settings::{Fault, ladder};

use crate::settings::Settings;

/// What may not even take that long is cut before it could be found slow.
pub(crate) fn breakers(settings: &Settings) -> Vec<Fault> {
    let (postgres, redis) = (&settings.postgres, &settings.redis);
    let command_timeout = ("redis.command_timeout", redis.command_timeout);
    [
        ladder(&[
            ("postgres.breaker.slow_after", postgres.breaker.slow_after),
            ("postgres.replica_timeout", postgres.replica_timeout),
        ]),
        ladder(&[
            ("postgres.breaker.open_min", postgres.breaker.open_min),
            ("postgres.breaker.open_max", postgres.breaker.open_max),
        ]),
        ladder(&[
            ("redis.breaker.slow_after", redis.breaker.slow_after),
            command_timeout,
        ]),
        ladder(&[
            ("redis.breaker.open_min", redis.breaker.open_min),
            ("redis.breaker.open_max", redis.breaker.open_max),
        ]),
        ladder(&[
            ("redis.bulkhead.wait", redis.bulkhead.wait),
            command_timeout,
        ]),
    ]
    .concat()
}

/// How long connections last, on both sides, and what may hold one.
pub(crate) fn connections(settings: &Settings) -> Vec<Fault> {
    let (http, postgres, migrate) = (&settings.http, &settings.postgres, &settings.migrate);
    let grpc = &settings.grpc;
    let (sessions, passwords) = (&settings.sessions.store, &settings.sessions.passwords);
    let drain_timeout = ("shutdown.drain_timeout", settings.shutdown.drain_timeout);
    [
        // Whoever closes first must be the one that sends: else a request meets a connection that was just closed.
        ladder(&[
            ("http.balancer_idle", http.balancer_idle),
            ("http.idle_timeout", http.idle_timeout),
        ]),
        // A request that never came must not make a shutdown one that has cut work.
        ladder(&[
            ("http.first_byte_timeout", http.first_byte_timeout),
            drain_timeout,
        ]),
        ladder(&[("http.head_timeout", http.head_timeout), drain_timeout]),
        // A call that came just before its connection was told to end is answered on it.
        ladder(&[
            ("http.write_deadline", http.write_deadline),
            ("grpc.connection_age_grace", grpc.connection_age_grace),
        ]),
        ladder(&[
            ("postgres.lock_timeout", postgres.lock_timeout),
            ("postgres.statement_timeout", postgres.statement_timeout),
        ]),
        ladder(&[
            ("postgres.idle_timeout", postgres.idle_timeout),
            ("postgres.lifetime_max", postgres.lifetime_max),
        ]),
        ladder(&[
            ("migrate.lock_timeout", migrate.lock_timeout),
            ("migrate.timeout", migrate.timeout),
        ]),
        ladder(&[
            ("migrate.connect_timeout", migrate.connect_timeout),
            ("migrate.timeout", migrate.timeout),
        ]),
        ladder(&[
            ("sessions.store.idle_timeout", sessions.idle_timeout),
            ("sessions.store.absolute_timeout", sessions.absolute_timeout),
        ]),
        ladder(&[
            ("sessions.passwords.wait", passwords.wait),
            ("http.write_deadline", http.write_deadline),
        ]),
    ]
    .concat()
}
