-- What triggers run that keep rows off a cluster: of buckets on their way to another one, and of those it does not hold.
-- `holdfast shard move` makes and drops the triggers; the service recognises the code, waits for the new map and tries again.
create function refuse_moving_row() returns trigger language plpgsql as $$
begin
    raise exception 'this row belongs on another cluster' using errcode = 'HF001';
end
$$;
