-- What an operator wants of a flag otherwise than the code, at home. A flag without a row is as the code says, so the table is
-- as small as the list of flags, and empty most of the time.
create table flags (
    -- As in the code. A name that is in it no more does no harm.
    name text primary key check (length(name) between 1 and 64),

    value boolean not null,

    -- For whoever finds the flag set and was not there.
    reason text not null check (length(reason) between 1 and 500),
    changed_by text not null check (length(changed_by) between 1 and 100),
    changed_at timestamptz not null default now(),

    -- Nothing that was set by hand outlives its reason for ever. An expired row counts as none.
    expires_at timestamptz not null
);

-- Said to every process that listens, also when the row was changed in psql. Whoever misses it looks by itself soon after.
create function tell_flags() returns trigger language plpgsql as $$
begin
    notify flags;
    return null;
end;
$$;

create trigger flags_changed after insert or update or delete on flags
    for each statement execute function tell_flags();
