-- What others are to hear of, written in the transaction in which it happened. Whoever delivers it deletes it.
create table outbox (
    -- In the order of insertion, not of commits. Those who write about one key hold a lock on what it names, so for each key it is the
    -- order of commits as well.
    id bigint generated always as identity primary key,

    -- What a receiver knows it by: it may be delivered twice.
    event_id uuid not null default gen_random_uuid(),

    topic text not null check (length(topic) between 1 and 64),

    -- What it is about. Events of one key are delivered in their order.
    key uuid not null,
    body jsonb not null,
    created_at timestamptz not null default now()
) with (
    -- Every row is gone within a second, and whoever looks for the oldest walks over the dead until they are cleared away.
    autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_threshold = 2000,
    autovacuum_vacuum_insert_scale_factor = 0,
    autovacuum_vacuum_insert_threshold = 10000,
    autovacuum_analyze_scale_factor = 0,
    autovacuum_analyze_threshold = 2000,
    autovacuum_vacuum_cost_delay = 0
);
