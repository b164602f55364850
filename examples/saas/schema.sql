-- The application's own tables; tick keeps its own in the schema `tick`. Running this again changes nothing.

create table if not exists users (
    id          bigint      primary key generated always as identity,
    email       text        not null unique,
    name        text        not null,
    created_at  timestamptz not null default now(),
    welcomed_at timestamptz             -- set in the transaction that sends the welcome e-mail
);
create index if not exists users_by_creation on users (created_at);

create table if not exists customers (
    id          bigint      primary key generated always as identity,
    email       text        not null,
    price_cents integer     not null check (price_cents > 0),
    renews_on   date        not null
);
create index if not exists customers_by_renewal on customers (renews_on);

create table if not exists invoices (
    customer_id  bigint     not null references customers (id),
    period       date       not null,   -- the first day that was paid for
    amount_cents integer    not null,
    primary key (customer_id, period)   -- nobody pays for a month twice
);

create table if not exists signups_per_hour (
    hour        timestamptz primary key,
    signups     integer     not null
);
