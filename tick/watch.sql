-- What alerts are about, and the writing of them. Every statement reads a bounded number of rows.

-- name: open_alerts
-- Those that last, and those of which was told so lately that it would be too soon to tell again.
select rule, subject, since, seen_at, told_at, ended_at, count, untold, details from tick.alerts
 where ended_at is null or told_at > tick.now() - make_interval(secs => %(repeat)s)
 order by ended_at is null desc, told_at desc nulls last limit 5000

-- name: clock
select tick.now() as now

-- name: deaths
-- What has died since an instant, the latest first, by type and kind of error; `fresh` are those that the next watch
-- might see again. A message about messages that could not be sent is the last one: its own death is not looked at.
with died as materialized (
    select id, type, fingerprint, finished_at, left(last_error, 1000) as last_error from tick.jobs
     where status = 'dead' and finished_at >= case when %(since)s <= tick.now() then %(since)s else tick.now() - make_interval(secs => %(overlap)s) end
       and id <> all(%(counted)s::bigint[])
       and type <> all(%(mute)s::text[])
       and (type <> %(itself)s or not coalesce((payload ->> 'last')::boolean, false))
     order by finished_at desc limit %(most)s + 1
)
select type, fingerprint, count(*)::integer as count, min(finished_at) as first_at, max(finished_at) as last_at,
       (array_agg(id order by finished_at desc))[1] as last_id,
       (array_agg(last_error order by finished_at desc))[1] as last_error,
       array_agg(id) filter (where finished_at >= tick.now() - make_interval(secs => %(overlap)s)) as fresh
  from died group by type, fingerprint order by count(*) desc, type, fingerprint

-- name: rates
-- The types of which so much failed in the last quarter of an hour; what the last of their errors was, as far as it is
-- found among the thousand jobs that were enqueued last.
select r.type, r.failed, r.attempts, (
       select left(last_error, 1000) from (select id, type, last_error from tick.jobs order by id desc limit 1000) j
        where j.type = r.type and last_error is not null order by id desc limit 1) as last_error
  from (select type, sum(retried + dead + lost)::integer as failed, sum(done + retried + dead + lost)::integer as attempts
          from tick.stats
         where span = 60 and at > tick.now() - interval '15 minutes' and type <> all(array['', %(itself)s] || %(mute)s::text[])
         group by type) r
 where attempts >= %(fewest)s and failed >= %(rate)s * attempts order by failed desc, type limit 100

-- name: windows
-- How the last windows of schedules have ended, the latest first: of a page of schedules, and of those of which an alert
-- is open. A schedule without any is one row.
with file as (
    select hash from tick.files order by last_seen desc, hash limit 1
), live as not materialized (
    select e.schedule, e.body ->> 'type' as type
      from tick.entries e join tick.schedules s on s.name = e.schedule
     where e.file = (select hash from file) and not s.paused and coalesce((e.body ->> 'enabled')::boolean, true)
), page as materialized (
    select schedule, type from live where schedule > %(after)s order by schedule limit %(page)s
), watched as (
    select schedule, type, true as paged from page
    union all
    select schedule, type, false from live
     where schedule in (select subject from tick.alerts where rule = 'missed' and ended_at is null limit 500)
       and schedule not in (select schedule from page)
)
select w.schedule, w.paged, j.id as last_id, j.status, j."window", j.failed, j.last_error
  from watched w left join lateral (
       select id, status, "window", failures + losses > 0 as failed, left(last_error, 1000) as last_error from tick.jobs
        where type = w.type and schedule = w.schedule and "window" is not null
        order by "window" desc limit %(most)s + 5) j on true
 order by w.paged, w.schedule, j."window" desc

-- name: tell
-- What has changed, what to tell, and what to remember: all of it, or nothing when another watch has been quicker.
with mine as (
    update tick.chores set state = %(state)s::jsonb
     where name = 'watch' and coalesce((state ->> 'turn')::bigint, 0) = %(turn)s returning name
), kept as (
    insert into tick.alerts (rule, subject, since, seen_at, told_at, ended_at, count, untold, details)
    select a.* from mine cross join jsonb_to_recordset(%(alerts)s::jsonb) as a (
           rule text, subject text, since timestamptz, seen_at timestamptz, told_at timestamptz, ended_at timestamptz,
           count bigint, untold bigint, details jsonb) order by a.rule, a.subject
    on conflict (rule, subject) do update set since = excluded.since, seen_at = excluded.seen_at, told_at = excluded.told_at,
           ended_at = excluded.ended_at, count = excluded.count, untold = excluded.untold, details = excluded.details
)
select made.id from mine cross join lateral tick.insert_jobs(%(jobs)s::jsonb) made

-- name: claim_stopped
-- While no tick comes, of all who notice one tells: who has this row. Whom to tell, since when, and what time it is.
with watch as (
    select settings, (settings #>> '{rules,repeat}')::float8 as repeat from tick.chores
     where name = 'watch' and (settings #>> '{rules,stopped}')::boolean and not settings ? 'off'
), claimed as (
    insert into tick.alerts as a (rule, subject, since, seen_at, told_at)
    select 'stopped', '', coalesce((select max(started_at) from tick.ticks), tick.now()), tick.now(), null from watch
    on conflict (rule, subject) do update set
           since = case when a.ended_at is null then a.since else excluded.since end, seen_at = excluded.seen_at,
           told_at = null, ended_at = null, count = 1, untold = 0, details = '{}'
     where coalesce(a.told_at + make_interval(secs => (select repeat from watch)), a.seen_at + interval '1 minute') <= tick.now()
    returning since
)
select watch.settings, claimed.since, tick.now() from watch, claimed

-- name: confirm_stopped
-- Somebody was told. Until then another may tell it in a minute, since who has claimed it may have been killed.
update tick.alerts set told_at = tick.now() where rule = 'stopped' and subject = ''
