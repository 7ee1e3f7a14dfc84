-- What clients say of what they do, for analytics. Written in batches and at most once, so nothing may rest on a row being here.
create table events (
    -- Version 7, made when the event arrived: the oldest rows are at the primary key's beginning, and what forgets them needs
    -- no index of its own.
    id uuid primary key,

    -- When it happened, by the client's clock if it said so.
    at timestamptz not null,

    name text not null,

    -- No foreign key: an event of a product that is gone happened nevertheless, and one unknown id would cost a whole batch.
    product_id uuid,

    properties jsonb not null
);
