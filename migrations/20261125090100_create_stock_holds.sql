-- Pieces that were taken for an order on another cluster, until that order is known to be kept or not. No transaction spans
-- both, so this row is what the stock is given back from, or forgotten with.
create table stock_holds (
    order_id uuid primary key,
    customer_id uuid not null,
    product_ids uuid[] not null,
    quantities integer[] not null check (cardinality(quantities) = cardinality(product_ids)),
    created_at timestamptz not null default now()
);

-- The oldest are looked at first.
create index stock_holds_created_at_idx on stock_holds (created_at);
