-- The catalogue. Read far more often than written; its stock is written with every order.
create table products (
    -- Version 7, so the primary key is also the order "newest first".
    id uuid primary key,

    sku text not null constraint products_sku_key unique check (length(sku) between 1 and 64),

    -- The C collation compares bytes: the order of pages does not change, and the index does not break, when the
    -- operating system's collations are updated.
    name text collate "C" not null check (length(name) between 1 and 200),

    description text not null check (length(description) <= 10000),

    category text not null check (length(category) between 1 and 64),

    -- Whole cents of the shop's one currency. A second currency would be a column here, and one in orders.
    price_cents bigint not null check (price_cents between 0 and 100000000),

    -- The check is the last line of defence: the order statement never takes more than there is.
    stock integer not null check (stock >= 0),

    -- Counts every change to the row, a sale included. It is the ETag, so an editor who read the stock before a sale
    -- cannot write the old figure back.
    version bigint not null default 1,

    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),

    -- A match in the name weighs more than one in the description. Postgres computes it again only when one of the
    -- two changes, so a sale does not pay for it.
    search tsvector not null generated always as (
        setweight(to_tsvector('english', name), 'A') || setweight(to_tsvector('english', description), 'B')
    ) stored
)
-- Room in each page for the next version of a row: taking stock touches no indexed column, so it then touches no index.
with (fillfactor = 85);

create index products_search_idx on products using gin (search);

-- One index for each order a list may have, with and without its one filter. Each serves both directions, and ends
-- with the id because a page begins after exactly one row. "Newest" without a filter is the primary key.
create index products_price_idx on products (price_cents, id);
create index products_name_idx on products (name, id);
create index products_category_idx on products (category, id);
create index products_category_price_idx on products (category, price_cents, id);
create index products_category_name_idx on products (category, name, id);
