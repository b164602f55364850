-- What keeps a tick quick: claims that do not walk twice over what has died, plans that do not depend on statistics, and locks
-- that stay within one schema.

begin;

select pg_advisory_xact_lock(7236483109254801);
set local lock_timeout = '5s';

-- The priorities that pending jobs have, highest first, and the first job of each: a claim that starts there does not walk
-- once more over what has died before it, which stays in the index as long as some transaction might look at it.
create or replace view tick.free_levels as
    with recursive levels (priority, run_at, id) as (
        (select priority, run_at, id from tick.jobs
          where status = 'pending' and losses = 0 and waits_for is null and lane is null
          order by priority desc, run_at, id limit 1)
        union all
        select next.priority, next.run_at, next.id
          from levels cross join lateral (
               select j.priority, j.run_at, j.id from tick.jobs j
                where j.status = 'pending' and j.losses = 0 and j.waits_for is null and j.lane is null
                  and j.priority < levels.priority
                order by j.priority desc, j.run_at, j.id limit 1) next
    )
    select priority, run_at, id from levels;

-- The same, of the priorities below this one.
create or replace function tick.free_levels_below(top smallint)
    returns table (priority smallint, run_at timestamptz, id bigint) language sql stable as $$
    with recursive levels (priority, run_at, id) as (
        select top, null::timestamptz, null::bigint
        union all
        select next.priority, next.run_at, next.id
          from levels cross join lateral (
               select j.priority, j.run_at, j.id from tick.jobs j
                where j.status = 'pending' and j.losses = 0 and j.waits_for is null and j.lane is null
                  and j.priority < levels.priority
                order by j.priority desc, j.run_at, j.id limit 1) next
    )
    select priority, run_at, id from levels where id is not null
$$;

-- What a claim may take when it is to be fair: of each priority the oldest, the oldest of all first, locked. After a claim
-- that has come to (priority, run_at, id) it looks there and below, and everywhere only when that is not enough. Older
-- versions, while this one is rolled out, ask the one of 0002.
create or replace function tick.fair_share(
    types text[], remaining float8, longest float8, most integer, level smallint, seen_run_at timestamptz, seen_id bigint)
    returns table (id bigint, priority smallint, run_at timestamptz) language plpgsql set plan_cache_mode = force_custom_plan as $$
declare
    found_there integer := 0;
begin
    if level is not null then
        return query
        select due.id, due.priority, due.run_at
          from (select level as priority, seen_run_at as run_at, seen_id + 1 as id
                union all
                select * from tick.free_levels_below(level)) levels cross join lateral (
               select j.id, j.priority, j.run_at from tick.free_jobs j
                where j.losses = 0 and j.lane is null and j.priority = levels.priority and j.type = any(types)
                  and (j.run_at, j.id) >= (levels.run_at, levels.id)
                  and (j.timeout is null or least(j.timeout, make_interval(secs => longest)) < make_interval(secs => remaining))
                order by j.run_at, j.id limit most for update skip locked) due
         order by due.run_at, due.id limit most;
        get diagnostics found_there = row_count;
    end if;
    if found_there < most then
        return query
        select due.id, due.priority, due.run_at
          from (select l.*, case l.priority when level then seen_run_at else 'infinity' end as to_run_at,
                       case l.priority when level then seen_id + 1 else 0 end as to_id
                  from tick.free_levels l where level is null or l.priority >= level) levels cross join lateral (
               select j.id, j.priority, j.run_at from tick.free_jobs j
                where j.losses = 0 and j.lane is null and j.priority = levels.priority and j.type = any(types)
                  and (j.run_at, j.id) >= (levels.run_at, levels.id) and (j.run_at, j.id) < (levels.to_run_at, levels.to_id)
                  and (j.timeout is null or least(j.timeout, make_interval(secs => longest)) < make_interval(secs => remaining))
                order by j.run_at, j.id limit most for update skip locked) due
         order by due.run_at, due.id limit most;
    end if;
end $$;

-- The jobs that would run now if nothing stood in their way; to be counted with a limit. Each in the order of its index, which
-- is asked for although it is only counted: with statistics from before a burst, or with none, the planner would read the
-- whole table to find ten thousand of them.
create or replace view tick.due_jobs as
    select due.id from tick.free_levels level cross join lateral (
           select id from tick.jobs where status = 'pending' and losses = 0 and waits_for is null and lane is null
              and priority = level.priority and run_at <= tick.now() and (run_at, id) >= (level.run_at, level.id)
            order by run_at, id limit 10001) due
    union all
    select due.id from tick.lane_priorities level cross join lateral (
           select id from tick.jobs where status = 'pending' and losses = 0 and waits_for is null and lane = level.lane
              and priority = level.priority and run_at <= tick.now() order by run_at, id limit 10001) due
    union all
    select id from tick.jobs where status = 'pending' and losses > 0 and waits_for is null and run_at <= tick.now()
    union all
    select id from tick.jobs where status = 'pending' and waits_for = 'key' and run_at <= tick.now();

-- Claims under limits wait for each other, and not for those of another schema.
create or replace function tick.lock_lanes() returns void language sql as
    $$ select pg_advisory_xact_lock(7236484, hashtext('tick.jobs')) $$;

-- What buries many jobs says itself what kind of error they have; this is for whatever else does, an older version too. AFTER,
-- since a BEFORE UPDATE trigger locks each row that a claim or a settle writes once more, whatever its WHEN says.
create or replace function tick.set_fingerprint() returns trigger language plpgsql as $$
begin
    if tg_when = 'AFTER' then
        update tick.jobs set fingerprint = tick.fingerprint(new.last_error) where id = new.id;
    else
        new.fingerprint := tick.fingerprint(new.last_error);
    end if;
    return new;
end $$;
create or replace trigger jobs_fingerprint after update on tick.jobs for each row
    when (new.status = 'dead' and old.status <> 'dead' and new.fingerprint is not distinct from old.fingerprint)
    execute function tick.set_fingerprint();

insert into tick.migrations (number, name) values (5, '0005_fast') on conflict do nothing;

commit;
