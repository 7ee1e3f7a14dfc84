-- no-transaction
-- The latest lines of all customers, of which what sells best is counted. Ids of orders rise with time, so a new line goes
-- to the end of the index; with the two columns in it the lines themselves are not read.
create index concurrently order_lines_latest_idx on order_lines (order_id) include (product_id, quantity);
