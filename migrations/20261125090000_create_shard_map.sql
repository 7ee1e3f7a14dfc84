-- Which cluster holds which bucket of keys, on the home cluster. Empty while there is one cluster only; `holdfast migrate`
-- deals the buckets when there are several, and from then on this table, not the settings, says where rows are.
create table shard_buckets (
    bucket smallint primary key check (bucket between 0 and 1023),

    -- A name in `shards.clusters`, or 'home'.
    cluster text not null,

    -- Of the whole map, raised by every move: a process asks each second for what is newer than what it knows.
    version integer not null check (version > 0),

    -- For some time after a move only the primary is known to have all that a client has seen.
    changed_at timestamptz not null default now()
);

create index shard_buckets_version_idx on shard_buckets (version);

-- What `holdfast shard move` does and has done, so that one that was killed is finished or undone by the next.
create table shard_moves (
    id integer primary key generated always as identity,

    first_bucket smallint not null check (first_bucket between 0 and 1023),
    last_bucket smallint not null check (last_bucket between first_bucket and 1023),
    source text not null,
    target text not null check (target <> source),

    -- Copying: rows flow to the target. Switched: the map names the target, and what the source still has is to be deleted.
    phase text not null default 'copying' check (phase in ('copying', 'switched', 'done', 'aborted')),

    started_at timestamptz not null default now(),
    switched_at timestamptz,
    ended_at timestamptz
);

-- One at a time.
create unique index shard_moves_unfinished_idx on shard_moves ((true)) where phase in ('copying', 'switched');
