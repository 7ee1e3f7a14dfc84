-- What customers were told of their orders: one notice for each. Written in the transaction that ends the job.
create table order_notices (
    -- No foreign key: the order may be on another cluster.
    order_id uuid primary key,

    kind text not null check (kind in ('confirmed')),
    created_at timestamptz not null default now()
);
