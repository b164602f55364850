-- What the API asks of the database, one named statement each. The transitions of a job are in queue.sql.

-- name: patience
-- First in every transaction: what takes longer is stopped, whether it searches or waits. As for jit, see queue.sql.
select set_config('statement_timeout', %(milliseconds)s::text, true), set_config('jit', 'off', true)

-- name: admit
select tick.admit(%(caller)s, %(hash)s, %(scope)s, %(calls)s, %(period)s)

-- name: count_call
select remaining, reset from tick.count_call(%(caller)s, %(hash)s, %(calls)s, %(period)s)

-- name: lock_answer
-- Held until the first request with this key is committed, with its answer; whoever finds it held came while it was.
select pg_try_advisory_xact_lock(hashtextextended('tick.api_answers ' || %(caller)s || ' ' || %(key)s, 0))

-- name: recall
-- After the lock and not with it: a statement sees what was committed before it began.
select fingerprint, status, location, body from tick.api_answers
 where caller = %(caller)s and key = %(key)s and expires_at > tick.now()

-- name: keep
-- Each answer that is kept takes away some that have expired.
with expired as (
    delete from tick.api_answers where (caller, key) in (
           select caller, key from tick.api_answers
            where expires_at <= tick.now() and (caller, key) <> (%(caller)s, %(key)s)
            order by expires_at limit 100 for update skip locked)
)
insert into tick.api_answers (caller, key, fingerprint, status, location, body, expires_at)
values (%(caller)s, %(key)s, %(fingerprint)s, %(status)s, %(location)s, %(body)s,
        tick.now() + make_interval(secs => %(seconds)s))
on conflict (caller, key) do update set fingerprint = excluded.fingerprint, status = excluded.status,
       location = excluded.location, body = excluded.body, expires_at = excluded.expires_at

-- name: page
-- That what runs has a lease says which index to read.
select id, type, status, key, schedule, "window", priority, run_at, created_at, started_at, finished_at, attempt, failures,
       losses, waits_for, left(last_error, 200) as last_error
  from tick.jobs
 where (%(status)s::text is null or status = %(status)s) and (%(type)s::text is null or type = %(type)s)
   and (%(key)s::text is null or key = %(key)s) and (%(schedule)s::text is null or schedule = %(schedule)s)
   and (%(created_after)s::timestamptz is null or created_at > %(created_after)s)
   and (%(created_before)s::timestamptz is null or created_at < %(created_before)s)
   and (%(finished_after)s::timestamptz is null or finished_at > %(finished_after)s)
   and (%(finished_before)s::timestamptz is null or finished_at < %(finished_before)s)
   and (%(status)s::text is distinct from 'running' or lease_expires_at is not null)
   and (%(before)s::bigint is null or id < %(before)s)
 order by id desc limit %(limit)s

-- name: job
select id, type, status, key, schedule, "window", priority, run_at, created_at, started_at, finished_at, attempt, failures,
       losses, waits_for, last_error, payload, result, progress, errors, cuts, max_attempts,
       extract(epoch from timeout)::float8 as timeout, idempotency_key, parent_id, group_id, lease_expires_at,
       cancel_requested_at, callback_url, on_dead_url, traceparent, lane
  from tick.jobs where id = %(id)s

-- name: replayable
-- Locked in ascending id, as every settle does it.
select id from tick.jobs
 where status = %(status)s and (%(type)s::text is null or type = %(type)s)
   and (%(key)s::text is null or key = %(key)s) and (%(schedule)s::text is null or schedule = %(schedule)s)
   and (%(finished_after)s::timestamptz is null or finished_at > %(finished_after)s)
   and (%(finished_before)s::timestamptz is null or finished_at < %(finished_before)s)
 order by id limit %(limit)s

-- name: add_key
insert into tick.api_keys (id, name, scopes, hash, expires_at)
values (%(id)s, %(name)s, %(scopes)s, %(hash)s, tick.now() + make_interval(secs => %(seconds)s))
returning expires_at

-- name: list_keys
select id, name, array_to_string(scopes, ' ') as scopes, created_at, expires_at, revoked_at, last_used_at
  from tick.api_keys order by created_at, id

-- name: revoke_key
update tick.api_keys set revoked_at = coalesce(revoked_at, tick.now()) where id = %(id)s returning name
