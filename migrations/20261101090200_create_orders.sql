-- What was bought. Both tables begin their keys with the customer: it is the column they can be distributed by, and
-- every statement names it already.
create table orders (
    customer_id uuid not null references users (id),

    -- Version 7: within one customer the primary key is the order "newest first", so listing needs no other index.
    id uuid not null,

    status text not null default 'placed' check (status in ('placed', 'paid', 'cancelled')),

    -- The sum of the lines, kept because a list shows it for every order.
    total_cents bigint not null check (total_cents >= 0),

    created_at timestamptz not null default now(),

    primary key (customer_id, id)
);

-- An order is a receipt: a line copies the product's name and price of that moment. For the same reason there is no
-- foreign key to products, which would also lock a product's row for each line.
create table order_lines (
    customer_id uuid not null,
    order_id uuid not null,

    -- Position in the order as the customer sent it, from 1.
    line_no smallint not null check (line_no between 1 and 50),

    product_id uuid not null,
    name text not null,
    quantity integer not null check (quantity between 1 and 1000),
    price_cents bigint not null check (price_cents >= 0),

    primary key (customer_id, order_id, line_no),
    foreign key (customer_id, order_id) references orders (customer_id, id)
);
