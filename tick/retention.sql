-- What is old enough to go, one named statement for each kind. Each looks at so many rows and no more.

-- name: full_types
-- The types of which more jobs have ended well than are kept, and before when: to the hour, from the statistics, since an
-- index of every finished job by its type would cost each settle more than all of this.
select type, max(at) as before
  from (select type, at, sum(done) over (partition by type order by at desc) as newer
          from tick.stats where span = 3600 and type <> '') counted
 where newer >= %(count)s group by type

-- name: prune_jobs
-- By id, which is nearly by age, from where the last page ended: no index of finished jobs is needed for it.
-- Locked in ascending id, as every settle does it; what somebody else has locked stays until the next time.
with page as materialized (
    select id, type, status, created_at, finished_at from tick.jobs where id > %(after)s order by id limit %(most)s
), old as materialized (
    select p.id from page p left join jsonb_to_recordset(%(full)s::jsonb) as f (type text, before timestamptz) on f.type = p.type
     where p.finished_at < tick.now() - make_interval(secs => case p.status when 'dead' then %(dead)s when 'done' then %(done)s
                                                              else %(cancelled)s end)
        or (p.status <> 'dead' and p.finished_at < f.before)
), locked as materialized (
    select id from tick.jobs where id = any(array(select id from old)) order by id for update skip locked
), gone as (
    delete from tick.jobs where not %(dry_run)s and id = any(array(select id from locked)) returning id
)
select (select max(id) from page) as after, (select count(*) from page)::integer as looked_at,
       (select count(*) from locked)::integer as jobs, (select count(*) from gone)::integer as deleted,
       (select min(created_at) from page) > tick.now() - make_interval(secs => %(youngest)s) as young

-- name: prune_ticks
-- Of ticks that had nothing to do a week is enough to see that they came.
delete from tick.ticks where id = any(array(
       select id from tick.ticks
        where started_at < tick.now() - make_interval(secs => %(ticks)s)
           or (started_at < tick.now() - make_interval(secs => %(idle_ticks)s) and finished_at is not null and error is null
               and claimed = 0 and materialised = 0 and reclaimed = 0)
        order by started_at limit %(most)s))

-- name: prune_skips
delete from tick.skips where (schedule, last_window, reason) in (
       select schedule, last_window, reason from tick.skips
        where recorded_at < tick.now() - make_interval(secs => %(ticks)s) order by recorded_at limit %(most)s)

-- name: prune_stats
-- The finer, the shorter: minutes for a day, ten minutes for a week and a day, hours for a year and a month.
delete from tick.stats where (span, at, type) in (
       select span, at, type from tick.stats
        where (span = 60 and at < tick.now() - interval '1 day') or (span = 600 and at < tick.now() - interval '8 days')
           or (span = 3600 and at < tick.now() - interval '400 days') limit %(most)s)

-- name: prune_alerts
delete from tick.alerts where ended_at < tick.now() - make_interval(secs => %(ticks)s)
