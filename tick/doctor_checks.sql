-- What the doctor asks. The first part is about the server, and reads no table of tick's: it answers before a migration.

-- name: server
-- What the server is and how it is set, for this role. The value to which a setting is reset is the session's own:
-- reads set others for themselves.
select current_setting('server_version') as version, current_setting('server_version_num')::integer as version_number,
       pg_encoding_to_char(d.encoding) as encoding, pg_is_in_recovery() as replica, age(d.datfrozenxid) as oldest_transaction,
       current_user as role, pg_has_role(current_user, 'pg_read_all_stats', 'usage') as sees_sessions,
       (select sum(numbackends) from pg_stat_database)::integer as connections,
       current_setting('max_connections')::integer - current_setting('superuser_reserved_connections')::integer as most_connections,
       extract(epoch from clock_timestamp())::float8 as clock,
       (select jsonb_object_agg(name, reset_val) from pg_settings
         where name in ('default_transaction_isolation', 'default_transaction_read_only', 'statement_timeout',
                        'idle_session_timeout', 'session_replication_role', 'synchronous_commit', 'fsync', 'autovacuum',
                        'track_counts')) as settings,
       coalesce(has_schema_privilege(to_regnamespace('cron')::oid, 'usage')
                and has_table_privilege(to_regclass('cron.job')::oid, 'select'), false) as has_pg_cron
  from pg_database d where d.datname = current_database()

-- name: sessions
-- Transactions that have been open for so many seconds, and of which vacuum has to keep what they may still see. Its own
-- workers are no finding: nobody should end them.
select pid, usename as role, application_name as application, state, left(query, 60) as query,
       extract(epoch from clock_timestamp() - xact_start)::float8 as seconds
  from pg_stat_activity
 where datname = current_database() and pid <> pg_backend_pid() and (backend_xmin is not null or backend_xid is not null)
   and backend_type <> 'autovacuum worker' and xact_start < clock_timestamp() - make_interval(secs => %(seconds)s)
 order by xact_start limit 10

-- name: idle_locks
-- Sessions that wait for their client within a transaction, and hold locks on tables of this schema.
select a.pid, a.usename as role, a.application_name as application, left(a.query, 60) as query,
       extract(epoch from clock_timestamp() - a.state_change)::float8 as seconds,
       string_agg(distinct c.relname, ', ') as tables
  from pg_stat_activity a
  join pg_locks l on l.pid = a.pid and l.granted and l.locktype = 'relation'
  join pg_class c on c.oid = l.relation and c.relkind = 'r'
 where a.datname = current_database() and l.database = (select oid from pg_database where datname = current_database())
   and c.relnamespace = to_regnamespace(quote_ident(%(schema)s))::oid and a.state like 'idle in transaction%%'
   and a.state_change < clock_timestamp() - make_interval(secs => %(seconds)s)
 group by a.pid, a.usename, a.application_name, a.query, a.state_change order by a.state_change limit 10

-- name: slots
-- Replication slots that nobody reads, and those that lag behind by ten million transactions.
select slot_name as name, active, greatest(age(xmin), age(catalog_xmin)) as transactions,
       case when not pg_is_in_recovery() then pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::bigint end as bytes
  from pg_replication_slots
 where (database is null or database = current_database())
   and ((not active and restart_lsn is not null) or greatest(age(xmin), age(catalog_xmin)) > 10000000)
 order by slot_name limit 10

-- name: prepared
select gid, owner as role, extract(epoch from clock_timestamp() - prepared)::float8 as seconds
  from pg_prepared_xacts
 where database = current_database() and prepared < clock_timestamp() - make_interval(secs => %(seconds)s)
 order by prepared limit 10

-- name: rights
-- What this role may not do with the tables of the schema; the one of migrations it only has to read.
select c.relname as "table", string_agg(needed, ', ') as missing
  from pg_class c cross join unnest(array['select', 'insert', 'update', 'delete']) as needed
 where c.relnamespace = to_regnamespace(quote_ident(%(schema)s))::oid and c.relkind = 'r'
   and (c.relname <> 'migrations' or needed = 'select')
   and not (has_schema_privilege(c.relnamespace, 'usage') and has_table_privilege(c.oid, needed))
 group by c.relname order by c.relname

-- name: objects
-- Everything that migrations make in a schema, each with its definition. tick.now() is left out, which tests replace.
select 'column' as kind, format('%%s.%%s', c.relname, a.attname) as name,
       concat_ws(' ', format_type(a.atttypid, a.atttypmod), case when a.attnotnull then 'not null' end,
                 nullif(a.attidentity, ''), pg_get_expr(d.adbin, d.adrelid)) as definition
  from pg_attribute a join pg_class c on c.oid = a.attrelid and c.relkind = 'r'
  left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
 where c.relnamespace = to_regnamespace(quote_ident(%(schema)s))::oid and a.attnum > 0 and not a.attisdropped
union all
select 'constraint', format('%%s.%%s', c.relname, k.conname), pg_get_constraintdef(k.oid)
  from pg_constraint k join pg_class c on c.oid = k.conrelid
 where k.connamespace = to_regnamespace(quote_ident(%(schema)s))::oid and k.contype in ('c', 'f', 'p', 'u', 'x')
union all
select 'index', c.relname, pg_get_indexdef(c.oid)
  from pg_class c where c.relnamespace = to_regnamespace(quote_ident(%(schema)s))::oid and c.relkind = 'i'
union all
select 'trigger', format('%%s.%%s', c.relname, t.tgname), pg_get_triggerdef(t.oid)
  from pg_trigger t join pg_class c on c.oid = t.tgrelid
 where c.relnamespace = to_regnamespace(quote_ident(%(schema)s))::oid and not t.tgisinternal
union all
select 'view', c.relname, pg_get_viewdef(c.oid)
  from pg_class c where c.relnamespace = to_regnamespace(quote_ident(%(schema)s))::oid and c.relkind = 'v'
union all
select 'function', format('%%s(%%s)', p.proname, pg_get_function_identity_arguments(p.oid)), pg_get_functiondef(p.oid)
  from pg_proc p
 where p.pronamespace = to_regnamespace(quote_ident(%(schema)s))::oid and p.prokind = 'f' and p.proname <> 'now'

-- name: broken
-- Indexes that are not valid, and triggers that do not fire.
select 'index' as kind, i.relname as name, t.relname as "table"
  from pg_index x join pg_class i on i.oid = x.indexrelid join pg_class t on t.oid = x.indrelid
 where i.relnamespace = to_regnamespace(quote_ident(%(schema)s))::oid and not (x.indisvalid and x.indisready)
union all
select 'trigger', g.tgname, t.relname
  from pg_trigger g join pg_class t on t.oid = g.tgrelid
 where t.relnamespace = to_regnamespace(quote_ident(%(schema)s))::oid and not g.tgisinternal and g.tgenabled in ('D', 'R')
 order by 1, 2

-- name: tables
-- How the tables of the schema are kept, by what the statistics of the server say.
select s.relname as name, s.n_live_tup as live, s.n_dead_tup as dead, pg_relation_size(s.relid) as bytes,
       coalesce(s.last_autovacuum, s.last_vacuum) as vacuumed, coalesce(s.last_autoanalyze, s.last_analyze) as analyzed,
       coalesce(exists (select from unnest(c.reloptions) as option where option = 'autovacuum_enabled=false'
                                                                   or option = 'autovacuum_enabled=off'), false) as left_alone
  from pg_stat_user_tables s join pg_class c on c.oid = s.relid
 where s.schemaname = %(schema)s order by s.relname

-- name: pg_cron_calls
-- Jobs of pg_cron that call /tick by pg_net, wait for it, and leave the time limit at its five seconds.
select jobid as id, schedule from cron.job
 where active and command like '%%net.http_%%' and command ~ '/tick\M' and command !~* 'timeout_milliseconds'
   and command !~ 'wait=(0|false|no)' order by jobid limit 10

-- name: clock
-- By how many seconds tick's clock is ahead of Postgres's own.
select extract(epoch from tick.now() - pg_catalog.now())::float8 as ahead, tick.now() as now

-- name: types
-- How long the types that were seen last take.
select type, durations from tick.types order by last_seen desc limit 1000

-- name: too_long
-- Among ten thousand due jobs, those whose time-out is longer than so many seconds. `offset 0` keeps the condition out
-- of the look-up by id: the planner would read the whole table for it.
select type, count(*)::integer as count, max(extract(epoch from timeout))::float8 as seconds, min(id) as id
  from (select id as due from tick.due_jobs limit 10000) due
 cross join lateral (select j.id, j.type, j.timeout from tick.jobs j where j.id = due offset 0) j
 where timeout > make_interval(secs => %(seconds)s) group by type order by type limit 20

-- name: expired
-- Leases that ran out so many seconds ago: how many, up to a thousand, and since when the first.
select count(*)::integer as count, extract(epoch from tick.now() - min(lease_expires_at))::float8 as seconds
  from (select lease_expires_at from tick.jobs
         where lease_expires_at < tick.now() - make_interval(secs => %(seconds)s) limit 1000) expired

-- name: overlap_skips
-- Windows of the last week that were skipped because a job of the schedule was still there.
select schedule, sum(coalesce(count, 10000))::integer as count, max(last_window) as last_window
  from (select schedule, count, last_window from tick.skips
         where reason = 'overlap' and recorded_at > tick.now() - interval '7 days' limit 10000) skipped
 group by schedule order by count desc, schedule limit 20

-- name: overdue_chores
-- Chores that were due a day before the last tick, and still are.
select name, extract(epoch from (select max(started_at) from tick.ticks) - due_at)::float8 as seconds
  from tick.chores where due_at < (select max(started_at) from tick.ticks) - interval '1 day' order by name

-- name: paused
-- Schedules that have been paused for over a week.
select name, extract(epoch from tick.now() - paused_at)::float8 as seconds, paused_by
  from tick.schedules where paused and paused_at < tick.now() - interval '7 days' order by name limit 20
