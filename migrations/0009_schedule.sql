-- Work that is to be done again and again. A schedule makes jobs; what it made is in job, by schedule_id.
create table schedule (
    tenant_id      integer     not null,
    schedule_id    integer     generated always as identity,

    -- What people call it, and its address in REST.
    name           text        not null,

    -- Five fields: minute, hour, day of the month, month, day of the week; by the clock of the zone (IANA name).
    cron           text        not null,
    time_zone      text        not null,

    -- What is to be done; as in job.
    kind           text        not null,
    arguments      jsonb       not null default '{}',
    panel_id       integer,

    -- What becomes of occasions that nobody was there for: 'skip' leaves them out, 'once' makes up for all of them with one
    -- job, 'all' makes a job for each, up to a limit of the code.
    catch_up       text        not null default 'once',

    -- Jobs are begun up to so many seconds after their occasion, so that not all begin at once.
    jitter_seconds integer     not null default 0,

    paused         boolean     not null default false,

    -- The next occasion; null for one that is paused, or has none any more.
    next_run       timestamptz,

    -- The newest occasion that a job was made for, and that job.
    last_run       timestamptz,
    last_job_id    uuid,

    -- When the schedule was last looked at, by the clock of who looked. When that lies in the future, a clock was wrong, and
    -- next_run is computed anew.
    looked_at      timestamptz not null,

    created_at     timestamptz not null,

    constraint schedule_pkey primary key (tenant_id, schedule_id),
    constraint schedule_tenant_fkey foreign key (tenant_id) references tenant,
    constraint schedule_panel_fkey foreign key (tenant_id, panel_id) references panel on delete cascade,
    constraint schedule_name_key unique (tenant_id, name),
    constraint schedule_name_check check (name <> ''),
    constraint schedule_cron_check check (cron <> ''),
    constraint schedule_time_zone_check check (time_zone <> ''),
    constraint schedule_kind_check check (kind <> ''),
    constraint schedule_catch_up_check check (catch_up in ('skip', 'once', 'all')),
    constraint schedule_jitter_seconds_check check (jitter_seconds >= 0),
    constraint schedule_paused_check check (not paused or next_run is null)
);

create index schedule_next_run_idx on schedule (next_run) where next_run is not null;

-- The occasion that a job was made for. The key is what makes one job of an occasion, however often it is looked at and
-- whatever clocks do.
alter table job
    add column schedule_id   integer,
    add column scheduled_for timestamptz,
    add constraint job_schedule_fkey
        foreign key (tenant_id, schedule_id) references schedule on delete set null (schedule_id),
    add constraint job_occasion_key unique (tenant_id, schedule_id, scheduled_for);

-- When a worker last looked after the schedules, with success.
alter table worker add column scheduled_at timestamptz;
