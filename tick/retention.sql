-- What is old enough to go, one named statement for each kind. Each looks at so many rows and no more.

-- name: patience
-- First in every transaction here: nobody waits for a prune, and a prune waits for nobody.
select set_config('lock_timeout', '100ms', true), set_config('statement_timeout', %(milliseconds)s::text, true)

-- name: full_types
-- The types of which more jobs are done than are kept, and before when: to the hour or the day, from the statistics, since
-- an index of every finished job by its type would cost each settle more than all of this.
select type, max(at) as before
  from (select type, at, sum(done) over (partition by type order by at desc) as newer
          from tick.stats
         where span in (3600, 86400) and type = any(array(
               select type from tick.stats where span = 0 and type <> '' and done >= %(count)s))) counted
 where newer >= %(count)s group by type

-- name: prune_page
-- By id, which is nearly by age, from where the last page ended: no index of done jobs is needed for it. It ends where no
-- job is old enough. What a group that has not ended will ask for stays. Locked in ascending id, as every settle does it; what somebody else has locked stays until another
-- time, and what was replayed while it was looked at has not ended.
with reach (until) as materialized (
    select greatest(tick.now() - make_interval(secs => %(done)s),
                    (select max(value::timestamptz) from jsonb_each_text(%(full)s::jsonb)))
), page as materialized (
    select id, type, status, finished_at
      from (select id, type, status, finished_at, created_at from tick.jobs where id > %(after)s order by id limit %(most)s) next
     where created_at < (select until from reach)
), old as materialized (
    select id, finished_at from page
     where status in ('done', 'cancelled') and finished_at < greatest(
           case status when 'done' then tick.now() - make_interval(secs => %(done)s) end, (%(full)s::jsonb ->> type)::timestamptz)
), locked as materialized (
    select id from tick.jobs j
     where not %(dry_run)s and id = any(array(select id from old)) and finished_at <= (select max(finished_at) from old)
       and (group_id is null or (select true from tick.jobs g where g.id = j.group_id and g.waits_for = 'group') is null)
     order by id for update skip locked
), gone as (
    delete from tick.jobs where id = any(array(select id from locked)) returning id
)
select (select count(*) from page)::integer as looked_at,
       (select count(*) from old where %(dry_run)s)::integer + (select count(*) from gone)::integer as jobs,
       coalesce((select max(id) from page), %(after)s) as after

-- name: prune_ended
-- Dead or cancelled jobs, of which there is an index: the oldest first, from after the last page.
with old as materialized (
    select id, finished_at from tick.jobs
     where status = %(status)s and finished_at < tick.now() - make_interval(secs => %(age)s)
       and (finished_at, id) > (%(after_at)s::timestamptz, %(after)s)
     order by finished_at, id limit %(most)s
), locked as materialized (
    select id from tick.jobs j
     where not %(dry_run)s and id = any(array(select id from old)) and status = %(status)s
       and finished_at <= (select max(finished_at) from old)
       and (group_id is null or (select true from tick.jobs g where g.id = j.group_id and g.waits_for = 'group') is null)
     order by id for update skip locked
), gone as (
    delete from tick.jobs where id = any(array(select id from locked)) returning id
)
select (select count(*) from old)::integer as looked_at,
       (select count(*) from old where %(dry_run)s)::integer + (select count(*) from gone)::integer as jobs,
       (select max(finished_at) from old) as after_at,
       (select max(id) from old where finished_at = (select max(finished_at) from old)) as after

-- name: prune_ticks
-- Of ticks that had nothing to do a week is enough to see that they came. Of the others are so many that they are not
-- looked at again each time, but for those of the last `back` seconds.
delete from tick.ticks where id = any(array(
       (select id from tick.ticks where started_at < tick.now() - make_interval(secs => %(ticks)s)
         order by started_at limit %(most)s)
       union all
       (select id from tick.ticks
         where started_at < tick.now() - make_interval(secs => %(idle_ticks)s)
           and started_at >= tick.now() - make_interval(secs => %(idle_ticks)s + %(back)s)
           and finished_at is not null and error is null and claimed = 0 and materialised = 0 and reclaimed = 0
         order by started_at limit %(most)s)))

-- name: prune_skips
delete from tick.skips where ctid = any(array(
       select ctid from tick.skips where recorded_at < tick.now() - make_interval(secs => %(ticks)s)
        order by recorded_at limit %(most)s))

-- name: fold_stats
-- Hours of more than five weeks ago become days.
with hours as (
    delete from tick.stats where ctid = any(array(
           select ctid from tick.stats where span = 3600 and at < tick.now() - interval '35 days' order by at limit %(most)s))
    returning *
)
insert into tick.stats (span, at, type, done, retried, dead, released, lost, run_seconds, wait_seconds, runs, waits)
select 86400, date_trunc('day', at, 'UTC'), type, sum(done), sum(retried), sum(dead), sum(released), sum(lost),
       sum(run_seconds), sum(wait_seconds), tick.total(runs), tick.total(waits)
  from hours group by 2, 3 order by 2, 3
on conflict (span, at, type) do update set
       done = stats.done + excluded.done, retried = stats.retried + excluded.retried, dead = stats.dead + excluded.dead,
       released = stats.released + excluded.released, lost = stats.lost + excluded.lost,
       run_seconds = stats.run_seconds + excluded.run_seconds, wait_seconds = stats.wait_seconds + excluded.wait_seconds,
       runs = tick.added(stats.runs, excluded.runs), waits = tick.added(stats.waits, excluded.waits)

-- name: prune_stats
-- The finer, the shorter: minutes for a day, ten minutes for a week and a day, days for a year and a month.
delete from tick.stats where ctid = any(array(
       (select ctid from tick.stats where span = 60 and at < tick.now() - interval '1 day' order by at limit %(most)s)
       union all
       (select ctid from tick.stats where span = 600 and at < tick.now() - interval '8 days' order by at limit %(most)s)
       union all
       (select ctid from tick.stats where span = 86400 and at < tick.now() - interval '400 days' order by at limit %(most)s)))

-- name: prune_alerts
delete from tick.alerts where ctid = any(array(
       select ctid from tick.alerts where ended_at < tick.now() - make_interval(secs => %(ticks)s) limit %(most)s))
