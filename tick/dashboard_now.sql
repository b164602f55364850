-- What the dashboard asks for itself, beside facts.sql. Every statement reads a bounded number of rows.

-- name: enter
-- Before all else that a session asks: the clock, and whether the API key that it was opened with still lets in.
select tick.now() as now,
       %(key)s::text is null or exists (
           select from tick.api_keys
            where id = %(key)s and encode(sha256('session '::bytea || hash), 'hex') = %(proof)s
              and 'admin' = any(scopes) and revoked_at is null and coalesce(expires_at > tick.now(), true)) as is_let_in

-- name: admin_keys
-- Whether anybody can log in with a key of the table.
select exists (select from tick.api_keys
                where 'admin' = any(scopes) and revoked_at is null and coalesce(expires_at > tick.now(), true)) as are_there

-- name: try_password
-- Raises TK429 when there were too many wrong passwords lately: thirty may come at once, one every two seconds. Browsers
-- that have never logged in are one caller, so that nobody has more tries for having more addresses; each other is its own.
select tick.admit(%(caller)s, null, 'admin', 30, 60)

-- name: count_try
-- Counts a wrong password.
select remaining from tick.count_call(%(caller)s, null, 30, 60)

-- name: running
-- What runs now, that which has run longest first.
select id, type, attempt, key, started_at, lease_expires_at, progress, tick_id, cancel_requested_at
  from (select * from tick.jobs where lease_expires_at is not null limit %(most)s) leased
 order by started_at, id limit %(limit)s

-- name: ticks
-- The latest before an instant, of a trigger, with work or with trouble, among so many that are looked at.
select id, trigger, delivery_id, scheduled_for, started_at, finished_at, budget, used, materialised, claimed, done, retried,
       dead, released, reclaimed, stale, "left", error,
       extract(epoch from started_at - scheduled_for)::float8 as late, extract(epoch from since_last)::float8 as gap
  from (select t.*, started_at - lag(started_at) over (order by started_at) as since_last
          from (select * from tick.ticks where %(before)s::timestamptz is null or started_at < %(before)s
                 order by started_at desc limit %(look)s) t) looked
 where (%(trigger)s::text is null or trigger = %(trigger)s)
   and (%(kind)s <> 'work' or claimed + materialised + reclaimed > 0)
   and (%(kind)s <> 'trouble' or error is not null or dead > 0 or retried > 0 or reclaimed > 0)
 order by started_at desc limit %(limit)s

-- name: ticks_looked_at
-- How many those are, and until when they reach.
select count(*)::integer as count, min(started_at) as until
  from (select started_at from tick.ticks where %(before)s::timestamptz is null or started_at < %(before)s
         order by started_at desc limit %(look)s) looked

-- name: tick
-- One of them, with its neighbours.
select t.*, extract(epoch from t.started_at - t.scheduled_for)::float8 as late,
       extract(epoch from t.started_at - p.started_at)::float8 as gap, p.id as previous, n.id as next
  from tick.ticks t
  left join lateral (select id, started_at from tick.ticks where started_at < t.started_at
                      order by started_at desc limit 1) p on true
  left join lateral (select id from tick.ticks where started_at > t.started_at order by started_at limit 1) n on true
 where t.id = %(id)s

-- name: jobs_of_tick
-- Those that it still has: what has ended is not found by its tick.
select id, type, attempt, key, started_at, lease_expires_at, progress, cancel_requested_at
  from tick.jobs where lease_expires_at is not null and tick_id = %(id)s order by id limit %(limit)s

-- name: group_to_replay
-- Dead jobs of a type, with one kind of error or with any: those that died first, up to so many, the first with its error.
select id, type, finished_at, case when row_number() over (order by finished_at, id) = 1 then left(last_error, 2000) end as last_error
  from ((select id, type, finished_at, last_error from tick.jobs
          where status = 'dead' and type = %(type)s and fingerprint = %(fingerprint)s
          order by finished_at limit %(limit)s)
        union all
        (select id, type, finished_at, last_error from tick.jobs
          where status = 'dead' and type = %(type)s and %(fingerprint)s::text is null
          order by fingerprint, finished_at limit %(limit)s)) found
 order by finished_at, id

-- name: jobs_to_replay
-- Of these jobs, those that can be replayed.
select id, type, finished_at, case when row_number() over (order by finished_at, id) = 1 then left(last_error, 2000) end as last_error
  from tick.jobs where id = any(%(ids)s::bigint[]) and status in ('dead', 'cancelled')
 order by finished_at, id limit %(limit)s
