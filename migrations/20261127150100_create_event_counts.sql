-- What is left of analytics when the events themselves have been forgotten.
create table event_counts (
    -- In which they arrived, from its beginning.
    hour timestamptz not null,
    name text not null,
    count bigint not null,
    primary key (hour, name)
);
