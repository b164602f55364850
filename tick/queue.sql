-- Every transition of a job, one named statement each, in the order a job lives them.
--
--            enqueue, enqueue_group, materialise, complete_and_enqueue
--                             |
--                             v       claim, claim_suspect
--    +-------------------> pending ------------------------> running --+--> done        complete, complete_with,
--    |                      |   ^                              |  |    |                complete_and_enqueue
--    |                      |   |   retry, snooze, release,    |  |    +--> dead -----+ bury, reclaim
--    |                      |   +-- release_unknown, reclaim --+  |                   |
--    |               cancel v                                     | retry, snooze,    |
--    +----- replay --- cancelled <--------------------------------+ release, reclaim, |
--    |                                                              stop_cancelled    |
--    +----- replay -------------------------------------------------------------------+
--
-- A job's fence is (id << 20) | (attempt mod 2^20), as `Job.fence` builds it: every write after the claim names it, so
-- a write from a claim that was lost changes nothing. `id = any(...) and fence = any(...)` is an index scan and a
-- hash probe; joining unnest(ids, attempts) instead was planned through jobs_leases and halved the drain.


-- name: without_jit
-- First in every transaction. The claim costs too little to compile and is estimated to cost enough: with a million
-- finished jobs Postgres 15 spent 515 ms compiling each 7 ms claim. Local to the transaction, so a pooler will do.
-- And nobody's lock may use a tick's budget up: what is in the way after three seconds is tried again, or left.
select set_config('jit', 'off', true), set_config('lock_timeout', '3s', true)

-- name: enqueue  (nothing -> pending)
-- The one way in, for every producer: defaults, limits, idempotency, throttle and chains are in the function.
select id, created from tick.insert_jobs(%(jobs)s::jsonb)

-- name: enqueue_group  (nothing -> pending)
select tick.insert_group(%(jobs)s::jsonb, %(finally)s::jsonb)

-- name: lock_materialising
-- Two ticks that make the same windows would lock each other's definitions in opposite orders.
select pg_advisory_xact_lock(hashtextextended('tick.materialise', 0))

-- name: materialise  (nothing -> pending)
-- The cursor moves by compare-and-set: of two ticks that looked at the same stretch of time, one makes its windows.
with plans as (
    select * from jsonb_to_recordset(%(plans)s::jsonb) as p (
        schedule text, definition text, cursor timestamptz, until timestamptz, next_window timestamptz)
), advanced as (
    update tick.definitions d set cursor = p.until from plans p
     where d.schedule = p.schedule and d.hash = p.definition and d.cursor = p.cursor
    returning d.schedule
), rescheduled as (
    update tick.entries e set next_window = p.next_window from plans p
     where e.file = %(file)s and e.schedule = p.schedule
), windows as (
    select w.*, w.skip_overlap and exists (
               select from tick.jobs j where j.schedule = w.schedule and j.status in ('pending', 'running')) as has_live_one
      from jsonb_to_recordset(%(windows)s::jsonb) as w (
           schedule text, type text, "window" timestamptz, run_at timestamptz, payload jsonb, priority smallint,
           key text, max_attempts integer, timeout float8, callback_url text, on_dead_url text, strict_key boolean,
           skip_overlap boolean)
      join advanced on advanced.schedule = w.schedule
), made as (
    select tick.put_jobs(jsonb_agg(to_jsonb(w) order by "window", schedule)) from windows w where not has_live_one
), skipped as (
    insert into tick.skips (schedule, first_window, last_window, count, reason, tick_id)
    select schedule, "window", "window", 1, 'overlap', %(tick)s::uuid from windows where has_live_one
    union all
    select s.schedule, s.first_window, s.last_window, s.count, s.reason, %(tick)s::uuid
      from jsonb_to_recordset(%(skips)s::jsonb) as s (
           schedule text, first_window timestamptz, last_window timestamptz, count integer, reason text)
      join advanced on advanced.schedule = s.schedule
    on conflict do nothing
)
select count(*) from made

-- name: claim_suspect  (pending -> running)
-- A job whose lease ran out once may be what killed its process: it is claimed alone, by a tick with nothing in flight.
update tick.jobs set status = 'running', attempt = attempt + 1, tick_id = %(tick)s, started_at = tick.now(),
       lease_expires_at = tick.now() + make_interval(secs => %(lease)s)
 where id = any(array(
       select j.id from tick.free_jobs j
        where j.losses > 0 and j.type = any(%(types)s)
          and (j.timeout is null or least(j.timeout, make_interval(secs => %(longest)s)) < make_interval(secs => %(remaining)s))
          and (j.lane is null or tick.has_room(j.lane, j.key))
        order by j.run_at, j.id limit 1 for update skip locked))
returning id, type, payload::text, attempt, failures, losses, cuts, max_attempts, extract(epoch from timeout)::float8,
          key, schedule, "window", priority, run_at, lane, inputs, traceparent,
          callback_url is not null or on_dead_url is not null or awaited or group_id is not null

-- name: claim  (pending -> running)
-- Three ways to the same jobs: by priority; now and then, so that none starves, by how long they have waited; and
-- limited jobs, as far as their lanes have room. The two functions are opaque to the planner, since planning all three
-- took 2 ms for each claim, and are called when it is time to be fair and when there are limits.
-- After a claim that came to (level, seen_run_at, seen_id) it goes on there, and looks everywhere only when that is not
-- enough: what has died before, and stays in the index as long as a transaction might look at it, is walked once a look.
-- All leases of a tick end together, within the second that a clock or a network may differ; and an order and a limit where an
-- `exists` would do: without statistics that one is planned as a scan of the whole table.
-- `id = any(array(...))` and not a join: the join turns into a hash join over the table at 100 rows and claims 17,000
-- jobs a second where this claims 75,000.
update tick.jobs set status = 'running', attempt = attempt + 1, tick_id = %(tick)s, started_at = tick.now(),
       lease_expires_at = tick.now() + make_interval(secs => %(lease)s)
 where id = any(array(
       select id from (
              select * from tick.fair_share(%(types)s, %(remaining)s, %(longest)s, %(limit)s::integer,
                                            %(level)s::smallint, %(seen_run_at)s::timestamptz, %(seen_id)s::bigint)
               where %(fair)s
              union all
              (select due.*
                 from (select %(level)s::smallint as priority, %(seen_run_at)s::timestamptz as run_at, %(seen_id)s::bigint + 1 as id,
                              'infinity'::timestamptz as to_run_at, 0::bigint as to_id
                        where %(level)s::smallint is not null
                       union all
                       select priority, run_at, id,
                              case when priority = %(level)s::smallint then %(seen_run_at)s::timestamptz else 'infinity' end,
                              case when priority = %(level)s::smallint then %(seen_id)s::bigint + 1 else 0 end
                         from tick.free_levels) level cross join lateral (
                      select j.id, j.priority, j.run_at from tick.free_jobs j
                       where j.losses = 0 and j.lane is null and j.priority = level.priority and j.type = any(%(types)s)
                         and (j.run_at, j.id) >= (level.run_at, level.id) and (j.run_at, j.id) < (level.to_run_at, level.to_id)
                         and (j.timeout is null or least(j.timeout, make_interval(secs => %(longest)s)) < make_interval(secs => %(remaining)s))
                       order by j.run_at, j.id limit %(limit)s for update skip locked) due
                where not %(fair)s limit %(limit)s)
              union all
              select * from tick.in_lanes(%(types)s, %(remaining)s, %(longest)s, %(free)s::integer, %(fair)s)
               where exists (select from tick.limits)) candidates
        where not (%(alone)s and coalesce((
              select true from tick.jobs s
               where s.lease_expires_at >= tick.now() + make_interval(secs => %(lease)s - 1) and s.tick_id = %(tick)s
                 and s.losses > 0
               order by s.lease_expires_at limit 1), false))
        order by case when %(fair)s then 0 else priority end desc, run_at, id limit %(limit)s))
returning id, type, payload::text, attempt, failures, losses, cuts, max_attempts, extract(epoch from timeout)::float8,
          key, schedule, "window", priority, run_at, lane, inputs, traceparent,
          callback_url is not null or on_dead_url is not null or awaited or group_id is not null

-- name: complete  (running -> done)
update tick.jobs set status = 'done', finished_at = tick.now(), lease_expires_at = null
 where id = any(%(ids)s) and status = 'running' and ((id << 20) | (attempt & 1048575)) = any(%(fences)s)

-- name: complete_with  (running -> done)
update tick.jobs j set status = 'done', finished_at = tick.now(), lease_expires_at = null, result = o.result::jsonb
  from unnest(%(ids)s::bigint[], %(results)s::text[]) as o (id, result)
 where j.id = any(%(ids)s) and j.id = o.id and j.status = 'running'
   and ((j.id << 20) | (j.attempt & 1048575)) = any(%(fences)s)

-- name: complete_and_enqueue  (running -> done; nothing -> pending)
-- In one statement, so that a follow-up exists exactly when its parent's success was accepted.
with settled as (
    update tick.jobs j set status = 'done', finished_at = tick.now(), lease_expires_at = null, result = o.result::jsonb
      from unnest(%(ids)s::bigint[], %(results)s::text[]) as o (id, result)
     where j.id = any(%(ids)s) and j.id = o.id and j.status = 'running'
       and ((j.id << 20) | (j.attempt & 1048575)) = any(%(fences)s)
    returning j.id
), followed as (
    select count(*) from (
           select coalesce(jsonb_agg(f.job order by f.ordinality), '[]') as jobs
             from jsonb_array_elements(%(follow_ups)s::jsonb) with ordinality f (job, ordinality)
             join settled on settled.id = (f.job ->> 'follows')::bigint) f
     cross join lateral tick.insert_jobs(f.jobs)
)
select id from settled where (select true from followed)

-- name: retry  (running -> pending; running -> cancelled)
update tick.jobs j set failures = failures + 1, lease_expires_at = null,
       status = case when cancel_requested_at is null then 'pending' else 'cancelled' end,
       finished_at = case when cancel_requested_at is null then null else tick.now() end,
       run_at = tick.now() + make_interval(secs => o.delay), last_error = o.message,
       errors = (case when jsonb_array_length(errors) >= %(keep)s then errors - 0 else errors end) || jsonb_build_object(
           'attempt', attempt, 'at', tick.now(), 'error', o.message, 'traceback', o.traceback)
  from unnest(%(ids)s::bigint[], %(delays)s::float8[], %(messages)s::text[], %(tracebacks)s::text[])
       as o (id, delay, message, traceback)
 where j.id = any(%(ids)s) and j.id = o.id and j.status = 'running'
   and ((j.id << 20) | (j.attempt & 1048575)) = any(%(fences)s)

-- name: bury  (running -> dead)
update tick.jobs j set status = 'dead', failures = failures + 1, lease_expires_at = null, finished_at = tick.now(),
       last_error = o.message, fingerprint = tick.fingerprint(o.message),
       errors = (case when jsonb_array_length(errors) >= %(keep)s then errors - 0 else errors end) || jsonb_build_object(
           'attempt', attempt, 'at', tick.now(), 'error', o.message, 'traceback', o.traceback)
  from unnest(%(ids)s::bigint[], %(messages)s::text[], %(tracebacks)s::text[]) as o (id, message, traceback)
 where j.id = any(%(ids)s) and j.id = o.id and j.status = 'running'
   and ((j.id << 20) | (j.attempt & 1048575)) = any(%(fences)s)

-- name: snooze  (running -> pending; running -> cancelled)
update tick.jobs j set lease_expires_at = null,
       status = case when cancel_requested_at is null then 'pending' else 'cancelled' end,
       finished_at = case when cancel_requested_at is null then null else tick.now() end,
       run_at = coalesce(o.until, tick.now() + make_interval(secs => o.delay))
  from unnest(%(ids)s::bigint[], %(untils)s::timestamptz[], %(delays)s::float8[]) as o (id, until, delay)
 where j.id = any(%(ids)s) and j.id = o.id and j.status = 'running'
   and ((j.id << 20) | (j.attempt & 1048575)) = any(%(fences)s)

-- name: release  (running -> pending; running -> cancelled)
-- Pending again with its place in the queue kept; `cuts` counts the times the tick's deadline ended it half-way.
update tick.jobs set lease_expires_at = null, cuts = cuts + %(cut)s,
       status = case when cancel_requested_at is null then 'pending' else 'cancelled' end,
       finished_at = case when cancel_requested_at is null then null else tick.now() end
 where id = any(%(ids)s) and status = 'running' and ((id << 20) | (attempt & 1048575)) = any(%(fences)s)

-- name: release_unknown  (running -> pending)
-- After a connection was lost in mid-exchange: what the lost reply had claimed.
update tick.jobs set lease_expires_at = null, status = 'pending'
 where lease_expires_at is not null and tick_id = %(tick)s and not id = any(%(held)s)

-- name: stop_cancelled  (running -> cancelled)
update tick.jobs set status = 'cancelled', finished_at = tick.now(), lease_expires_at = null
 where id = any(%(ids)s) and status = 'running' and ((id << 20) | (attempt & 1048575)) = any(%(fences)s)

-- name: already_settled
-- After a connection was lost in mid-exchange: the writes of these claims that had been committed all the same.
select count(*) from tick.jobs
 where id = any(%(ids)s) and status <> 'running' and ((id << 20) | (attempt & 1048575)) = any(%(fences)s)

-- name: reclaim  (running -> pending; running -> dead; running -> cancelled)
-- A lease ran out: the process was killed, or it left the job behind. Charged to `losses`, never to `failures`.
update tick.jobs set losses = losses + 1, lease_expires_at = null, run_at = tick.now(), last_error = %(message)s,
       status = case when cancel_requested_at is not null then 'cancelled'
                     when losses + 1 >= %(most_losses)s then 'dead' else 'pending' end,
       finished_at = case when cancel_requested_at is not null or losses + 1 >= %(most_losses)s then tick.now() end,
       fingerprint = tick.fingerprint(%(message)s),
       errors = (case when jsonb_array_length(errors) >= %(keep)s then errors - 0 else errors end) || jsonb_build_object(
           'attempt', attempt, 'at', tick.now(), 'error', %(message)s::text, 'traceback', '')
 where id = any(array(
       select id from tick.jobs where lease_expires_at <= tick.now()
        order by lease_expires_at limit %(limit)s for update skip locked))
returning type, status

-- name: record_progress
update tick.jobs j set progress = o.progress::jsonb || jsonb_build_object('at', tick.now())
  from unnest(%(ids)s::bigint[], %(progress)s::text[]) as o (id, progress)
 where j.id = any(%(ids)s) and j.id = o.id and j.status = 'running'
   and ((j.id << 20) | (j.attempt & 1048575)) = any(%(fences)s)

-- name: cancel  (pending -> cancelled; a running job is told at its tick's next exchange)
update tick.jobs set
       status = case status when 'pending' then 'cancelled' else status end,
       finished_at = case status when 'pending' then tick.now() end,
       cancel_requested_at = coalesce(cancel_requested_at, tick.now())
 where id = %(id)s and status in ('pending', 'running')
returning status

-- name: replay  (dead -> pending; cancelled -> pending)
-- A person's second chance: the counters start again, the attempt does not, since it is the fence.
update tick.jobs set status = 'pending', run_at = tick.now(), failures = 0, losses = 0, cuts = 0,
       finished_at = null, cancel_requested_at = null, progress = null,
       waits_for = nullif(waits_for, 'key')
 where id = any(%(ids)s) and status in ('dead', 'cancelled')
returning id

-- name: run_now
-- Due at once; what it waits for still goes before it.
update tick.jobs set run_at = least(run_at, tick.now()) where id = %(id)s and status = 'pending'
returning id

-- name: heal_keys
-- A key whose jobs all wait, as somebody leaves it who ends a job in a transaction that does not see what is committed
-- beside it. A hundred keys are looked at, from one of the thousand jobs that have been due longest. To free a job is safe.
with recursive keys (key, place) as (
    (select key, 1 from tick.jobs where status = 'pending' and waits_for = 'key' and run_at <= tick.now() order by run_at
     offset floor(random() * (select count(*) from (
            select from tick.jobs where status = 'pending' and waits_for = 'key' and run_at <= tick.now() limit 1000) due))
      limit 1)
    union all
    select (select j.key from tick.jobs j where j.status = 'pending' and j.waits_for = 'key' and j.key > keys.key
             order by j.key limit 1), place + 1
      from keys where keys.key is not null and place < 100
)
update tick.jobs set waits_for = null
 where id = any(array(
       select (select j.id from tick.jobs j where j.key = keys.key and j.status = 'pending' and j.waits_for = 'key'
                order by j.run_at, j.id limit 1)
         from keys
        where (select r.id from tick.jobs r where r.key = keys.key and r.status = 'running') is null
          and (select f.id from tick.jobs f where f.key = keys.key and f.status = 'pending' and f.waits_for is null
                limit 1) is null)) and status = 'pending' and waits_for = 'key'

-- name: cancel_requests
select id from tick.jobs where status = 'running' and cancel_requested_at is not null and tick_id = %(tick)s


-- The tick's own row, and what it knows.

-- name: see_file
update tick.files set last_seen = tick.now()
 where hash = %(file)s and last_seen between tick.now() - interval '1 hour' and tick.now() - interval '5 minutes'

-- name: due_entries
select e.schedule, e.definition, e.body, d.cursor, s.paused
  from tick.entries e
  join tick.definitions d on d.schedule = e.schedule and d.hash = e.definition
  join tick.schedules s on s.name = e.schedule
 where e.file = %(file)s and e.next_window <= tick.now()
 order by e.next_window limit %(limit)s

-- name: type_history
select type, durations from tick.types where type = any(%(types)s)

-- name: open_tick
-- With nothing claimed, nothing due and the file known, this row is finished as it is written: an idle tick is one trip.
insert into tick.ticks (id, trigger, delivery_id, scheduled_for, schedules_file, budget, used, finished_at, "left")
select %(tick)s, %(trigger)s, %(delivery_id)s, %(scheduled_for)s, %(file)s, %(budget)s, 0,
       case when idle then tick.now() end, case when idle then jobs_left else 0 end
  from (select (select true from tick.jobs
                  where lease_expires_at >= tick.now() + make_interval(secs => %(lease)s - 1) and tick_id = %(tick)s
                 order by lease_expires_at limit 1) is null
               and not exists (select from tick.entries where file = %(file)s and next_window <= tick.now())
               and not exists (select from tick.due_chores)
               and (%(file)s::text is null or exists (
                    select from tick.files where hash = %(file)s and last_seen > tick.now() - interval '1 hour'))) as t (idle)
 cross join lateral (select count(*) from (select from tick.due_jobs limit 10001) counted where idle) as l (jobs_left)
returning tick.now(), finished_at is not null, "left", %(file)s::text is null or exists (
          select from tick.files where hash = %(file)s and last_seen > tick.now() - interval '1 hour'),
          coalesce((select hash from tick.configuration), '') = coalesce(%(file)s, '') and not exists (
          select from tick.pending_lanes p where not exists (select from tick.limits l where l.lane = p.lane)),
          exists (select from tick.limits), array(select name from tick.due_chores order by name desc)

-- name: set_limits
-- Those of types that only another deployment has handlers for stay; and those of a file while there is none, since
-- that is what a bundle without its file looks like. When a limit comes or goes, jobs change lanes.
with given as (
    select * from jsonb_to_recordset(%(limits)s::jsonb) as g (
        lane text, type text, key_prefix text, concurrency integer, rate integer, period float8, key_rate integer,
        key_period float8, from_file boolean)
), gone as (
    delete from tick.limits
     where lane not in (select lane from given) and (type is null or type = any(%(types)s)) and (%(has_file)s or not from_file)
    returning lane
), unsettled as (
    delete from tick.configuration
     where exists (select from gone) or exists (select lane from given except select lane from tick.limits)
), forgotten as (
    delete from tick.starts s
     where at < tick.now() - interval '1 day' and not exists (select from tick.limits l where l.lane = s.lane)
)
insert into tick.limits (lane, type, key_prefix, concurrency, rate, period, key_rate, key_period, from_file)
select lane, type, key_prefix, concurrency, rate, make_interval(secs => period), key_rate, make_interval(secs => key_period),
       from_file
  from given order by lane
on conflict (lane) do update set concurrency = excluded.concurrency, rate = excluded.rate, period = excluded.period,
       key_rate = excluded.key_rate, key_period = excluded.key_period, from_file = excluded.from_file
 where %(has_file)s or not limits.from_file

-- name: set_defaults
-- Those of types that only another deployment knows stay.
insert into tick.defaults (type, priority, strict_key)
select type, priority, strict_key
  from jsonb_to_recordset(%(defaults)s::jsonb) as g (type text, priority smallint, strict_key boolean) order by type
on conflict (type) do update set priority = excluded.priority, strict_key = excluded.strict_key

-- name: set_chores
-- One that the project does not want is off, unless a file had asked for it and there is none: see set_limits. What it
-- remembers is good for five minutes, since deployments with it and without it may tick in turn while one is rolled out. What is
-- so before somebody is to be told of it is no news: a watch begins from here. Pruning is there, or somebody deleted it.
with given as (
    select name, settings || jsonb_build_object('from_file', from_file) as settings
      from jsonb_to_recordset(%(chores)s::jsonb) as g (name text, settings jsonb, from_file boolean)
), off as (
    update tick.chores c set settings = jsonb_build_object('off', tick.now()) || c.settings
     where name not in (select name from given) and (%(has_file)s or not coalesce((c.settings ->> 'from_file')::boolean, false))
)
insert into tick.chores (name, settings, state)
select name, settings, case name when 'watch' then jsonb_build_object('since', tick.now()) else '{}' end
  from given where name <> 'prune' or exists (select from tick.chores where name = 'prune') order by name
on conflict (name) do update set settings = excluded.settings, state = case
       when (chores.settings ->> 'off')::timestamptz < tick.now() - interval '5 minutes' then excluded.state else chores.state end
 where %(has_file)s or not coalesce((chores.settings ->> 'from_file')::boolean, false)

-- name: relane
-- Jobs that were enqueued before their limit was there, or are in a lane that is no longer: some thousands, by their
-- ids, the last of which it returns. What somebody else has locked is left, and then it says that these were not all.
with page as materialized (
    select id, lane, type, key from tick.jobs
     where status in ('pending', 'running') and id > %(after)s order by id limit %(most_moved)s
), wrong as materialized (
    select page.id, l.lane from page left join lateral (
           select lane from tick.limits where type = page.type or starts_with(page.key, key_prefix)
            order by length(key_prefix) desc nulls last limit 1) l on true
     where page.lane is distinct from l.lane
), held as (
    select id from tick.jobs where id = any(array(select id from wrong)) for update skip locked
), moved as (
    update tick.jobs set lane = wrong.lane from wrong
     where jobs.id = any(array(select id from held)) and jobs.id = wrong.id
)
select (select max(id) from page), (select count(*) from wrong) = (select count(*) from held)

-- name: set_configuration
-- Not before every job is in its lane, so that the next tick does what this one has no time for.
insert into tick.configuration (hash) select %(hash)s
 where %(settled)s or (exists (select from tick.configuration) or not exists (select from tick.limits))
   and not exists (select from tick.pending_lanes p where not exists (select from tick.limits l where l.lane = p.lane))
on conflict (one) do update set hash = excluded.hash

-- name: room_in
-- In how many seconds a rate lets a job start that waits for nothing else: when the oldest start that counts is too old.
-- Of the keys that have a rate each, those of the first hundred jobs.
select min(extract(epoch from waiting.until - tick.now()))::float8
  from (select (select s.at from tick.starts s where s.lane = l.lane and s.at > tick.now() - l.period - interval '0.5 s'
                 order by s.at desc offset l.rate - 1 limit 1) + l.period + interval '0.5 s' as until
          from tick.limits l
         where l.rate is not null
           and coalesce(l.concurrency > (select count(*) from tick.jobs r where r.lane = l.lane and r.status = 'running'), true)
           and (select true from tick.lane_priorities level cross join lateral (
                       select from tick.free_jobs f
                        where f.lane = level.lane and f.priority = level.priority and f.losses = 0
                          and f.type = any(%(types)s) limit 1) j
                 where level.lane = l.lane limit 1)
        union all
        select (select s.at from tick.starts s
                 where s.lane = l.lane and s.key = j.key and s.at > tick.now() - l.key_period - interval '0.5 s'
                 order by s.at desc offset l.key_rate - 1 limit 1) + l.key_period + interval '0.5 s'
          from tick.limits l join tick.lane_priorities level on level.lane = l.lane cross join lateral (
               select f.key from tick.free_jobs f
                where f.lane = l.lane and f.priority = level.priority and f.losses = 0 and f.key is not null
                  and f.type = any(%(types)s)
                order by f.run_at, f.id limit 100) j
         where l.key_rate is not null) waiting

-- name: sync
-- A definition not seen for an hour, while other files ticked without it, was removed or replaced: it starts anew.
with given as (
    select * from jsonb_to_recordset(%(entries)s::jsonb) as g (schedule text, definition text, body jsonb)
), named as (
    insert into tick.schedules (name) select schedule from given order by schedule on conflict do nothing
), seen as (
    insert into tick.files (hash, last_seen) values (%(file)s, tick.now())
    on conflict (hash) do update set last_seen = tick.now()
), last_seen as (
    select e.schedule, e.definition, max(f.last_seen) as at
      from tick.entries e join tick.files f on f.hash = e.file group by e.schedule, e.definition
), defined as (
    insert into tick.definitions (schedule, hash, first_seen, cursor)
    select schedule, definition, tick.now(), tick.now() from given order by schedule
    on conflict (schedule, hash) do update set first_seen = tick.now(), cursor = tick.now()
     where coalesce((select at from last_seen l where l.schedule = definitions.schedule and l.definition = definitions.hash),
                    '-infinity') < (select max(last_seen) - interval '1 hour' from tick.files)
)
insert into tick.entries (file, schedule, definition, body, next_window)
select %(file)s, schedule, definition, body, tick.now() from given order by schedule
on conflict (file, schedule) do update set body = excluded.body, next_window = tick.now()

-- name: forget_files
-- Files that nothing has ticked with for a month; the definitions, with their cursors, stay.
delete from tick.files where last_seen < tick.now() - interval '30 days' and hash <> %(file)s

-- name: record_types
insert into tick.types (type, durations, last_seen)
select t.type, t.durations, tick.now()
  from jsonb_to_recordset(%(types)s::jsonb) as t (type text, durations bigint[]) order by t.type
on conflict (type) do update set last_seen = tick.now(), durations = (
    -- Halved past a thousand runs, so that a type that has become faster is not judged by last year.
    select array_agg(case when total > 1000 then old / 2 else old end + new order by n)
      from unnest(types.durations, excluded.durations) with ordinality as d (old, new, n),
           (select sum(run) from unnest(types.durations) run) as t (total))

-- name: record_stats
-- In one order, whoever writes, so that ticks that write together do not deadlock. And once: what is sent again, since the
-- answer was lost, finds its number in the tick's row.
with fresh as (
    update tick.ticks set tallies = %(number)s where id = %(tick)s and tallies < %(number)s returning id
)
insert into tick.stats (span, at, type, done, retried, dead, released, lost, run_seconds, wait_seconds, runs, waits)
select span, case span when 0 then '-infinity' else to_timestamp(floor(extract(epoch from tick.now()) / span) * span) end,
       type, done, retried, dead, released, lost, run_seconds, wait_seconds, runs, waits
  from jsonb_to_recordset(%(stats)s::jsonb) as s (
       type text, done bigint, retried bigint, dead bigint, released bigint, lost bigint, run_seconds float8,
       wait_seconds float8, runs bigint[], waits bigint[])
 cross join (values (60), (600), (3600), (0)) as spans (span)
 where exists (select from fresh) order by span, type
on conflict (span, at, type) do update set
       done = stats.done + excluded.done, retried = stats.retried + excluded.retried, dead = stats.dead + excluded.dead,
       released = stats.released + excluded.released, lost = stats.lost + excluded.lost,
       run_seconds = stats.run_seconds + excluded.run_seconds, wait_seconds = stats.wait_seconds + excluded.wait_seconds,
       runs = (select array_agg(a + b order by n) from unnest(stats.runs, excluded.runs) with ordinality as r (a, b, n)),
       waits = (select array_agg(a + b order by n) from unnest(stats.waits, excluded.waits) with ordinality as w (a, b, n))

-- name: begin_chore
-- Of several ticks one does it; should it be lost half-way, the next is due all the same.
update tick.chores set due_at = tick.now() + make_interval(secs => %(every)s)
 where name = (select name from tick.due_chores where name = %(name)s for update skip locked)
returning settings, state

-- name: end_chore
update tick.chores set state = %(state)s::jsonb, due_at = case when %(again)s then tick.now() else due_at end
 where name = %(name)s

-- name: close_tick
update tick.ticks set finished_at = tick.now(), used = %(used)s, materialised = %(materialised)s, claimed = %(claimed)s,
       done = %(done)s, retried = %(retried)s, dead = %(dead)s, released = %(released)s, reclaimed = %(reclaimed)s,
       stale = %(stale)s, error = %(error)s, "left" = (select count(*) from (select from tick.due_jobs limit 10001) counted)
 where id = %(tick)s
returning "left"


-- What people ask.

-- name: list_jobs
select id, type, status, priority, attempt, failures, losses, run_at, finished_at, key, schedule, "window", last_error,
       waits_for, lane
  from tick.jobs
 where (%(status)s::text is null or status = %(status)s) and (%(type)s::text is null or type = %(type)s)
   and (%(schedule)s::text is null or schedule = %(schedule)s)
 order by id desc limit %(limit)s

-- name: show_job
select to_jsonb(j) from tick.jobs j where id = %(id)s

-- name: ended
select status, result, last_error from tick.jobs where id = %(id)s

-- name: job_status
select status from tick.jobs where id = %(id)s

-- name: lately
-- How the attempts of the last so many seconds ended: all together under the type '', then the types that fail most.
select type, sum(done)::bigint as done, sum(retried + dead + lost)::bigint as failed
  from tick.stats where span = 60 and at > tick.now() - make_interval(secs => %(seconds)s)
 group by type order by type = '' desc, 3 desc, type limit 20

-- name: last_dead
-- The job that died last, and how many have died in so many seconds.
select id, type, finished_at, extract(epoch from tick.now() - finished_at)::float8 as since,
       (select count(*) from (
               select from tick.jobs where status = 'dead' and finished_at > tick.now() - make_interval(secs => %(seconds)s)
                limit %(most)s + 1) d)::integer as recent
  from tick.jobs where status = 'dead' order by finished_at desc limit 1

-- name: paused_schedules
-- Those of the file that last ticked.
select s.name, s.paused_at, s.paused_by
  from tick.schedules s
  join tick.entries e on e.schedule = s.name
 where s.paused and e.file = (select hash from tick.files order by last_seen desc, hash limit 1)
 order by s.name limit %(limit)s

-- name: pause_schedule
-- Its windows are skipped, and recorded as such, until it is resumed.
update tick.schedules set paused = true, paused_at = case when paused then paused_at else tick.now() end,
       paused_by = case when paused then paused_by else %(by)s end
 where name = %(name)s
returning name, paused_at, paused_by

-- name: resume_schedule
update tick.schedules set paused = false, paused_at = null, paused_by = null where name = %(name)s
returning name

-- name: pending_of_schedules
-- How many jobs of these schedules are still to run, up to so many of each.
select given.schedule, count(live.id)::integer as count
  from unnest(%(schedules)s::text[]) as given (schedule)
  left join lateral (select id from tick.jobs where schedule = given.schedule and status in ('pending', 'running')
                      limit %(most)s + 1) live on true
 group by given.schedule

-- name: chores
select name, settings from tick.chores order by name

-- name: limits
select lane, type, key_prefix, concurrency, rate, extract(epoch from period)::integer as period, key_rate,
       extract(epoch from key_period)::integer as key_period, from_file
  from tick.limits order by lane
