-- A declared way from a source to a panel, and what came of each load, declared or not.
create table pipeline (
    tenant_id   integer     not null,
    pipeline_id integer     generated always as identity,
    name        text        not null,

    -- The declaration: the keys of ingest/README.md. For one that stands in a file, the file's at its last run.
    declaration jsonb       not null,

    -- 'file': it stands in a file, which is what counts. 'rest': it stands here, and reads from the folder of sources only.
    declared_by text        not null,

    -- What has been read, by file: so a run reads only what is new. It changes in the transaction that stores what was
    -- read, so that a killed run has changed neither.
    watermark   jsonb       not null default '{}',

    created_at  timestamptz not null default now(),

    constraint pipeline_pkey primary key (tenant_id, pipeline_id),
    constraint pipeline_tenant_fkey foreign key (tenant_id) references tenant,
    constraint pipeline_name_key unique (tenant_id, name),
    constraint pipeline_name_check check (name <> ''),
    constraint pipeline_declared_by_check check (declared_by in ('file', 'rest'))
);

-- One file, body or run of a pipeline, and its report. Loads that stored nothing new are kept too: that nothing was new
-- is worth knowing. A run that found no file to read makes no row.
create table load (
    tenant_id     integer     not null,

    -- A version 7 UUID: sorts by time.
    load_id       uuid        not null,

    -- As it was asked for: a load that fails may be of a panel that does not exist.
    panel         text        not null,
    pipeline_id   integer,

    -- The file, the pattern, or 'push'.
    source        text        not null,
    status        text        not null,

    -- Why it failed.
    failure       text,

    -- What became of the values, as in api/src/db/observation.rs; of a failed load nothing was stored.
    n_inserted    bigint      not null default 0,
    n_corrected   bigint      not null default 0,
    n_unchanged   bigint      not null default 0,
    n_rejected    bigint      not null default 0,

    -- Reasons with examples by line, and findings; the words of ingest/README.md. Null when nothing could be read.
    report        jsonb,

    -- Parquet file with the rows that were not taken, in the data folder of the process that loaded.
    quarantine    text,
    started_at    timestamptz not null,
    finished_at   timestamptz not null default clock_timestamp(),

    constraint load_pkey primary key (tenant_id, load_id),
    constraint load_tenant_fkey foreign key (tenant_id) references tenant,
    constraint load_pipeline_fkey foreign key (tenant_id, pipeline_id) references pipeline,
    constraint load_status_check check (status in ('succeeded', 'failed')),
    constraint load_failure_check check ((status = 'failed') = (failure is not null))
);

create index load_panel_idx on load (tenant_id, panel, load_id desc);
create index load_pipeline_idx on load (tenant_id, pipeline_id, load_id desc);
