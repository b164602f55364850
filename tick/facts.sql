-- What is so, for people, metrics, alerts and the doctor. Every statement reads a bounded number of rows, however many
-- there are: a count ends at its bound, and says "more" by being one above it.

-- name: depth
-- How many jobs there are of each kind, up to `most`; since when the oldest of those that are due has been, and when the
-- first of those that are not will be. Each priority, of each lane, is looked at by itself, as their indexes have them.
with levels (lane, priority) as materialized (
    select null, priority from tick.free_priorities
    union all
    select lane, priority from tick.lane_priorities
), oldest (run_at) as (
    select run_at from levels l cross join lateral (
           (select run_at from tick.jobs where status = 'pending' and losses = 0 and waits_for is null
               and lane is null and l.lane is null and priority = l.priority
             order by run_at limit 1)
           union all
           (select run_at from tick.jobs where status = 'pending' and losses = 0 and waits_for is null
               and lane = l.lane and priority = l.priority
             order by run_at limit 1)) j
    union all
    (select run_at from tick.jobs where status = 'pending' and losses > 0 and waits_for is null order by run_at limit 1)
    union all
    (select run_at from tick.jobs where status = 'pending' and waits_for = 'key' order by run_at limit 1)
), first (run_at) as (
    select run_at from levels l cross join lateral (
           (select run_at from tick.jobs where status = 'pending' and losses = 0 and waits_for is null
               and lane is null and l.lane is null and priority = l.priority and run_at > tick.now()
             order by run_at limit 1)
           union all
           (select run_at from tick.jobs where status = 'pending' and losses = 0 and waits_for is null
               and lane = l.lane and priority = l.priority and run_at > tick.now()
             order by run_at limit 1)) j
    union all
    (select run_at from tick.jobs where status = 'pending' and losses > 0 and waits_for is null and run_at > tick.now()
      order by run_at limit 1)
), later as (
    select from levels l cross join lateral (
           (select id from tick.jobs where status = 'pending' and losses = 0 and waits_for is null
               and lane is null and l.lane is null and priority = l.priority and run_at > tick.now()
             limit %(most)s + 1)
           union all
           (select id from tick.jobs where status = 'pending' and losses = 0 and waits_for is null
               and lane = l.lane and priority = l.priority and run_at > tick.now()
             limit %(most)s + 1)) j
    union all
    select from tick.jobs where status = 'pending' and losses > 0 and waits_for is null and run_at > tick.now()
)
select tick.now() as now,
       (select count(*) from (select from tick.due_jobs limit %(most)s + 1) d)::integer as due,
       (select min(run_at) from oldest where run_at <= tick.now()) as oldest_due,
       (select count(*) from (select from tick.jobs where lease_expires_at is not null limit %(most)s + 1) r)::integer as running,
       (select count(*) from (select from tick.jobs where lease_expires_at < tick.now() limit %(most)s + 1) e)::integer as expired,
       (select count(*) from (select from tick.jobs where status = 'dead' limit %(most)s + 1) d)::integer as dead,
       (select count(*) from (select from tick.jobs where status = 'pending' and waits_for = 'key' limit %(most)s + 1) k)::integer
           as behind_keys,
       (select count(*) from (select from later limit %(most)s + 1) l)::integer as later,
       (select min(run_at) from first) as next_run

-- name: recent_ticks
-- The latest first, from before an instant: of one trigger, or of all. One more is read, for the gap before the last.
select id, trigger, delivery_id, scheduled_for, started_at, finished_at, budget, used, materialised, claimed, done, retried,
       dead, released, reclaimed, stale, "left", error,
       extract(epoch from started_at - scheduled_for)::float8 as late,
       extract(epoch from started_at - lag(started_at) over (order by started_at))::float8 as gap
  from (select * from tick.ticks
         where (%(before)s::timestamptz is null or started_at < %(before)s)
           and (%(trigger)s::text is null or trigger = %(trigger)s)
         order by started_at desc limit %(limit)s + 1) latest
 order by started_at desc limit %(limit)s

-- name: pulse
-- What there is to know of whether ticks come: the seconds since the last one and since the installation, and the
-- median of the seconds between the last twenty.
select extract(epoch from tick.now() - max(started_at))::float8 as since, max(started_at) as last_tick,
       (select extract(epoch from tick.now() - max(applied_at))::float8 from tick.migrations) as installed,
       (select extract(epoch from percentile_cont(0.5) within group (order by gap))::float8
          from (select started_at - lag(started_at) over (order by started_at) as gap
                  from (select started_at from tick.ticks order by started_at desc limit 21) last) gaps) as gap
  from tick.ticks

-- name: triggers
-- Who has ticked in the last two thousand ticks: how often, at what distance, how late, and when last.
select trigger, count(*)::integer as ticks, max(started_at) as last_tick,
       extract(epoch from tick.now() - max(started_at))::float8 as since,
       extract(epoch from percentile_cont(0.5) within group (order by gap))::float8 as gap,
       extract(epoch from percentile_cont(0.95) within group (order by started_at - scheduled_for))::float8 as late
  from (select trigger, started_at, scheduled_for, started_at - lag(started_at) over (partition by trigger order by started_at) as gap
          from (select trigger, started_at, scheduled_for from tick.ticks order by started_at desc limit 2000) latest) gaps
 group by trigger order by max(started_at) desc

-- name: chart
-- One row for each period of so many seconds since an instant in which something ran: of one type, or '' for all.
select at, done, retried, dead, released, lost, run_seconds, wait_seconds, runs, waits
  from tick.stats where span = %(span)s and type = %(type)s and at >= %(since)s order by at

-- name: by_type
-- What each type has done since an instant, the busiest first. 60, 600 and 3600 are the spans that there are. What
-- a type does in an hour is an integer, and summed up in half the time that bigints take.
select type, sum(done::integer) as done, sum(retried::integer) as retried, sum(dead::integer) as dead,
       sum(lost::integer) as lost, sum(released::integer) as released, sum(run_seconds) as run_seconds,
       sum(wait_seconds) as wait_seconds
  from tick.stats where span = %(span)s and at >= %(since)s and type <> ''
 group by type order by sum((done + retried + dead)::integer) desc, type limit %(limit)s

-- name: totals
-- Since ever, by type; the first is all of them together.
select type, done, retried, dead, released, lost, run_seconds, wait_seconds, runs, waits
  from tick.stats where span = 0 order by type = '' desc, done + retried + dead desc, type limit %(limit)s

-- name: counters
-- Since ever, of the first types by name, and of all others together under a name of their own. A type that is among the
-- others stays there whatever types come, so that no counter goes down; and sums are made in one order, as they are rounded.
with first as materialized (
    select type, done, retried, dead, released, lost, run_seconds, wait_seconds, runs, waits
      from tick.stats where span = 0 and type > '' and type <> %(others)s order by type limit %(limit)s
)
select * from first
union all
select %(others)s, sum(done)::bigint, sum(retried)::bigint, sum(dead)::bigint, sum(released)::bigint, sum(lost)::bigint,
       sum(run_seconds order by type), sum(wait_seconds order by type), tick.total(runs), tick.total(waits)
  from tick.stats
 where span = 0 and (type > (select max(type) from first having count(*) = %(limit)s) or type = %(others)s)
having count(*) > 0

-- name: along_indexes
-- First in a transaction that searches. Without it a planner that has no statistics yet reads all of the dead and sorts
-- them, to look at the latest 5,000: 334 ms beside a million jobs, and not 8.
select set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true),
       set_config('enable_sort', 'off', true)

-- name: dead_groups
-- Dead jobs by type and kind of error, one index probe for each group: its count up to `most`, its first and last. The
-- groups are found in the order of the index: of a type, those without a kind of error, which are told as '', come last.
with recursive groups (type, fingerprint, place) as (
    (select type, fingerprint, 1 from tick.jobs where status = 'dead' order by type, fingerprint limit 1)
    union all
    select n.type, n.fingerprint, g.place + 1
      from groups g cross join lateral (
           select * from (
               (select 1 as turn, type, fingerprint from tick.jobs
                 where status = 'dead' and type = g.type and fingerprint > g.fingerprint order by fingerprint limit 1)
               union all
               (select 2, type, fingerprint from tick.jobs
                 where status = 'dead' and type = g.type and fingerprint is null and g.fingerprint is not null limit 1)
               union all
               (select 3, type, fingerprint from tick.jobs
                 where status = 'dead' and type > g.type order by type, fingerprint limit 1)) following
            order by turn limit 1) n
     where g.place < %(limit)s
)
select g.type, coalesce(g.fingerprint, '') as fingerprint, c.count, f.finished_at as first_at, l.finished_at as last_at,
       l.id as last_id, left(l.last_error, 300) as last_error
  from groups g
 cross join lateral (select count(*)::integer as count from (
                     (select 1 from tick.jobs
                       where status = 'dead' and type = g.type and fingerprint = g.fingerprint limit %(most)s + 1)
                     union all
                     (select 1 from tick.jobs
                       where status = 'dead' and type = g.type and fingerprint is null and g.fingerprint is null limit %(most)s + 1)) counted) c
 cross join lateral ((select finished_at from tick.jobs
                       where status = 'dead' and type = g.type and fingerprint = g.fingerprint order by finished_at limit 1)
                     union all
                     (select finished_at from tick.jobs
                       where status = 'dead' and type = g.type and fingerprint is null and g.fingerprint is null order by finished_at limit 1)) f
 cross join lateral ((select id, finished_at, last_error from tick.jobs
                       where status = 'dead' and type = g.type and fingerprint = g.fingerprint order by finished_at desc limit 1)
                     union all
                     (select id, finished_at, last_error from tick.jobs
                       where status = 'dead' and type = g.type and fingerprint is null and g.fingerprint is null order by finished_at desc limit 1)) l
 order by l.finished_at desc

-- name: unhandled
-- Among ten thousand due jobs, those that no handler here would take; beside each, how many of the others there are, and
-- since when the oldest of these has been due. Looked for in the indexes of what is due, as tick.due_jobs does: what is
-- merely pending and due would be looked for among all jobs that there are.
with due (type, run_at) as (
    select j.type, j.run_at from tick.free_priorities l cross join lateral (
           select type, run_at from tick.jobs where status = 'pending' and losses = 0 and waits_for is null
              and lane is null and priority = l.priority and run_at <= tick.now() limit 10000) j
    union all
    select j.type, j.run_at from tick.lane_priorities l cross join lateral (
           select type, run_at from tick.jobs where status = 'pending' and losses = 0 and waits_for is null
              and lane = l.lane and priority = l.priority and run_at <= tick.now() limit 10000) j
    union all
    (select type, run_at from tick.jobs
      where status = 'pending' and losses > 0 and waits_for is null and run_at <= tick.now() order by run_at limit 10000)
    union all
    (select type, run_at from tick.jobs
      where status = 'pending' and waits_for = 'key' and run_at <= tick.now() order by run_at limit 10000)
), looked as materialized (
    select type, run_at, type = any(%(types)s) as handled from due limit 10000
)
select type, count(*)::integer as count, min(run_at) as oldest,
       (select count(*) from looked where handled)::integer as handled,
       (select min(run_at) from looked where handled) as oldest_handled
  from looked where not handled group by type order by type

-- name: schedules
-- Every schedule of the file that last ticked, by name: its definition, where it has come to, whether it is paused.
select e.schedule, e.body, e.next_window, d.cursor, d.first_seen, s.paused, s.paused_at, s.paused_by
  from tick.entries e
  join tick.definitions d on d.schedule = e.schedule and d.hash = e.definition
  join tick.schedules s on s.name = e.schedule
 where e.file = (select hash from tick.files order by last_seen desc, hash limit 1)
   and (%(name)s::text is null or e.schedule = %(name)s) and (%(after)s::text is null or e.schedule > %(after)s)
 order by e.schedule limit %(limit)s

-- name: outcomes
-- How the last windows of schedules have ended, the latest first: up to `each` of each.
select given.schedule, j.id, j.status, j."window", j.run_at, j.started_at, j.finished_at, j.failures, left(j.last_error, 200) as last_error
  from jsonb_to_recordset(%(schedules)s::jsonb) as given (schedule text, type text) cross join lateral (
       select * from tick.jobs j where j.type = given.type and j.schedule = given.schedule and j."window" is not null
        order by j."window" desc limit %(each)s) j
 order by given.schedule, j."window" desc

-- name: skips
-- What was not made of a schedule, the latest first; with `at`, that in which this window is.
select first_window, last_window, count, reason, recorded_at, tick_id from tick.skips
 where schedule = %(schedule)s and (%(at)s::timestamptz is null or %(at)s between first_window and last_window)
 order by last_window desc limit %(limit)s

-- name: alerts
-- Those that last, and the latest that have ended.
select rule, subject, since, seen_at, told_at, ended_at, count, details from tick.alerts
 order by ended_at is not null, coalesce(ended_at, since) desc limit %(limit)s

-- name: open_alerts
-- How many of each rule there are now.
select rule, count(*)::integer as count from tick.alerts where ended_at is null group by rule order by rule

-- name: schedule_counts
-- How many schedules the file has that last ticked, and how many of them are paused.
select count(*)::integer as schedules, count(*) filter (where s.paused)::integer as paused
  from tick.entries e join tick.schedules s on s.name = e.schedule
 where e.file = (select hash from tick.files order by last_seen desc, hash limit 1)
