-- Why a schedule did, or did not, run at an instant: what there is to know, in two round trips.

-- name: known
-- What a schedule's name has meant in the files that ticked lately, the latest first; one row without a file where only
-- its name is remembered. `current` is what the file says that last ticked.
select tick.now() as now, s.name, s.paused, s.paused_at, s.paused_by, said.*
  from tick.schedules s
  left join lateral (
       select f.hash as file, f.last_seen, f.place = 1 as current, e.body, e.next_window, d.first_seen, d.cursor
         from (select hash, last_seen, row_number() over (order by last_seen desc, hash) as place
                 from tick.files order by last_seen desc, hash limit 50) f
         join tick.entries e on e.file = f.hash and e.schedule = s.name
         join tick.definitions d on d.schedule = e.schedule and d.hash = e.definition
        order by f.place) said on true
 where s.name = %(schedule)s
 order by said.last_seen desc nulls last, said.file

-- name: names
-- The first thousand names, for a hint at what was meant.
select name from tick.schedules order by name limit 1000

-- name: made
-- The jobs of a schedule's windows, of whichever type they were, with the tick that last ran each.
select j.id, j.type, j.status, j."window", j.created_at, j.run_at, j.started_at, j.finished_at, j.attempt, j.failures,
       j.waits_for, j.lane, left(j.last_error, 300) as last_error, t.trigger
  from unnest(%(types)s::text[]) as given (type)
  join tick.jobs j on j.type = given.type and j.schedule = %(schedule)s and j."window" = any(%(windows)s::timestamptz[])
  left join tick.ticks t on t.id = j.tick_id
 order by j."window", j.id limit 10

-- name: skipped
-- What says that a window was not made.
select s.first_window, s.last_window, s.count, s.reason, s.recorded_at, t.trigger
  from tick.skips s left join tick.ticks t on t.id = s.tick_id
 where s.schedule = %(schedule)s and %(window)s::timestamptz between s.first_window and s.last_window
 order by s.recorded_at limit 5

-- name: around
-- The last tick before an instant, the first since, and the last of all; `side` says which.
(select 'before' as side, started_at, trigger, error, schedules_file from tick.ticks
  where started_at < %(at)s order by started_at desc limit 1)
union all
(select 'after', started_at, trigger, error, schedules_file from tick.ticks
  where started_at >= %(at)s order by started_at limit 1)
union all
(select 'last', started_at, trigger, error, schedules_file from tick.ticks order by started_at desc limit 1)
