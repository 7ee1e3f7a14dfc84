-- How many orders were confirmed on each day, UTC.
create table order_reports (
    day date primary key,
    orders bigint not null,
    made_at timestamptz not null default now()
);

-- A day is counted hour by hour, each a range of it. The table is empty wherever this runs first.
create index order_notices_created_at_idx on order_notices (created_at);
