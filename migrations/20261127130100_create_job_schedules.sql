-- Which slot of each schedule was enqueued last. Whoever moves it on enqueues the slot in the same transaction, so each is
-- enqueued once, by whichever process comes first. The schedules themselves are in the code.
create table job_schedules (
    name text primary key check (length(name) between 1 and 64),
    last_at timestamptz not null
);
