-- What became of the requests that came with an `Idempotency-Key`, so that one that is sent again has no second effect and
-- gets the first one's answer. At home, whatever cluster the effects are on: an effect at home commits together with its record.
create table idempotency_keys (
    -- SHA-256 over the caller and the key: a key is the caller's own, and may hold what is nobody else's business.
    key_hash bytea primary key check (octet_length(key_hash) = 32),

    -- Method and path, by which a process finds what it can finish in the place of a client that went away.
    operation text not null,
    caller uuid not null,

    -- SHA-256 over method, path and body: the same key with another request is a mistake of the client.
    fingerprint bytea not null check (octet_length(fingerprint) = 32),

    -- A number that each claimant draws anew. Whoever writes names his, so one who was taken for dead and is not changes nothing,
    -- and one who claims again because he got no answer finds that he has it.
    fence bigint not null,

    -- How often it was claimed: what comes to nothing again and again is tried less and less often.
    claims integer not null default 1,

    -- Until then it is one process's; nobody else touches it.
    locked_until timestamptz not null,

    -- How far the work has come, for whoever resumes it. Null: nothing has happened yet, or all has.
    point jsonb,

    -- The answer, once there is one.
    status smallint,
    headers jsonb,
    body bytea,

    created_at timestamptz not null default now(),

    -- From then on the key is as good as new.
    expires_at timestamptz not null,

    check ((status is null) = (headers is null) and (status is null) = (body is null)),
    check (status is null or point is null)
);

-- Removed are those with nothing left to do.
create index idempotency_keys_expires_at_idx on idempotency_keys (expires_at) where point is null;

-- Finished in the client's place are those that have begun. They are few.
create index idempotency_keys_locked_until_idx on idempotency_keys (operation, locked_until) where point is not null;
