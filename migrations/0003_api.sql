-- Jobs over HTTP: who may call, how often, and the answers that are given once more.

begin;

select pg_advisory_xact_lock(7236483109254801);
set local lock_timeout = '5s';

create table if not exists tick.api_keys (
    id              text        primary key check (id ~ '^[a-z0-9]{1,32}$'),    -- the readable part of the key itself
    name            text        not null check (length(name) between 1 and 100),
    scopes          text[]      not null check (scopes <@ '{enqueue,read,admin}' and cardinality(scopes) > 0),
    hash            bytea       not null check (octet_length(hash) = 32),       -- sha256 of the key, which nobody keeps
    created_at      timestamptz not null default tick.now(),
    expires_at      timestamptz,
    revoked_at      timestamptz,
    last_used_at    timestamptz                                                 -- to the minute
);

-- How far a caller is from its limit: by `full_at` it may send as many calls at once as the limit has.
create table if not exists tick.api_rates (
    caller          text        primary key,
    full_at         timestamptz not null
);

-- Answers to requests with an Idempotency-Key, for those who send the same once more.
create table if not exists tick.api_answers (
    caller          text        not null,
    key             text        not null,
    fingerprint     bytea       not null,       -- of the request that was answered
    status          smallint    not null,
    location        text,
    body            text        not null,
    expires_at      timestamptz not null,
    primary key (caller, key)
);
create index if not exists api_answers_by_expiry on tick.api_answers (expires_at);

-- For lists. None for types and keys: each would add a fifth to what every job writes (1,181 bytes of WAL from enqueue to
-- done became 1,424), and without one 200,000 jobs are searched in 60 ms.
create index if not exists jobs_of_schedule on tick.jobs (schedule, id) where schedule is not null;
create index if not exists jobs_cancelled on tick.jobs (finished_at) where status = 'cancelled';

-- Lets a call in, or raises: TK401 for a key that is not valid, TK403 for one without the scope, TK429 for one call too
-- many, with the seconds to wait as its detail. What a transaction does after it is done only then.
-- `hash` is that of the key with the id `caller`, or null for a caller who is known already. The two hashes are compared
-- under a random number, so that the time it takes says nothing about either.
create or replace function tick.admit(caller text, hash bytea, scope text, calls integer, period float8)
    returns text[] language plpgsql as $$
declare
    salt constant bytea := uuid_send(gen_random_uuid());
    granted text[];
    wait float8;
begin
    if admit.hash is not null then
        select k.scopes into granted from tick.api_keys k
         where k.id = admit.caller and sha256(salt || k.hash) = sha256(salt || admit.hash)
           and k.revoked_at is null and coalesce(k.expires_at > tick.now(), true);
        if not found then
            raise exception 'the key is not valid' using errcode = 'TK401';
        end if;
        if not granted && array[admit.scope, 'admin'] then
            raise exception 'the key lacks a scope' using errcode = 'TK403';
        end if;
    end if;
    select extract(epoch from r.full_at - tick.now()) - admit.period + admit.period / admit.calls into wait
      from tick.api_rates r where r.caller = admit.caller;
    if wait > 0.000001 * admit.calls then
        raise exception 'one call too many' using errcode = 'TK429', detail = wait::text;
    end if;
    return granted;
end $$;

-- Counts a call, or raises TK429 when others have come in meanwhile. Last in its transaction, since the calls of a caller
-- wait for each other here. What is counted is a bucket of `calls` that fills evenly in `period` seconds (GCRA, ITU-T
-- I.371); it may be over by a microsecond for each call, by which steps are rounded.
create or replace function tick.count_call(caller text, hash bytea, calls integer, period float8)
    returns table (remaining integer, reset float8) language plpgsql as $$
declare
    step constant interval := make_interval(secs => count_call.period / count_call.calls);
    filled timestamptz;
begin
    insert into tick.api_rates as r (caller, full_at) values (count_call.caller, tick.now() + step)
    on conflict on constraint api_rates_pkey do update set full_at = greatest(r.full_at, tick.now()) + step
     where greatest(r.full_at, tick.now()) + step
           <= tick.now() + make_interval(secs => count_call.period + 0.000001 * count_call.calls)
    returning r.full_at into filled;
    if not found then
        raise exception 'one call too many' using errcode = 'TK429', detail = (
            select extract(epoch from r.full_at + step - tick.now()) - count_call.period
              from tick.api_rates r where r.caller = count_call.caller)::text;
    end if;
    update tick.api_keys k set last_used_at = tick.now()
     where count_call.hash is not null and k.id = count_call.caller
       and coalesce(k.last_used_at < tick.now() - interval '1 minute', true);
    reset := extract(epoch from filled - tick.now());
    remaining := floor((count_call.period - reset) * count_call.calls / count_call.period + 0.01);
    return next;
end $$;

insert into tick.migrations (number, name) values (3, '0003_api') on conflict do nothing;

commit;
