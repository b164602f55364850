-- What the dashboard's pages of jobs and schedules ask. A search looks at `look` jobs along an index, and at no others,
-- however many there are: `oldest_looked_at` says how far that was.

-- name: newest_jobs
-- Along the primary key. The look ends at its bound, or when the page is full.
select id, type, status, priority, key, schedule, "window", run_at, created_at, started_at, finished_at, attempt, failures,
       losses, waits_for, lane, cancel_requested_at, left(last_error, 400) as last_error
  from (select * from tick.jobs where %(before)s::bigint is null or id < %(before)s order by id desc limit %(look)s) looked_at
 where (%(status)s::text is null or status = %(status)s) and (%(type)s::text is null or type = %(type)s)
   and (%(key)s::text is null or key = %(key)s) and (%(schedule)s::text is null or schedule = %(schedule)s)
   and (%(text)s::text is null or payload::text ilike %(text)s or last_error ilike %(text)s)
 order by id desc limit %(limit)s

-- name: oldest_looked_at
-- Where a look at the newest jobs ended; no row when it came to the first job of all.
select id, created_at as at from tick.jobs
 where id = (select id from tick.jobs where %(before)s::bigint is null or id < %(before)s
              order by id desc offset %(look)s - 1 limit 1)

-- name: jobs_of_schedule
-- Along the index of schedules: no other schedule's jobs are looked at.
select id, type, status, priority, key, schedule, "window", run_at, created_at, started_at, finished_at, attempt, failures,
       losses, waits_for, lane, cancel_requested_at, left(last_error, 400) as last_error
  from (select * from tick.jobs
         where schedule = %(schedule)s and (%(before)s::bigint is null or id < %(before)s)
         order by schedule desc, id desc limit %(look)s) looked_at
 where (%(status)s::text is null or status = %(status)s) and (%(type)s::text is null or type = %(type)s)
   and (%(key)s::text is null or key = %(key)s)
   and (%(text)s::text is null or payload::text ilike %(text)s or last_error ilike %(text)s)
 order by id desc limit %(limit)s

-- name: oldest_looked_at_of_schedule
select id, created_at as at from tick.jobs
 where id = (select id from tick.jobs
              where schedule = %(schedule)s and (%(before)s::bigint is null or id < %(before)s)
              order by schedule desc, id desc offset %(look)s - 1 limit 1)

-- name: ended_jobs
-- Dead or cancelled ones, the latest first, along the index of their ends. The dead of one kind have an index too.
select id, type, status, priority, key, schedule, "window", run_at, created_at, started_at, finished_at, attempt, failures,
       losses, waits_for, lane, cancel_requested_at, left(last_error, 400) as last_error
  from (select * from tick.jobs
         where status = %(status)s and (%(error)s::text is null or type = %(type)s and fingerprint = %(error)s)
           and (%(before_at)s::timestamptz is null or (finished_at, id) < (%(before_at)s, %(before)s))
         order by finished_at desc, id desc limit %(look)s) looked_at
 where (%(type)s::text is null or type = %(type)s)
   and (%(key)s::text is null or key = %(key)s) and (%(schedule)s::text is null or schedule = %(schedule)s)
   and (%(text)s::text is null or payload::text ilike %(text)s or last_error ilike %(text)s)
 order by finished_at desc, id desc limit %(limit)s

-- name: kind_of_error
-- The fingerprint that has this digest, among a thousand that dead jobs of the type have.
with recursive kinds (fingerprint, place) as (
    (select fingerprint, 1 from tick.jobs where status = 'dead' and type = %(type)s and fingerprint is not null
      order by fingerprint limit 1)
    union all
    select (select j.fingerprint from tick.jobs j
             where j.status = 'dead' and j.type = %(type)s and j.fingerprint > kinds.fingerprint
             order by j.fingerprint limit 1), place + 1
      from kinds where kinds.fingerprint is not null and place < 1000
)
select fingerprint from kinds where left(encode(sha256(convert_to(fingerprint, 'UTF8')), 'hex'), 16) = %(digest)s limit 1

-- name: oldest_looked_at_of_ended
select id, finished_at as at from tick.jobs
 where status = %(status)s and (%(error)s::text is null or type = %(type)s and fingerprint = %(error)s)
   and (%(before_at)s::timestamptz is null or (finished_at, id) < (%(before_at)s, %(before)s))
 order by finished_at desc, id desc offset %(look)s - 1 limit 1

-- name: running_jobs
-- Those that have run longest first.
select id, type, status, priority, key, schedule, "window", run_at, created_at, started_at, finished_at, attempt, failures,
       losses, waits_for, lane, cancel_requested_at, left(last_error, 400) as last_error
  from (select * from tick.jobs where lease_expires_at is not null order by lease_expires_at limit %(look)s) looked_at
 where (%(type)s::text is null or type = %(type)s)
   and (%(key)s::text is null or key = %(key)s) and (%(schedule)s::text is null or schedule = %(schedule)s)
   and (%(text)s::text is null or payload::text ilike %(text)s or last_error ilike %(text)s)
 order by started_at, id offset %(skip)s limit %(limit)s

-- name: pending_jobs
-- Nearly as they would run: so many of each kind that an index has in that order, those that are due before the others.
-- Of those that wait for a job or for a group there is no such index: the latest are looked for.
select id, type, status, priority, key, schedule, "window", run_at, created_at, started_at, finished_at, attempt, failures,
       losses, waits_for, lane, cancel_requested_at, left(last_error, 400) as last_error
  from ((select j.* from tick.free_priorities level cross join lateral (
                select * from tick.jobs where status = 'pending' and losses = 0 and waits_for is null and lane is null
                   and priority = level.priority and run_at <= tick.now() order by run_at, id limit %(look)s) j limit %(look)s)
        union all
        (select j.* from tick.free_priorities level cross join lateral (
                select * from tick.jobs where status = 'pending' and losses = 0 and waits_for is null and lane is null
                   and priority = level.priority and run_at > tick.now() order by run_at, id limit %(look)s) j limit %(look)s)
        union all
        (select j.* from tick.lane_priorities level cross join lateral (
                select * from tick.jobs where status = 'pending' and losses = 0 and waits_for is null and lane = level.lane
                   and priority = level.priority order by run_at, id limit %(look)s) j limit %(look)s)
        union all
        (select * from tick.jobs where status = 'pending' and losses > 0 and waits_for is null
          order by run_at, id limit %(look)s)
        union all
        (select * from tick.jobs where status = 'pending' and waits_for = 'key' order by run_at limit %(look)s)
        union all
        (select * from (select * from tick.jobs where parent_id is not null order by parent_id desc limit %(look)s) children
          where status = 'pending' and waits_for = 'job')
        union all
        (select * from tick.jobs
          where status = 'pending' and waits_for = 'group' and id in (
                select group_id from tick.jobs where group_id is not null order by group_id desc limit %(look)s))) looked_at
 where (%(type)s::text is null or type = %(type)s)
   and (%(text)s::text is null or payload::text ilike %(text)s or last_error ilike %(text)s)
 order by run_at > tick.now() or waits_for is not null, waits_for is not null,
          case when run_at <= tick.now() then -priority else 0 end, run_at, id
offset %(skip)s limit %(limit)s

-- name: pending_jobs_of
-- Those of a key or of a schedule, of which there are indexes.
select id, type, status, priority, key, schedule, "window", run_at, created_at, started_at, finished_at, attempt, failures,
       losses, waits_for, lane, cancel_requested_at, left(last_error, 400) as last_error
  from ((select * from tick.jobs where status = 'pending' and key = %(key)s and waits_for is null order by run_at, id limit %(look)s)
        union all
        (select * from tick.jobs where status = 'pending' and key = %(key)s and waits_for = 'key' order by run_at, id limit %(look)s)
        union all
        (select * from tick.jobs where status in ('pending', 'running') and schedule = %(schedule)s and %(key)s::text is null
          limit %(look)s)) looked_at
 where status = 'pending' and (%(type)s::text is null or type = %(type)s)
   and (%(schedule)s::text is null or schedule = %(schedule)s)
   and (%(text)s::text is null or payload::text ilike %(text)s or last_error ilike %(text)s)
 order by waits_for is not null, run_at, id offset %(skip)s limit %(limit)s

-- name: obstacles
-- What stands in the way of pending jobs: the job that has their key, or goes before them; a limit without room; the job
-- that they come after.
select j.id, holder.id as holder_id, holder.status as holder_status,
       l.room, l.key_rate is not null and j.key is not null and l.key_rate <= (
           select count(*) from tick.starts s
            where s.lane = l.lane and s.key = j.key and s.at > tick.now() - l.key_period) as key_is_full,
       lim.concurrency, parent.status as parent_status, j.parent_id, j.waits
  from tick.jobs j
  left join lateral (
       (select h.id, h.status from tick.jobs h where h.key = j.key and h.status = 'running')
       union all
       (select h.id, h.status from tick.jobs h
         where h.key = j.key and h.status = 'pending' and h.strict_key and h.attempt > 0 and h.id <> j.id
         order by h.run_at, h.id limit 1)
       union all
       (select h.id, h.status from tick.jobs h
         where h.key = j.key and h.status = 'pending' and h.waits_for is null and h.id <> j.id
           and (h.run_at, h.id) < (j.run_at, j.id) and not (j.strict_key and j.attempt > 0)
         order by h.run_at, h.id limit 1)
       limit 1) holder on true
  left join tick.limits lim on lim.lane = j.lane
  left join tick.lane_room l on l.lane = j.lane
  left join tick.jobs parent on parent.id = j.parent_id and j.waits_for = 'job'
 where j.id = any(%(ids)s) and j.status = 'pending'


-- One job.

-- name: job
-- All of it, but of long texts what a person reads.
select j.id, j.type, j.status, j.priority, j.key, j.strict_key, j.schedule, j."window", j.run_at, j.created_at, j.started_at,
       j.finished_at, j.attempt, j.failures, j.losses, j.cuts, j.max_attempts, extract(epoch from j.timeout)::float8 as timeout,
       j.idempotency_key, j.waits_for, j.waits, j.lane, j.parent_id, j.group_id, j.tick_id, j.lease_expires_at,
       j.cancel_requested_at, j.callback_url, j.on_dead_url, j.traceparent, j.progress, j.payload, j.result, j.fingerprint,
       left(j.last_error, %(most)s) as last_error, length(j.last_error) as error_length,
       octet_length(j.payload::text) as payload_bytes, (
           select coalesce(jsonb_agg(jsonb_build_object(
                      'attempt', e -> 'attempt', 'at', e -> 'at', 'error', left(e ->> 'error', %(most)s),
                      'traceback', left(e ->> 'traceback', %(most)s)) order by n), '[]')
             from (select e, n from jsonb_array_elements(j.errors) with ordinality as errors (e, n) order by n desc limit 50) kept
       ) as errors,
       t.trigger, t.started_at as tick_started_at, t.finished_at as tick_finished_at
  from tick.jobs j left join tick.ticks t on t.id = j.tick_id
 where j.id = %(id)s

-- name: kin
-- What the job came after and what comes after it, the group that it is in and the jobs of the group that it ends. Only
-- those that were looked at are put in order: the planner could take the primary key for that, and read it to its end.
(select 'parent' as kin, r.id, r.type, r.status, r.finished_at
   from tick.jobs j join tick.jobs r on r.id = j.parent_id where j.id = %(id)s)
union all
(select 'group', r.id, r.type, r.status, r.finished_at
   from tick.jobs j join tick.jobs r on r.id = j.group_id where j.id = %(id)s)
union all
(select 'child', * from (select id, type, status, finished_at from tick.jobs where parent_id = %(id)s limit %(look)s) children
  order by id limit %(limit)s)
union all
(select 'member', * from (select id, type, status, finished_at from tick.jobs where group_id = %(id)s limit %(look)s) members
  order by id limit %(limit)s)

-- name: callbacks
-- The deliveries of a job's last end, which are put in with it. There is no index of them. Ids grow with time, nearly: so
-- the place where jobs of that time are is found by halving, and the neighbourhood looked through.
with recursive ended as (
    select id, finished_at from tick.jobs where id = %(id)s and finished_at is not null
), halved (low, high, step) as (
    select ended.id, (select max(id) from tick.jobs) + 1, 0 from ended
    union all
    select case when middle.created_at < ended.finished_at then middle.id else low end,
           case when middle.created_at < ended.finished_at then high else (low + high) / 2 end, step + 1
      from halved cross join ended cross join lateral (
           select id, created_at from tick.jobs where id >= (low + high) / 2 order by id limit 1) middle
     where high - low > 1 and step < 64
), place as (
    select low from halved order by step desc limit 1
)
select j.id, j.status, j.attempt, j.finished_at, j.created_at, j.payload ->> 'url' as url, j.payload ->> 'type' as event,
       left(j.last_error, 200) as last_error
  from place cross join lateral (
       select * from (select * from tick.jobs where id <= place.low and id > %(id)s order by id desc limit 1000) before
       union all
       select * from (select * from tick.jobs where id > place.low order by id limit %(look)s) after) j
 where j.type = %(type)s and j.payload #>> '{data,id}' = %(id)s::text
   and j.created_at >= (select finished_at from ended)
 order by j.id


-- name: payload
select id, type, status, payload, octet_length(payload::text) as bytes, md5(payload::text) as digest,
       left(last_error, 2000) as last_error
  from tick.jobs where id = %(id)s


-- What a person changes.

-- name: jobs_by_id
select id, type, status, priority, key, schedule, "window", run_at, created_at, started_at, finished_at, attempt, failures,
       losses, waits_for, lane, cancel_requested_at, left(last_error, 400) as last_error
  from tick.jobs where id = any(%(ids)s) order by id

-- name: cancel_jobs  (pending -> cancelled; running ones are told)
update tick.jobs set
       status = case status when 'pending' then 'cancelled' else status end,
       finished_at = case status when 'pending' then tick.now() end,
       cancel_requested_at = coalesce(cancel_requested_at, tick.now())
 where id = any(%(ids)s) and status in ('pending', 'running')
returning id, status

-- name: run_jobs_now
update tick.jobs set run_at = least(run_at, tick.now()) where id = any(%(ids)s) and status = 'pending'
returning id

-- name: replay_with  (dead -> pending; cancelled -> pending)
-- As `replay`, with another payload, in one statement: if somebody has changed the job since it was read, nothing happens.
update tick.jobs set payload = %(payload)s::jsonb, status = 'pending', run_at = tick.now(), failures = 0, losses = 0, cuts = 0,
       finished_at = null, cancel_requested_at = null, progress = null, waits_for = nullif(waits_for, 'key')
 where id = %(id)s and status in ('dead', 'cancelled') and md5(payload::text) = %(digest)s
returning id


-- Schedules.

-- name: find_schedules
-- Those of the file that last ticked, whose name, type or description holds a text; by name, from after one.
select e.schedule, e.body, e.next_window, d.cursor, d.first_seen, s.paused, s.paused_at, s.paused_by
  from tick.entries e
  join tick.definitions d on d.schedule = e.schedule and d.hash = e.definition
  join tick.schedules s on s.name = e.schedule
 where e.file = (select hash from tick.files order by last_seen desc, hash limit 1)
   and (%(text)s::text is null or e.schedule ilike %(text)s or e.body ->> 'type' ilike %(text)s
        or e.body ->> 'description' ilike %(text)s)
   and (%(after)s::text is null or e.schedule > %(after)s)
 order by e.schedule limit %(limit)s

-- name: skips_of
-- What was not made of schedules, the latest first: up to `each` of each.
select s.* from unnest(%(schedules)s::text[]) as given (schedule) cross join lateral (
       select schedule, first_window, last_window, count, reason from tick.skips
        where schedule = given.schedule order by last_window desc limit %(each)s) s

-- name: durations
select type, durations from tick.types where type = any(%(types)s)

-- name: remembered
-- Whether a name has been a schedule's, in any file.
select name, paused, (select max(cursor) from tick.definitions where schedule = name) as cursor
  from tick.schedules where name = %(name)s
