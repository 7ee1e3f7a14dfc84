-- What a trigger runs that holds up writes to rows on their way to another cluster. `holdfast shard move` makes and drops the
-- triggers; the service recognises the code, waits for the new map and tries again.
create function refuse_moving_row() returns trigger language plpgsql as $$
begin
    raise exception 'this row is moving to another cluster' using errcode = 'HF001';
end
$$;
