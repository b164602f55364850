-- What people look at: statistics, what dead jobs have in common, alerts, retention, views for Grafana.

begin;

select pg_advisory_xact_lock(7236483109254801);
set local lock_timeout = '5s';

-- What an error has in common with others of its kind: what differs from case to case is taken out of its first line.
create or replace function tick.fingerprint(error text) returns text language sql immutable parallel safe as $$
    select left(regexp_replace(regexp_replace(regexp_replace(regexp_replace(regexp_replace(
               left(split_part(coalesce(error, ''), E'\n', 1), 500),
               '(https?://[^/\s''"]+)/[^\s''"]*', '\1/…', 'g'),
               '[^\s''"<>@]+@[^\s''"<>@]+\.\w+', '@', 'g'),
               '[0-9a-fA-F]{8}-[0-9a-fA-F-]{27}|0x[0-9a-fA-F]+|\y(?=\w*[0-9])(?=\w*[A-Za-z])\w{12,}\y|\y[0-9a-fA-F]{12,}\y', '#', 'g'),
               '''[^'']*''|"[^"]*"', '"…"', 'g'),
               '[0-9]+([.,:][0-9]+)*', '#', 'g'), 200)
$$;

alter table tick.jobs
    add column if not exists fingerprint text;      -- of its last error, from when it is dead: what dead jobs are grouped by
-- In the database, so that jobs are grouped whatever buries them: an older version too, while it is rolled out.
create or replace function tick.set_fingerprint() returns trigger language plpgsql as $$
begin
    new.fingerprint := tick.fingerprint(new.last_error);
    return new;
end $$;
create or replace trigger jobs_fingerprint_of_new before insert on tick.jobs for each row
    when (new.status = 'dead' and new.fingerprint is null) execute function tick.set_fingerprint();
create or replace trigger jobs_fingerprint before update on tick.jobs for each row
    when (new.status = 'dead' and old.status <> 'dead') execute function tick.set_fingerprint();
update tick.jobs set fingerprint = tick.fingerprint(last_error) where status = 'dead' and fingerprint is null;
create index if not exists jobs_dead_by_error on tick.jobs (type, fingerprint, finished_at) where status = 'dead';

-- With every column that there is, as 0002 makes it when it is run once more.
create or replace view tick.free_jobs as
    select j.* from tick.jobs j
     where j.status = 'pending' and j.waits_for is null and j.run_at <= tick.now()
       and (j.key is null or (select r.id from tick.jobs r where r.key = j.key and r.status = 'running') is null
            and j.id = coalesce(
                (select h.id from tick.jobs h where h.key = j.key and h.status = 'pending' and h.strict_key and h.attempt > 0
                  order by h.run_at, h.id limit 1),
                (select e.id from tick.jobs e where e.key = j.key and e.status = 'pending' and e.waits_for is null
                    and e.run_at <= tick.now() order by e.run_at, e.id limit 1)));

-- Who paused a schedule's name, and since when: beside tick.schedules.paused.
alter table tick.schedules
    add column if not exists paused_at timestamptz,
    add column if not exists paused_by text;

-- How attempts ended, in periods of so many seconds; 0 is since ever, for counters that only grow. Each is there for
-- every type, and for all of them together under the type ''. Ticks add to it as they end, so it says what they saw.
create table if not exists tick.stats (
    span            integer     not null,
    at              timestamptz not null,           -- the beginning of the period; -infinity for the span 0
    type            text        not null,
    done            bigint      not null default 0,
    retried         bigint      not null default 0,
    dead            bigint      not null default 0,
    released        bigint      not null default 0, -- cut short, snoozed, cancelled: it had started
    lost            bigint      not null default 0, -- reclaimed after their lease, and not dead by that
    run_seconds     float8      not null default 0,
    wait_seconds    float8      not null default 0,
    runs            bigint[]    not null,           -- attempts per half-octave of the seconds that they ran
    waits           bigint[]    not null,           -- and of the seconds that they had been due before they started
    primary key (span, type, at)                    -- one type over time, for charts; stats_by_age is for all in a period
);
create index if not exists stats_by_age on tick.stats (span, at);

-- What ticks do beside jobs, and when the next of them should: one tick takes it by moving due_at on.
create table if not exists tick.chores (
    name            text        primary key,        -- watch, prune
    due_at          timestamptz not null default tick.now(),
    settings        jsonb       not null default '{}',
    state           jsonb       not null default '{}'
);
insert into tick.chores (name) values ('prune') on conflict do nothing;

-- None is ever set further ahead than ten minutes: one that is so was set before the clock was put back.
create or replace view tick.due_chores as
    select * from tick.chores
     where (due_at <= tick.now() or due_at > tick.now() + interval '15 minutes') and not settings ? 'off';

-- What alerts are about, as long as it lasts, and when somebody was last told.
create table if not exists tick.alerts (
    rule            text        not null,           -- dead, failing, backlog, stopped, missed
    subject         text        not null,           -- a type, a schedule, a trigger; '' where there is one of it
    since           timestamptz not null,
    seen_at         timestamptz not null,           -- it was last so
    told_at         timestamptz,                    -- a message about it was last enqueued
    ended_at        timestamptz,
    count           bigint      not null default 1,
    untold          bigint      not null default 0, -- of the count, since the last message
    details         jsonb       not null default '{}',
    primary key (rule, subject)
);

-- How often a tick has added to the statistics, so that what is sent again is not added again.
alter table tick.ticks add column if not exists tallies integer not null default 0;

create index if not exists skips_by_age on tick.skips (recorded_at);

-- Histograms of half-octaves, such as tick.stats has, added up.
create or replace function tick.added(a bigint[], b bigint[]) returns bigint[] language sql immutable parallel safe as $$
    select array_agg(coalesce(x, 0) + coalesce(y, 0) order by n) from unnest(a, b) with ordinality as sums (x, y, n)
$$;
create or replace aggregate tick.total (bigint[]) (sfunc = tick.added, stype = bigint[], initcond = '{}');

-- The seconds within which that share of a histogram's runs ended; null when there were fewer than five.
create or replace function tick.percentile(histogram bigint[], share float8) returns float8
    language sql immutable parallel safe as $$
    select 0.001 * 2 ^ ((n - 1) / 2.0)::float8
      from (select n, sum(runs) over (order by n) as so_far, sum(runs) over () as all_of_them
              from unnest(histogram) with ordinality as h (runs, n)) counted
     where all_of_them >= 5 and so_far >= all_of_them * share order by n limit 1
$$;


-- For Grafana and for people with psql. None of them reads the jobs that have ended.

create or replace view tick.throughput as
    select at, span, type, done, retried, dead, released, lost, run_seconds, wait_seconds,
           case when done + retried + dead > 0 then (retried + dead)::float8 / (done + retried + dead) end as failure_rate,
           tick.percentile(waits, 0.5) as wait_p50, tick.percentile(waits, 0.95) as wait_p95,
           tick.percentile(runs, 0.5) as run_p50, tick.percentile(runs, 0.95) as run_p95
      from tick.stats where span > 0;

-- The gap is looked up for each row that is shown, and not by a window over all of them.
create or replace view tick.tick_log as
    select started_at, finished_at, trigger, budget, used, claimed, done, retried, dead, released, reclaimed, stale,
           materialised, "left", error, delivery_id, scheduled_for,
           extract(epoch from started_at - scheduled_for)::float8 as late_seconds,
           extract(epoch from started_at - (
               select max(before.started_at) from tick.ticks before where before.started_at < t.started_at))::float8 as gap_seconds
      from tick.ticks t;

insert into tick.migrations (number, name) values (4, '0004_sight') on conflict do nothing;

commit;
