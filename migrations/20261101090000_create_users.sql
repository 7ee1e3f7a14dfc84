-- Who may sign in. A customer is a user; orders belong to one.
create table users (
    -- Version 7, made by the service: new rows land at the right edge of the index, and the id exists before the
    -- row does.
    id uuid primary key,

    -- Kept as it was typed, for letters addressed to a person; compared without case (see the index). 254 is the
    -- longest address that SMTP can carry (RFC 5321).
    email text not null check (length(email) <= 254),

    -- A PHC string: algorithm, parameters, salt and hash in one, so that parameters can rise without a migration.
    password_hash text not null,

    role text not null default 'customer' check (role in ('customer', 'staff')),

    created_at timestamptz not null default now()
);

-- Two accounts that differ only by case are one account to the person who owns them. Sign-in looks here too.
create unique index users_email_key on users (lower(email));
