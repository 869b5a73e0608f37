-- Long work, done by workers. Any number of them share this table: a worker takes a job by a lease, which it renews while
-- the job runs; when a worker dies, its leases run out and other workers take its jobs over.
--
-- Two clocks. Leases follow the clock of this database (clock_timestamp()), which all workers share, so that a worker
-- whose own clock is wrong neither loses its jobs nor takes those of others. Everything else (run_after, created_at, …) is
-- given by who calls, so that time can be simulated.
create table job (
    tenant_id       integer     not null,

    -- A version 7 UUID: sorts by time of creation.
    job_id          uuid        not null,

    -- What is to be done: a word that the code knows, with its arguments. There is no check: a new release brings new
    -- words, and a worker takes only jobs whose word it knows.
    kind            text        not null,
    arguments       jsonb       not null default '{}',

    -- The panel that it is about, if it is about one.
    panel_id        integer,

    -- Who asked, for people: `rest`, `schedule nightly`.
    asked_by        text        not null,

    state           text        not null default 'waiting',

    -- Share of the work that is done, and what is being done.
    progress        real        not null default 0,
    activity        text        not null default '',

    -- A failed attempt is repeated later until there have been attempts_max.
    attempts        integer     not null default 0,
    attempts_max    integer     not null,

    -- Not to be begun before this instant.
    run_after       timestamptz not null,

    -- Who does it, by which lease, until when. A lease is new at each taking, so that a process whose job was taken over
    -- can change nothing any more: what it writes is written in one transaction with the end of the job, and only while
    -- its lease is the job's.
    worker          text,
    lease_id        uuid,
    lease_until     timestamptz,

    -- What came out, in words of its kind; why the last attempt failed.
    result          jsonb,
    failure         text,

    -- As in forecast.
    idempotency_key text,
    request_digest  text,

    created_at      timestamptz not null,
    started_at      timestamptz,
    finished_at     timestamptz,

    constraint job_pkey primary key (tenant_id, job_id),
    constraint job_tenant_fkey foreign key (tenant_id) references tenant,
    -- What was done stays on record without its panel.
    constraint job_panel_fkey foreign key (tenant_id, panel_id) references panel on delete set null (panel_id),
    constraint job_idempotency_key_key unique (tenant_id, idempotency_key),
    constraint job_kind_check check (kind <> ''),
    constraint job_asked_by_check check (asked_by <> ''),
    constraint job_state_check check (state in ('waiting', 'running', 'succeeded', 'failed', 'cancelled')),
    constraint job_progress_check check (progress >= 0 and progress <= 1),
    constraint job_attempts_check check (attempts >= 0 and attempts <= attempts_max and attempts_max >= 1),
    constraint job_lease_check check (
        (state = 'running') = (lease_id is not null)
        and (lease_id is null) = (lease_until is null)
        and (lease_id is null or worker is not null)
    ),
    constraint job_finished_check check ((state in ('succeeded', 'failed', 'cancelled')) = (finished_at is not null)),
    constraint job_idempotency_check check ((idempotency_key is null) = (request_digest is null)),
    constraint job_request_digest_check check (request_digest ~ '^[0-9a-f]{64}$')
);

-- What a worker looks through. Finished jobs, which are most, are not in it; renewing a lease does not change it.
create index job_open_idx on job (run_after, job_id) where state in ('waiting', 'running');

-- Lists by panel, by state, by kind, the newest first.
create index job_panel_idx on job (tenant_id, panel_id, job_id desc);
create index job_state_idx on job (tenant_id, state, kind, job_id desc);

-- What a job says while it runs, over all its attempts. The code bounds the number and the length of the lines.
create table job_log (
    tenant_id  integer     not null,
    job_id     uuid        not null,
    line_id    bigint      generated always as identity,

    -- 1 for the first attempt.
    attempt    integer     not null,
    written_at timestamptz not null,
    text       text        not null,

    constraint job_log_pkey primary key (tenant_id, job_id, line_id),
    constraint job_log_job_fkey foreign key (tenant_id, job_id) references job on delete cascade
);

-- Processes that do jobs, and when each was last seen. A worker that stops in order removes its row.
create table worker (
    -- Workers serve every tenant; this is the one of the installation.
    tenant_id  integer     not null,
    name       text        not null,
    started_at timestamptz not null,
    seen_at    timestamptz not null,

    constraint worker_pkey primary key (tenant_id, name),
    constraint worker_tenant_fkey foreign key (tenant_id) references tenant,
    constraint worker_name_check check (name <> '')
);
