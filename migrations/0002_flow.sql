-- Work from anywhere: tick.enqueue for every language, keys and limits that hold, callbacks, chains and groups.

begin;

select pg_advisory_xact_lock(7236483109254801);
set local lock_timeout = '5s';

alter table tick.jobs
    -- A pending job that waits for something other than its time is in no index that a claim walks:
    -- for the job of its key that goes before it, for its parent to be done, or for its group to have ended.
    add column if not exists waits_for     text     check (waits_for in ('key', 'job', 'group')),
    add column if not exists lane          text,                           -- the limit it is under, if it is under one
    add column if not exists strict_key    boolean  not null default false, -- once started, the next of its key to run
    add column if not exists parent_id     bigint,                         -- runs when this job is done
    add column if not exists group_id      bigint,                         -- the job that runs when its group has ended
    add column if not exists waits         integer  not null default 0,    -- jobs of its group that have not ended
    add column if not exists awaited       boolean  not null default false, -- other jobs have it as their parent
    add column if not exists inputs        jsonb,                          -- how what it waited for has ended
    add column if not exists callback_url  text     check (octet_length(callback_url) between 1 and 2000),
    add column if not exists on_dead_url   text     check (octet_length(on_dead_url) between 1 and 2000),
    add column if not exists traceparent   text     check (octet_length(traceparent) between 1 and 100),
    add column if not exists progress      jsonb;

-- The window of a throttled job has no schedule.
alter table tick.jobs drop constraint if exists a_window_has_a_schedule;
create unique index if not exists jobs_one_per_throttle
    on tick.jobs (type, coalesce(key, ''), "window") where "window" is not null and schedule is null;

do $$ begin
    if not exists (select from tick.migrations where number = 2) then
        drop view if exists tick.pending_priorities;
        drop index if exists tick.jobs_due, tick.jobs_suspect, tick.jobs_waiting_for_key;
    end if;
end $$;
create index if not exists jobs_due
    on tick.jobs (priority desc, run_at, id) where status = 'pending' and losses = 0 and waits_for is null and lane is null;
create index if not exists jobs_due_in_lane
    on tick.jobs (lane, priority desc, run_at, id)
    where status = 'pending' and losses = 0 and waits_for is null and lane is not null;
create index if not exists jobs_suspect
    on tick.jobs (run_at, id) where status = 'pending' and losses > 0 and waits_for is null;
create index if not exists jobs_running_in_lane
    on tick.jobs (lane) where status = 'running' and lane is not null;
create index if not exists jobs_first_of_key
    on tick.jobs (key, run_at, id) where status = 'pending' and key is not null and waits_for is null;
create index if not exists jobs_behind_key
    on tick.jobs (key, run_at, id) where status = 'pending' and waits_for = 'key';
create index if not exists jobs_due_behind_key     -- to be counted, and never claimed
    on tick.jobs (run_at) where status = 'pending' and waits_for = 'key';
create index if not exists jobs_holding_key
    on tick.jobs (key, run_at, id) where status = 'pending' and strict_key and attempt > 0;
create index if not exists jobs_of_parent on tick.jobs (parent_id) where parent_id is not null;
create index if not exists jobs_of_group on tick.jobs (group_id) where group_id is not null;

-- The priorities that pending jobs have, highest first, one index probe each: so a million jobs delayed at the top
-- priority are one step for a claim, and not a million.
create or replace view tick.free_priorities as
    with recursive levels (priority) as (
        (select priority from tick.jobs
          where status = 'pending' and losses = 0 and waits_for is null and lane is null
          order by priority desc limit 1)
        union all
        select (select j.priority from tick.jobs j
                 where j.status = 'pending' and j.losses = 0 and j.waits_for is null and j.lane is null
                   and j.priority < levels.priority
                 order by j.priority desc limit 1)
          from levels where levels.priority is not null
    )
    select priority from levels where priority is not null;

-- What a claim may take: it is due, and the first of its key, of which none runs.
create or replace view tick.free_jobs as
    select j.* from tick.jobs j
     where j.status = 'pending' and j.waits_for is null and j.run_at <= tick.now()
       and (j.key is null or (select r.id from tick.jobs r where r.key = j.key and r.status = 'running') is null
            and j.id = coalesce(
                (select h.id from tick.jobs h where h.key = j.key and h.status = 'pending' and h.strict_key and h.attempt > 0
                  order by h.run_at, h.id limit 1),
                (select e.id from tick.jobs e where e.key = j.key and e.status = 'pending' and e.waits_for is null
                    and e.run_at <= tick.now() order by e.run_at, e.id limit 1)));


-- Limits: how many jobs of a type, or of the keys that begin alike, may run at once or start in a period.

create table if not exists tick.limits (
    lane            text        primary key,
    type            text,
    key_prefix      text,
    concurrency     integer     check (concurrency > 0),
    rate            integer     check (rate > 0),
    period          interval    check (period > interval '0'),
    key_rate        integer     check (key_rate > 0),       -- the same, for each key by itself
    key_period      interval    check (key_period > interval '0'),
    from_file       boolean     not null default false,     -- and not from a handler
    constraint one_kind check ((type is null) <> (key_prefix is null)),
    constraint rate_has_a_period check ((rate is null) = (period is null) and (key_rate is null) = (key_period is null))
);

-- What a type's handler says of its jobs, for producers that do not have the handler.
create table if not exists tick.defaults (
    type            text        primary key,
    priority        smallint    not null default 0,
    strict_key      boolean     not null default false
);

-- The limits and defaults that the tables hold, by their hash.
create table if not exists tick.configuration (
    one             boolean     primary key default true check (one),  -- there is one row
    hash            text        not null
);

-- Claims under a rate. What is counted is any period of that length, not only one of the clock's.
create table if not exists tick.starts (
    lane            text        not null,
    key             text,
    at              timestamptz not null
);
create index if not exists starts_by_lane on tick.starts (lane, at);
create index if not exists starts_by_key on tick.starts (lane, key, at) where key is not null;

-- The lanes that pending jobs are in: one whose limit was taken away while a producer had not committed is nobody's.
create or replace view tick.pending_lanes as
    with recursive lanes (lane) as (
        (select lane from tick.jobs where status = 'pending' and losses = 0 and waits_for is null and lane is not null
          order by lane limit 1)
        union all
        select (select j.lane from tick.jobs j
                 where j.status = 'pending' and j.losses = 0 and j.waits_for is null and j.lane is not null
                   and j.lane > lanes.lane
                 order by j.lane limit 1)
          from lanes where lanes.lane is not null
    )
    select lane from lanes where lane is not null;

-- A job starts up to half a second after its claim, or not at all: by so much a period is longer than its limit says.
create or replace view tick.lane_room as
    select l.lane, l.key_rate, l.key_period + interval '0.5 s' as key_period, least(
               l.concurrency - (select count(*) from tick.jobs r where r.lane = l.lane and r.status = 'running'),
               l.rate - (select count(*) from tick.starts s
                          where s.lane = l.lane and s.at > tick.now() - l.period - interval '0.5 s'))::integer as room
      from tick.limits l;

create or replace function tick.count_start() returns trigger language plpgsql as $$
begin
    insert into tick.starts (lane, key, at)
    select lane, case when key_rate is not null then new.key end, tick.now() from tick.limits
     where lane = new.lane and (rate is not null or key_rate is not null);
    return null;
end $$;
create or replace trigger jobs_count_start after update on tick.jobs for each row
    when (new.lane is not null and new.status = 'running' and old.status = 'pending') execute function tick.count_start();

-- The priorities of each lane, as tick.free_priorities has those of the jobs that are in none.
create or replace view tick.lane_priorities as
    select l.lane, level.priority
      from tick.limits l cross join lateral (
           with recursive levels (priority) as (
               (select p.priority from tick.jobs p
                 where p.status = 'pending' and p.losses = 0 and p.waits_for is null and p.lane = l.lane
                 order by p.priority desc limit 1)
               union all
               select (select p.priority from tick.jobs p
                        where p.status = 'pending' and p.losses = 0 and p.waits_for is null and p.lane = l.lane
                          and p.priority < levels.priority
                        order by p.priority desc limit 1)
                 from levels where levels.priority is not null
           )
           select levels.priority from levels where levels.priority is not null) level;

-- Two ticks that count what runs under a limit, and then add to it, would both find room: hence the lock, which is held
-- until the claim is committed. It is not taken to find that no lane has room, or nothing that is due.
create or replace function tick.lock_lanes() returns void language sql as 'select pg_advisory_xact_lock(7236484, 0)';

-- What a claim may take under limits: so many of each lane as it has room for, locked.
-- The plans are made for each call: this runs before there are statistics.
create or replace function tick.in_lanes(types text[], remaining float8, longest float8, most integer, fair boolean)
    returns table (id bigint, priority smallint, run_at timestamptz) language plpgsql set plan_cache_mode = force_custom_plan as $$
begin
    if not exists (select from tick.lane_room l join tick.lane_priorities level on level.lane = l.lane
                    where coalesce(l.room, 1) > 0 and (
                          select j.id from tick.jobs j
                           where j.lane = level.lane and j.priority = level.priority and j.status = 'pending' and j.losses = 0
                             and j.waits_for is null and j.run_at <= tick.now() and j.type = any(types) limit 1) is not null) then
        return;
    end if;
    perform tick.lock_lanes();
    delete from tick.starts s using tick.limits l
     where s.lane = l.lane and s.at < tick.now() - greatest(l.period, l.key_period) - interval '1 minute';
    return query
    with open_lanes as materialized (select * from tick.lane_room where coalesce(room, 1) > 0)
    select due.id, due.priority, due.run_at from (
           select j.*, l.room, row_number() over (
                      partition by l.lane order by case when fair then 0 else j.priority end desc, j.run_at, j.id) as place
             from open_lanes l join tick.lane_priorities level on level.lane = l.lane cross join lateral (
                  select f.id, f.priority, f.run_at from tick.free_jobs f
                   where f.losses = 0 and f.lane = l.lane and f.priority = level.priority and f.type = any(types)
                     and (f.timeout is null or least(f.timeout, make_interval(secs => longest)) < make_interval(secs => remaining))
                     and (l.key_rate is null or f.key is null or l.key_rate > (
                          select count(*) from tick.starts s
                           where s.lane = l.lane and s.key = f.key and s.at > tick.now() - l.key_period))
                   order by f.run_at, f.id limit least(l.room, most) for update skip locked) j) due
     where coalesce(due.place <= due.room, true)
     order by case when fair then 0 else due.priority end desc, due.run_at, due.id limit most;
end $$;

-- Whether one more job of a lane and key may start, which no other claim changes before this one is committed.
create or replace function tick.has_room(its_lane text, its_key text) returns boolean language plpgsql as $$
begin
    perform tick.lock_lanes();
    return not exists (
        select from tick.lane_room l
         where l.lane = its_lane and (l.room <= 0 or l.key_rate <= (
               select count(*) from tick.starts s
                where s.lane = l.lane and s.key = its_key and s.at > tick.now() - l.key_period)));
end $$;

-- What a claim may take when it is to be fair: of each priority the oldest, the oldest of all first, locked.
create or replace function tick.fair_share(types text[], remaining float8, longest float8, most integer)
    returns table (id bigint, priority smallint, run_at timestamptz) language plpgsql set plan_cache_mode = force_custom_plan as $$
begin
    return query
    select due.id, due.priority, due.run_at
      from tick.free_priorities level cross join lateral (
           select j.id, j.priority, j.run_at from tick.free_jobs j
            where j.losses = 0 and j.lane is null and j.priority = level.priority and j.type = any(types)
              and (j.timeout is null or least(j.timeout, make_interval(secs => longest)) < make_interval(secs => remaining))
            order by j.run_at, j.id limit most for update skip locked) due
     order by due.run_at, due.id limit most;
end $$;

-- The jobs that would run now if nothing stood in their way; to be counted with a limit.
create or replace view tick.due_jobs as
    select due.id from tick.free_priorities level cross join lateral (
           select id from tick.jobs where status = 'pending' and losses = 0 and waits_for is null and lane is null
              and priority = level.priority and run_at <= tick.now() limit 10001) due
    union all
    select due.id from tick.lane_priorities level cross join lateral (
           select id from tick.jobs where status = 'pending' and losses = 0 and waits_for is null and lane = level.lane
              and priority = level.priority and run_at <= tick.now() limit 10001) due
    union all
    select id from tick.jobs where status = 'pending' and losses > 0 and waits_for is null and run_at <= tick.now()
    union all
    select id from tick.jobs where status = 'pending' and waits_for = 'key' and run_at <= tick.now();


-- Keys. Of the pending jobs of a key one is free, the first; the others wait for it, outside of every index that a
-- claim walks, and whoever ends or postpones it frees the next. A second one may be free: the claim still takes one
-- at a time. Only a key whose jobs all wait would be stuck, and what follows sees to it that there is none.

-- Whether one of its key runs, or is free and goes before it.
create or replace function tick.is_behind(its_key text, its_run_at timestamptz, its_id bigint) returns boolean language plpgsql as $$
begin
    return exists (select from tick.jobs j where j.key = its_key and j.status = 'running')
        or exists (select from tick.jobs j where j.key = its_key and j.status = 'pending' and j.waits_for is null
                      and (j.run_at, j.id) < (its_run_at, its_id))
        or exists (select from tick.jobs j where j.key = its_key and j.status = 'pending' and j.strict_key and j.attempt > 0
                      and j.id <> its_id);
end $$;

-- A transaction that does not see what is committed beside it could wait for a job that has ended: its jobs are free.
create or replace function tick.wait_for_key() returns trigger language plpgsql as $$
begin
    if current_setting('transaction_isolation') in ('read committed', 'read uncommitted')
       and tick.is_behind(new.key, new.run_at, new.id) then
        new.waits_for := 'key';
    end if;
    return new;
end $$;

-- Those who put jobs of a key in and those who end some must not overlook each other; among themselves they do not mind.
-- So each side holds a lock of its own, shared, until it has committed, and then looks whether somebody has the other's:
-- by an exclusive lock that is given back at once, with the subtransaction that took it. Of 64 pairs, by the key. Once
-- in a transaction is enough for a pair, since whoever comes later finds the lock; a setting that ends with the
-- transaction remembers it. (Each look goes through all deferred triggers: a hundred thousand would take half a minute.)
create or replace function tick.is_ending(its_key text) returns boolean language plpgsql as $$
declare
    pair constant integer := hashtext(its_key) & 63;
    looked constant text := coalesce(current_setting('tick_keys.putting_in', true), '');
    found boolean := true;
begin
    if strpos(looked, format(' %s:', pair)) > 0 then
        return strpos(looked, format(' %s:t', pair)) > 0;
    end if;
    if pg_try_advisory_xact_lock_shared(7236485, pair) then
        begin
            found := not pg_try_advisory_xact_lock(7236483, pair);
            raise sqlstate 'TICK0';
        exception when sqlstate 'TICK0' then null;
        end;
    end if;
    perform set_config('tick_keys.putting_in', format('%s %s:%s', looked, pair, found), true);
    return found;
end $$;

create or replace function tick.begin_ending(its_key text) returns void language plpgsql as $$
declare
    pair constant integer := hashtext(its_key) & 63;
    looked constant text := coalesce(current_setting('tick_keys.ending', true), '');
begin
    if strpos(looked, format(' %s:', pair)) = 0 then
        perform pg_advisory_xact_lock_shared(7236483, pair);
        begin
            perform pg_advisory_xact_lock(7236485, pair);
            raise sqlstate 'TICK0';
        exception when sqlstate 'TICK0' then null;
        end;
        perform set_config('tick_keys.ending', format('%s %s:', looked, pair), true);
    end if;
end $$;

-- The job that this one saw before it may have ended since, without having seen this one. So it looks again as it
-- commits. It never waits for those who end a job, so it deadlocks with nobody: where it cannot be sure, it is free.
create or replace function tick.still_wait_for_key() returns trigger language plpgsql as $$
begin
    if current_setting('transaction_isolation') not in ('read committed', 'read uncommitted')
       or tick.is_ending(new.key) or not tick.is_behind(new.key, new.run_at, new.id) then
        update tick.jobs set waits_for = null where id = new.id and status = 'pending' and waits_for = 'key';
    end if;
    return null;
end $$;

-- Leaves the first of a key free, and lets the others wait: those too that were free since they, or whoever put them in,
-- could not have the lock. What somebody else has locked is passed over, as he may be about to end it; but for the only
-- one that waits, which has to be freed. What was started and is strict never waits.
create or replace function tick.pass_key_on() returns trigger language plpgsql as $$
declare
    free record;
    next record;
begin
    perform tick.begin_ending(old.key);
    if not (exists (select from tick.jobs where key = old.key and status = 'pending' and waits_for = 'key')
            or exists (select from tick.jobs where key = old.key and status = 'pending' and waits_for is null)) then
        return null;
    end if;
    select id, run_at, strict_key and attempt > 0 as holds into free from tick.jobs
     where key = old.key and status = 'pending' and waits_for is null
     order by strict_key and attempt > 0 desc, run_at, id limit 1 for update skip locked;
    select id, run_at into next from tick.jobs
     where key = old.key and status = 'pending' and waits_for = 'key' order by run_at, id limit 1 for update skip locked;
    if next.id is null and free.id is null then
        select id, run_at into next from tick.jobs
         where key = old.key and status = 'pending' and waits_for = 'key' order by run_at, id limit 1 for update;
    end if;
    if free.id is null or not free.holds and (next.run_at, next.id) < (free.run_at, free.id) then
        update tick.jobs set waits_for = null where id = next.id;
    else
        next := free;
    end if;
    if free.id is not null then
        update tick.jobs set waits_for = 'key' where id = any(array(
               select id from tick.jobs
                where key = old.key and status = 'pending' and waits_for is null and id <> next.id
                  and not (strict_key and attempt > 0) limit 1000 for update skip locked));
    end if;
    return null;
end $$;

create or replace trigger jobs_wait_for_key before insert on tick.jobs for each row
    when (new.key is not null and new.status = 'pending' and new.waits_for is null)
    execute function tick.wait_for_key();

-- All of the others are AFTER triggers: a BEFORE UPDATE trigger would lock each row that a claim or a settle writes once
-- more, whatever its WHEN says.
do $$ begin
    if not exists (select from pg_trigger where tgrelid = 'tick.jobs'::regclass and tgname = 'jobs_still_wait_for_key') then
        create constraint trigger jobs_still_wait_for_key after insert on tick.jobs deferrable initially deferred
            for each row when (new.waits_for = 'key') execute function tick.still_wait_for_key();
    end if;
    -- It was moved to an earlier time or to another key, or it is back from where it was cancelled.
    if not exists (select from pg_trigger where tgrelid = 'tick.jobs'::regclass and tgname = 'jobs_wait_for_key_elsewhere') then
        create constraint trigger jobs_wait_for_key_elsewhere after update on tick.jobs deferrable initially deferred
            for each row when (old.waits_for = 'key' and new.waits_for = 'key' and new.status = 'pending' and (
                new.run_at < old.run_at or new.key is distinct from old.key or old.status <> 'pending'))
            execute function tick.still_wait_for_key();
    end if;
end $$;

-- A job leaves the front of its key: it ended, it runs again later, or it was moved or deleted.
create or replace trigger jobs_pass_key_on after update on tick.jobs for each row
    when (old.key is not null and (
          old.status = 'running' and (new.status <> 'running' or new.key is distinct from old.key)
          or old.status = 'pending' and old.waits_for is null and (
             new.status not in ('pending', 'running') or new.key is distinct from old.key
             or new.waits_for is null and new.run_at > old.run_at)))
    execute function tick.pass_key_on();
create or replace trigger jobs_pass_key_on_when_deleted after delete on tick.jobs for each row
    when (old.key is not null and (old.status = 'running' or old.status = 'pending' and old.waits_for is null))
    execute function tick.pass_key_on();


-- Putting jobs in: every door comes through tick.insert_jobs, with the same defaults and the same rules.

-- Those that nothing was in the way of; in the order given. Times in seconds.
create or replace function tick.put_jobs(jobs jsonb) returns setof bigint language plpgsql as $$
begin
    return query
    with made as (
        insert into tick.jobs (type, payload, run_at, priority, key, idempotency_key, max_attempts, timeout, schedule,
                               "window", lane, strict_key, callback_url, on_dead_url, traceparent, parent_id, group_id,
                               waits_for, waits, awaited)
        select f.type, coalesce(f.payload, '{}'), f.at, coalesce(f.priority, d.priority, 0), f.key, f.idempotency_key,
               f.max_attempts, make_interval(secs => f.timeout), f.schedule,
               case when f.throttle is null then f."window"
                    else date_bin(make_interval(secs => f.throttle), f.at, '1970-01-01 00:00Z') end,
               l.lane, coalesce(f.strict_key, d.strict_key, false), f.callback_url, f.on_dead_url, f.traceparent,
               f.parent_id, f.group_id, f.waits_for, coalesce(f.waits, 0), f."then" is not null
          from (select *, coalesce(run_at, tick.now()) + make_interval(secs => coalesce(delay, 0)) as at
                  from rows from (jsonb_to_recordset(jobs) as (
                       type text, payload jsonb, run_at timestamptz, delay float8, priority integer, key text,
                       idempotency_key text, throttle float8, max_attempts integer, timeout float8, schedule text,
                       "window" timestamptz, strict_key boolean, callback_url text, on_dead_url text, traceparent text,
                       parent_id bigint, group_id bigint, waits_for text, waits integer, "then" jsonb)) with ordinality) f
          left join tick.defaults d on d.type = f.type
          left join lateral (
               select lane from tick.limits where type = f.type or starts_with(f.key, key_prefix)
                order by length(key_prefix) desc nulls last limit 1) l on true
         order by f.ordinality
        on conflict do nothing
        returning id)
    select id from made order by id;
end $$;

-- The job that was there before this one, which is changed as its on_conflict says if it is still pending.
create or replace function tick.meet_job(job jsonb) returns bigint language plpgsql as $$
declare
    at timestamptz := coalesce((job ->> 'run_at')::timestamptz, tick.now()) + make_interval(secs => coalesce((job ->> 'delay')::float8, 0));
    met bigint;
begin
    if job ? 'throttle' then
        select id into met from tick.jobs
         where type = job ->> 'type' and coalesce(key, '') = coalesce(job ->> 'key', '') and schedule is null
           and "window" = date_bin(make_interval(secs => (job ->> 'throttle')::float8), at, '1970-01-01 00:00Z');
        if found then
            return met;
        end if;
    end if;
    case coalesce(job ->> 'on_conflict', 'keep')
        when 'keep' then null;
        when 'replace' then
            update tick.jobs set payload = coalesce(job -> 'payload', '{}'), run_at = at
             where type = job ->> 'type' and idempotency_key = job ->> 'idempotency_key' and status = 'pending';
        when 'postpone' then
            update tick.jobs set payload = coalesce(job -> 'payload', '{}'), run_at = greatest(run_at, least(
                       at, created_at + make_interval(secs => coalesce((job ->> 'max_wait')::float8, 86400))))
             where type = job ->> 'type' and idempotency_key = job ->> 'idempotency_key' and status = 'pending';
        else
            raise exception 'on_conflict is %, and can be keep, replace or postpone', job -> 'on_conflict'
                  using errcode = 'invalid_parameter_value';
    end case;
    select id into met from tick.jobs where type = job ->> 'type' and idempotency_key = job ->> 'idempotency_key';
    return met;
end $$;

-- Jobs with idempotency keys which keep what they find, all in one statement; in the order given.
create or replace function tick.insert_keyed(jobs jsonb)
    returns table (id bigint, created boolean) language plpgsql set plan_cache_mode = force_custom_plan as $$
declare
    made bigint[] := '{}';
    ids bigint[];
    news boolean[];
begin
    -- What is in the way may go while it is looked for; those that are in find themselves again.
    for attempt in 1 .. 4 loop
        made := made || array(select put from tick.put_jobs(jobs) put);
        select array_agg(met.id order by f.ordinality),
               array_agg(met.id = any(made) and f.place = 1 order by f.ordinality)
          into ids, news
          from (select value ->> 'type' as type, value ->> 'idempotency_key' as idempotency_key, ordinality,
                       row_number() over (partition by value ->> 'type', value ->> 'idempotency_key'
                                          order by ordinality) as place
                  from jsonb_array_elements(jobs) with ordinality) f
          left join tick.jobs met on met.type = f.type and met.idempotency_key = f.idempotency_key;
        exit when array_position(ids, null) is null;
    end loop;
    if array_position(ids, null) is not null then
        raise exception 'the job with idempotency key % comes and goes, or this transaction cannot see it',
              jobs -> array_position(ids, null) - 1 -> 'idempotency_key'
              using errcode = 'serialization_failure', hint = 'Enqueue it again.';
    end if;
    return query select * from unnest(ids, news);
end $$;

create or replace function tick.insert_jobs(jobs jsonb) returns table (id bigint, created boolean) language plpgsql as $$
declare
    job jsonb;
begin
    if not jobs @? '$[*] ? (exists(@.idempotency_key) || exists(@.throttle) || exists(@.then))' then
        return query select put, true from tick.put_jobs(jobs) put;
        return;
    end if;
    if jsonb_array_length(jobs) > 1 and not jobs @? '$[*] ? (exists(@.throttle) || exists(@.then)
           || !(@.idempotency_key != null) || exists(@.on_conflict ? (@ != "keep")))' then
        return query select k.id, k.created from tick.insert_keyed(jobs) k;
        return;
    end if;
    for job in select value from jsonb_array_elements(jobs) with ordinality order by ordinality loop
        -- What is in the way may go while it is looked for.
        for attempt in 1 .. 4 loop
            select put into id from tick.put_jobs(jsonb_build_array(job)) put;
            created := found;
            exit when created;
            id := tick.meet_job(job);
            exit when id is not null;
        end loop;
        if id is null then
            raise exception 'the job with idempotency key % comes and goes, or this transaction cannot see it',
                  job -> 'idempotency_key' using errcode = 'serialization_failure', hint = 'Enqueue it again.';
        end if;
        if created and job ? 'then' then
            perform tick.insert_jobs(jsonb_agg(jsonb_build_object('traceparent', job -> 'traceparent') || child
                                               || jsonb_build_object('parent_id', id, 'waits_for', 'job')))
               from jsonb_array_elements(case jsonb_typeof(job -> 'then') when 'array' then job -> 'then'
                                         else jsonb_build_array(job -> 'then') end) child;
        end if;
        return next;
    end loop;
end $$;

-- Many jobs in one call, in order: an array of objects with the names of tick.enqueue's parameters, times in seconds.
create or replace function tick.enqueue_many(jobs jsonb) returns table (id bigint, created boolean) language plpgsql as $$
begin
    return query select i.id, i.created from tick.insert_jobs(tick.checked_jobs(jobs)) i;
end $$;

-- Refuses what an option cannot be, where the table's own constraints would not name it. Null is not given.
create or replace function tick.check_options(jobs jsonb) returns void language plpgsql immutable as $$
declare
    refused record;
begin
    select o.name, o.can_be, jsonb_path_query_first(jobs, o.wrong) as given into refused from (values
        ('priority', 'from -32768 to 32767',
         '$[*].priority ? (@ != null && (@.type() != "number" || @ < -32768 || @ > 32767))'::jsonpath),
        ('delay', 'a number of seconds, ten years at most',
         '$[*].delay ? (@ != null && (@.type() != "number" || @.abs() > 315576000))'),
        ('max_wait', 'a number of seconds, ten years at most',
         '$[*].max_wait ? (@ != null && (@.type() != "number" || @ < 0 || @ > 315576000))'),
        ('throttle', 'a number of seconds, from one to a year',
         '$[*].throttle ? (@ != null && (@.type() != "number" || @ < 1 || @ > 31622400))'),
        ('timeout', 'a number of seconds, a day at most',
         '$[*].timeout ? (@ != null && (@.type() != "number" || @ < 0.001 || @ > 86400))'),
        ('max_attempts', 'from 1 to 100',
         '$[*].max_attempts ? (@ != null && (@.type() != "number" || @ < 1 || @ > 100))'),
        ('on_conflict', 'keep, replace or postpone',
         '$[*].on_conflict ? (@ != null && !(@ == "keep" || @ == "replace" || @ == "postpone"))'),
        ('callback_url', 'an http:// or https:// URL without spaces, a user or a password',
         '$[*].callback_url ? (@ != null && !(@ like_regex "^https?://[^\\s\\\\/?#@]+([/?#][^\\s\\\\]*)?$"))'),
        ('on_dead_url', 'an http:// or https:// URL without spaces, a user or a password',
         '$[*].on_dead_url ? (@ != null && !(@ like_regex "^https?://[^\\s\\\\/?#@]+([/?#][^\\s\\\\]*)?$"))'),
        ('type', 'a text of 1 to 100 characters', '$[*].type ? (!(@ like_regex "^.{1,100}$" flag "s"))'),
        ('type', 'a text of 1 to 100 characters', '$[*] ? (!exists(@.type))'),
        ('payload', 'an object', '$[*].payload ? (@ != null && @.type() != "object")'),
        ('key', 'a text of 1 to 512 bytes', '$[*].key ? (@ != null && (@.type() != "string" || @ == ""))'),
        ('idempotency_key', 'a text of 1 to 512 bytes',
         '$[*].idempotency_key ? (@ != null && (@.type() != "string" || @ == ""))'),
        ('traceparent', 'a traceparent of W3C Trace Context',
         '$[*].traceparent ? (@ != null && !(@ like_regex "^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$"))'),
        ('then', 'a job, or an array of jobs',
         '$[*] ? (@.then != null && @.then.type() != "object" && @.then.type() != "array").then'),
        ('on_conflict', 'given with an idempotency_key only',
         '$[*] ? ((@.on_conflict == "replace" || @.on_conflict == "postpone") && !(@.idempotency_key != null)).on_conflict'),
        ('throttle', 'given without an idempotency_key only',
         '$[*] ? (@.throttle != null && @.idempotency_key != null).throttle')
    ) o (name, can_be, wrong) where jobs @? o.wrong limit 1;
    if found then
        raise exception '% is %, and must be %', refused.name, case when refused.name = 'type' and jsonb_typeof(refused.given) = 'object'
                  then 'missing from ' else '' end || left(refused.given::text, 100), refused.can_be
              using errcode = 'invalid_parameter_value';
    end if;
end $$;

-- The jobs as tick.insert_jobs takes them, and those that come after them too, if they have no options but these.
create or replace function tick.checked_jobs(jobs jsonb) returns jsonb language plpgsql immutable as $$
declare
    known constant text[] := '{type,payload,run_at,delay,priority,key,key_order,idempotency_key,on_conflict,max_wait,throttle,max_attempts,timeout,callback_url,on_dead_url,traceparent,then}';
    unknown text;
begin
    if jsonb_typeof(jobs) <> 'array' or jobs @? 'strict $[*] ? (@.type() != "object")' then
        raise exception 'jobs is not an array of objects' using errcode = 'invalid_parameter_value';
    end if;
    select name into unknown from jsonb_array_elements(jobs) job, jsonb_object_keys(job) name where name <> all (known) limit 1;
    if found then
        raise exception 'a job has no option %', quote_literal(unknown)
              using errcode = 'invalid_parameter_value', hint = 'The options are ' || array_to_string(known, ', ') || '.';
    end if;
    perform tick.check_options(jobs);
    if jobs @? '$[*] ? (exists(@.key_order))' then
        jobs := (select jsonb_agg(tick.with_key_order(job) order by ordinality)
                   from jsonb_array_elements(jobs) with ordinality j (job, ordinality));
    end if;
    if jobs @? '$[*] ? (exists(@.then))' then
        jobs := (select jsonb_agg(case when jsonb_typeof(job -> 'then') in ('object', 'array')
                                       then job || jsonb_build_object('then', tick.checked_jobs(
                                            jsonb_path_query_array(job -> 'then', 'lax $[*]')))
                                       else job - 'then' end order by ordinality)
                   from jsonb_array_elements(jobs) with ordinality j (job, ordinality));
    end if;
    return jobs;
end $$;

create or replace function tick.with_key_order(job jsonb) returns jsonb language plpgsql immutable as $$
begin
    case coalesce(job ->> 'key_order', 'null')
        when 'strict' then return job - 'key_order' || '{"strict_key": true}';
        when 'loose' then return job - 'key_order' || '{"strict_key": false}';
        when 'null' then return job - 'key_order';
        else
            raise exception 'key_order is %, and can be strict or loose', job -> 'key_order'
                  using errcode = 'invalid_parameter_value';
    end case;
end $$;

-- A job from any language, ORM or trigger, in the caller's transaction; its id, or that of the job it met.
create or replace function tick.enqueue(
    type text,
    payload jsonb default '{}',
    run_at timestamptz default null,
    delay interval default null,            -- from run_at, or from now
    priority integer default null,
    key text default null,                  -- jobs that share a key never run at the same time
    key_order text default null,            -- 'strict': a job that is retried goes before the others of its key
    idempotency_key text default null,      -- one job of a type for each, as long as its row is kept
    on_conflict text default null,          -- of that one, while it is pending: keep, replace, postpone
    max_wait interval default null,         -- the longest that postponing may take; a day
    throttle interval default null,         -- at most one job of this type and key in each such period
    max_attempts integer default null,
    timeout interval default null,
    callback_url text default null,
    on_dead_url text default null,
    "then" jsonb default null,              -- a job, or an array of jobs, to run when this one is done
    traceparent text default null
) returns bigint language sql as $$
    select id from tick.enqueue_many(jsonb_build_array(jsonb_strip_nulls(jsonb_build_object(
        'type', type, 'run_at', run_at, 'delay', extract(epoch from delay), 'priority', priority, 'key', key,
        'key_order', key_order, 'idempotency_key', idempotency_key, 'on_conflict', on_conflict,
        'max_wait', extract(epoch from max_wait), 'throttle', extract(epoch from throttle),
        'max_attempts', max_attempts, 'timeout', extract(epoch from timeout), 'callback_url', callback_url,
        'on_dead_url', on_dead_url, 'traceparent', traceparent))
        || jsonb_build_object('payload', coalesce(payload, '{}'))
        || case when "then" is null then '{}' else jsonb_build_object('then', "then") end))
$$;

-- What tick.enqueue_group below does, for producers that have checked their jobs.
create or replace function tick.insert_group(jobs jsonb, finally jsonb) returns setof bigint language plpgsql as $$
declare
    last bigint;
begin
    -- What jsonb_agg makes of no rows.
    jobs := coalesce(jobs, '[]');
    if jobs @? '$[*] ? (exists(@.idempotency_key) || exists(@.throttle))' then
        raise exception 'a job of a group cannot have an idempotency key or a throttle: it may be no new job'
              using errcode = 'invalid_parameter_value', hint = 'Give the idempotency key to the job that runs at the end.';
    end if;
    select i.id into last from tick.insert_jobs(jsonb_build_array(finally || jsonb_build_object(
        'waits_for', case when jobs = '[]' then null else 'group' end, 'waits', jsonb_array_length(jobs)))) i where i.created;
    if not found then
        raise exception 'the job at the end of the group is there already' using errcode = 'unique_violation';
    end if;
    return next last;
    if jobs <> '[]' then
        return query select i.id from tick.insert_jobs((
            select jsonb_agg(job || jsonb_build_object('group_id', last) order by ordinality)
              from jsonb_array_elements(jobs) with ordinality j (job, ordinality))) i;
    end if;
end $$;

-- Jobs that run beside each other, and one that runs when all of them have ended, however that was. Its id first.
create or replace function tick.enqueue_group(jobs jsonb, finally jsonb) returns setof bigint language sql as $$
    select tick.insert_group(tick.checked_jobs(coalesce(jobs, '[]')), tick.checked_jobs(jsonb_build_array(finally)) -> 0)
$$;


-- What follows from the end of a job, in the transaction that writes it, whoever that is: a tick, a person, psql.

create or replace function tick.outcome(job tick.jobs, most_bytes integer) returns jsonb language sql stable as $$
    select jsonb_strip_nulls(jsonb_build_object(
        'id', job.id, 'type', job.type, 'status', job.status, 'attempt', job.attempt, 'key', job.key,
        'schedule', job.schedule, 'window', job."window", 'finished_at', job.finished_at,
        'error', case when job.status = 'dead' then job.last_error end))
        || case when job.result is null then '{}' when octet_length(job.result::text) <= most_bytes
                then jsonb_build_object('result', job.result) else '{"result_omitted": true}' end
$$;

-- The type is put together so that it stays what it is when the schema has another name.
-- The id is that of this end of the job, and of this URL's telling of it: a receiver drops what it has seen.
create or replace function tick.call_back(url text, job tick.jobs, kind text) returns void language sql as $$
    select tick.insert_jobs(jsonb_build_array(jsonb_build_object('type', concat('tick', '.callback'), 'traceparent', job.traceparent,
        'payload', jsonb_build_object(
            'url', url, 'id', concat_ws('_', 'job', job.id, job.attempt, kind, (extract(epoch from job.finished_at) * 1e6)::bigint),
            'type', 'job.' || job.status,
            'timestamp', job.finished_at, 'data', tick.outcome(job, 16000)))))
$$;

-- How the members of a group have ended; results as long as they fit.
create or replace function tick.group_outcomes(group_job bigint) returns jsonb language sql stable as $$
    select jsonb_build_object('jobs', coalesce(jsonb_agg(o.outcome || case when o.result is null then '{}'
                                  when o.so_far > 262144 then '{"result_omitted": true}'
                                  else jsonb_build_object('result', o.result) end order by o.id), '[]'))
      from (select j.id, j.result, sum(octet_length(j.result::text)) over (order by j.id) as so_far,
                   jsonb_strip_nulls(jsonb_build_object('id', j.id, 'type', j.type, 'status', j.status,
                       'error', case when j.status = 'dead' then left(j.last_error, 200) end)) as outcome
              from tick.jobs j where j.group_id = group_job) o
$$;

create or replace function tick.follow_end() returns trigger language plpgsql as $$
begin
    if new.callback_url is not null then
        perform tick.call_back(new.callback_url, new, new.status);
    end if;
    if new.status = 'dead' and new.on_dead_url <> coalesce(new.callback_url, '') then
        perform tick.call_back(new.on_dead_url, new, 'on_dead');
    end if;
    if new.awaited and new.status = 'done' then
        perform tick.let_go(id, jsonb_build_object('parent', tick.outcome(new, 65536)))
           from tick.jobs where parent_id = new.id and waits_for = 'job' and status = 'pending' order by id;
    end if;
    if new.awaited and new.status = 'cancelled' then
        update tick.jobs set status = 'cancelled', finished_at = tick.now()
         where parent_id = new.id and waits_for = 'job' and status = 'pending';
    end if;
    if new.waits > 0 and new.status = 'cancelled' then
        update tick.jobs set status = 'cancelled', finished_at = tick.now() where group_id = new.id and status = 'pending';
    end if;
    perform tick.one_less(new.group_id);
    return null;
end $$;

-- A job of the group has ended. It counts also while the last one is cancelled: that may be replayed.
create or replace function tick.one_less(group_job bigint) returns void language plpgsql as $$
begin
    update tick.jobs set waits = waits - 1 where id = group_job and waits_for = 'group';
    perform tick.let_go(id, tick.group_outcomes(id))
       from tick.jobs where id = group_job and waits_for = 'group' and waits = 0 and status = 'pending';
end $$;

-- Nothing waits for a row that is no longer there.
create or replace function tick.follow_delete() returns trigger language plpgsql as $$
begin
    update tick.jobs set status = 'cancelled', finished_at = tick.now(), last_error = 'the job it was to follow was deleted'
     where parent_id = old.id and waits_for = 'job' and status = 'pending';
    if old.finished_at is null then
        perform tick.one_less(old.group_id);
    end if;
    return null;
end $$;

-- What it waited for has ended.
create or replace function tick.let_go(waiting bigint, ends jsonb) returns void language sql as $$
    update tick.jobs set inputs = ends, waits_for = null, run_at = greatest(run_at, tick.now()) where id = waiting
$$;

-- A replayed job can end once more. What was cancelled with it comes back; what a person has cancelled does not.
create or replace function tick.follow_replay() returns trigger language plpgsql as $$
declare
    parent tick.jobs;
begin
    update tick.jobs set waits = waits + 1 where id = new.group_id and waits_for = 'group';
    update tick.jobs set status = 'pending', finished_at = null
     where new.awaited and parent_id = new.id and waits_for = 'job' and status = 'cancelled' and cancel_requested_at is null;
    if new.waits_for = 'group' then
        update tick.jobs set status = 'pending', finished_at = null
         where group_id = new.id and status = 'cancelled' and cancel_requested_at is null;
        perform tick.let_go(id, tick.group_outcomes(id)) from tick.jobs where id = new.id and waits = 0;
    end if;
    if new.waits_for = 'job' then
        -- Locked: if it ended at this moment it would not see this one as pending.
        select * into parent from tick.jobs where id = new.parent_id for share;
        if not found or parent.status in ('done', 'cancelled') then
            perform tick.let_go(new.id, case when found then jsonb_build_object('parent', tick.outcome(parent, 65536)) end);
        end if;
    end if;
    return null;
end $$;

create or replace trigger jobs_follow_end after update on tick.jobs for each row
    when (new.finished_at is not null and old.finished_at is null and (
          new.callback_url is not null or new.on_dead_url is not null or new.awaited or new.waits > 0 or new.group_id is not null))
    execute function tick.follow_end();
create or replace trigger jobs_follow_replay after update on tick.jobs for each row
    when (new.finished_at is null and old.finished_at is not null and (
          new.awaited or new.group_id is not null or new.waits_for in ('job', 'group')))
    execute function tick.follow_replay();
create or replace trigger jobs_follow_delete after delete on tick.jobs for each row
    when (old.awaited or old.group_id is not null) execute function tick.follow_delete();

insert into tick.migrations (number, name) values (2, '0002_flow') on conflict do nothing;

commit;
