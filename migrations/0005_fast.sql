-- What keeps a tick quick: plans that do not depend on statistics, and locks that stay within one schema.

begin;

select pg_advisory_xact_lock(7236483109254801);
set local lock_timeout = '5s';

-- Each in the order of its index, which is asked for although it is only counted: with statistics from before a burst, or
-- with none, the planner would read the whole table to find ten thousand of them.
create or replace view tick.due_jobs as
    select due.id from tick.free_priorities level cross join lateral (
           select id from tick.jobs where status = 'pending' and losses = 0 and waits_for is null and lane is null
              and priority = level.priority and run_at <= tick.now() order by run_at, id limit 10001) due
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

insert into tick.migrations (number, name) values (5, '0005_fast') on conflict do nothing;

commit;
