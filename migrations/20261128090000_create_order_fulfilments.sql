-- Orders that were handed to the warehouse, each once: written in the transaction that ends the job.
create table order_fulfilments (
    -- No foreign key: the order may be on another cluster.
    order_id uuid primary key,

    customer_id uuid not null,
    pieces bigint not null check (pieces > 0),
    created_at timestamptz not null default now()
);
