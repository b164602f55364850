-- tick's tables. Applied by `tick migrate`, or by `psql -f`; running it again, or twice at once, changes nothing.

begin;

select pg_advisory_xact_lock(7236483109254801);
set local lock_timeout = '5s';

create schema if not exists tick;

create table if not exists tick.migrations (
    number      integer     primary key,
    name        text        not null,
    checksum    text,                   -- sha256 of the file; null when psql applied it: `tick migrate` fills it in
    applied_at  timestamptz not null default now()
);

-- The one clock. Everything that is due, late or expired is so by this function; a test moves time by replacing it.
do $$ begin
    if to_regprocedure('tick.now()') is null then
        create function tick.now() returns timestamptz language sql stable parallel safe as 'select pg_catalog.now()';
    end if;
end $$;

create table if not exists tick.jobs (
    id                  bigint      primary key generated always as identity,
    run_at              timestamptz not null default tick.now(),
    created_at          timestamptz not null default tick.now(),
    started_at          timestamptz,
    finished_at         timestamptz,
    lease_expires_at    timestamptz,
    cancel_requested_at timestamptz,
    "window"            timestamptz,
    tick_id             uuid,
    attempt             integer     not null default 0,     -- the fencing token: only ever grows
    failures            integer     not null default 0,
    losses              integer     not null default 0,
    cuts                integer     not null default 0,     -- times the tick's deadline ended it
    max_attempts        integer     check (max_attempts between 1 and 100),  -- null: what the handler says
    priority            smallint    not null default 0,
    status              text        not null default 'pending'
                        check (status in ('pending', 'running', 'done', 'dead', 'cancelled')),
    type                text        not null check (length(type) between 1 and 100),
    payload             jsonb       not null default '{}' check (jsonb_typeof(payload) = 'object'),
    timeout             interval    check (timeout > interval '0'),          -- null: what the handler says
    key                 text        check (octet_length(key) between 1 and 512),
    idempotency_key     text        check (octet_length(idempotency_key) between 1 and 512),
    schedule            text,
    last_error          text,
    errors              jsonb       not null default '[]' check (jsonb_typeof(errors) = 'array'),
    result              jsonb,

    constraint running_has_a_lease check ((status = 'running') = (lease_expires_at is not null)),
    constraint running_has_a_tick check (status <> 'running' or tick_id is not null),
    constraint finished_says_when check ((status in ('done', 'dead', 'cancelled')) = (finished_at is not null)),
    constraint runs_at_a_date check (run_at >= '2000-01-01' and run_at < '9999-01-01'),
    constraint counts_are_counts check (
        attempt between 0 and 1000000000 and failures between 0 and 1000000 and losses between 0 and 1000000
        and cuts between 0 and 1000000),
    constraint a_window_has_a_schedule check ("window" is null or schedule is not null)
) with (
    -- A queue turns over many times a day: vacuum by the thousand rows, not by the fifth of a long history.
    autovacuum_vacuum_scale_factor = 0.005,
    autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_cost_delay = 0,
    autovacuum_analyze_scale_factor = 0.02
);

create unique index if not exists jobs_one_per_window
    on tick.jobs (type, schedule, "window") where "window" is not null;
create unique index if not exists jobs_one_per_idempotency_key
    on tick.jobs (type, idempotency_key) where idempotency_key is not null;
create unique index if not exists jobs_one_running_per_key
    on tick.jobs (key) where status = 'running' and key is not null;

-- Live rows only, so that history costs the claim nothing.
create index if not exists jobs_due
    on tick.jobs (priority desc, run_at, id) where status = 'pending' and losses = 0;
create index if not exists jobs_suspect
    on tick.jobs (run_at, id) where status = 'pending' and losses > 0;
create index if not exists jobs_waiting_for_key
    on tick.jobs (key, priority desc, run_at, id) where status = 'pending' and key is not null;
create index if not exists jobs_live_of_schedule
    on tick.jobs (schedule) where status in ('pending', 'running') and schedule is not null;
-- The predicate is one that a settle does not imply: with `status = 'running'` the planner read every lease to
-- settle a batch by id, and the drain fell to less than half.
create index if not exists jobs_leases
    on tick.jobs (lease_expires_at) where lease_expires_at is not null;
create index if not exists jobs_told_to_cancel
    on tick.jobs (tick_id) where status = 'running' and cancel_requested_at is not null;
create index if not exists jobs_dead
    on tick.jobs (finished_at) where status = 'dead';

-- The priorities that pending jobs have, highest first, one index probe each: so a million jobs delayed at the top
-- priority are one step for a claim, and not a million.
create or replace view tick.pending_priorities as
    with recursive levels (priority) as (
        (select priority from tick.jobs where status = 'pending' and losses = 0 order by priority desc limit 1)
        union all
        select (select j.priority from tick.jobs j
                 where j.status = 'pending' and j.losses = 0 and j.priority < levels.priority
                 order by j.priority desc limit 1)
          from levels where levels.priority is not null
    )
    select priority from levels where priority is not null;

create table if not exists tick.ticks (
    id              uuid        primary key,
    trigger         text        not null,
    delivery_id     text,
    scheduled_for   timestamptz,
    schedules_file  text,
    started_at      timestamptz not null default tick.now(),
    finished_at     timestamptz,
    budget          float8      not null,   -- seconds
    used            float8,                 -- seconds
    materialised    integer     not null default 0,
    claimed         integer     not null default 0,
    done            integer     not null default 0,
    retried         integer     not null default 0,
    dead            integer     not null default 0,
    released        integer     not null default 0,
    reclaimed       integer     not null default 0,
    stale           integer     not null default 0,
    "left"          integer     not null default 0,
    error           text
);
create index if not exists ticks_by_start on tick.ticks (started_at);

create table if not exists tick.types (
    type        text        primary key,
    durations   bigint[]    not null,       -- runs per half-octave of seconds, the first up to 1 ms
    last_seen   timestamptz not null
);

create table if not exists tick.schedules (
    name        text        primary key,
    paused      boolean     not null default false
);

-- What a schedule's name has meant: cron or period, zone, type, bounds. Each meaning keeps its own cursor.
create table if not exists tick.definitions (
    schedule    text        not null references tick.schedules (name),
    hash        text        not null,
    first_seen  timestamptz not null,
    cursor      timestamptz not null,       -- the last window made or skipped, at least first_seen
    primary key (schedule, hash)
);

-- A schedules file by its content, so that it is parsed and synchronised once, and two deployments may differ.
create table if not exists tick.files (
    hash        text        primary key,
    last_seen   timestamptz not null
);

create table if not exists tick.entries (
    file        text        not null references tick.files (hash) on delete cascade,
    schedule    text        not null,
    definition  text        not null,
    body        jsonb       not null,
    next_window timestamptz,
    primary key (file, schedule),
    foreign key (schedule, definition) references tick.definitions (schedule, hash)
);
create index if not exists entries_by_next_window on tick.entries (file, next_window);

create table if not exists tick.skips (
    schedule     text        not null,
    first_window timestamptz not null,
    last_window  timestamptz not null,
    count        integer,                   -- null: more than ten thousand, not counted
    reason       text        not null check (reason in ('late', 'cap', 'overlap', 'paused', 'disabled')),
    tick_id      uuid        not null,
    recorded_at  timestamptz not null default tick.now(),
    primary key (schedule, last_window, reason)
);

insert into tick.migrations (number, name) values (1, '0001_init') on conflict do nothing;

commit;
