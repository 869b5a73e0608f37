-- A trained model of one panel version. The weights lie in the object store; this row says where, what they must hash
-- to, and exactly which data they come from.
create table model (
    tenant_id        integer     not null,
    model_id         integer     generated always as identity,
    panel_id         integer     not null,
    panel_version_id integer     not null,

    -- 1, 2, … within the panel: what people call it.
    version          integer     not null,

    -- 'champion' serves; a 'candidate' has not (yet) beaten it; an 'archived' model can be brought back.
    stage            text        not null default 'candidate',

    -- The training configuration as it ran, seed included, so that a run can be repeated.
    config           jsonb       not null,

    -- Scores on validation windows.
    metrics          jsonb       not null default '{}',

    -- SHA-256 of the checkpoint, in hexadecimal. It is compared when the model is loaded.
    digest           text        not null,

    -- SHA-256 of the snapshot that it was trained on, in hexadecimal.
    snapshot_digest  text        not null,

    -- Folder of the checkpoint, relative to the object store.
    artefact_path    text        not null,

    -- Nothing that became known after this instant was seen in training. A backtest that starts before it would flatter.
    data_cutoff      timestamptz not null,

    created_at       timestamptz not null default now(),

    constraint model_pkey primary key (tenant_id, model_id),
    constraint model_panel_version_fkey
        foreign key (tenant_id, panel_id, panel_version_id)
        references panel_version (tenant_id, panel_id, panel_version_id),
    constraint model_version_key unique (tenant_id, panel_id, version),
    -- For the foreign key of forecast: a forecast refers to the panel version of its model.
    constraint model_panel_version_key unique (tenant_id, panel_version_id, model_id),
    constraint model_version_check check (version >= 1),
    constraint model_stage_check check (stage in ('champion', 'candidate', 'archived')),
    constraint model_digest_check check (digest ~ '^[0-9a-f]{64}$'),
    constraint model_snapshot_digest_check check (snapshot_digest ~ '^[0-9a-f]{64}$'),
    constraint model_artefact_path_check check (artefact_path <> '')
);

-- One champion per panel. Promotion demotes the old one first, in the same transaction.
create unique index model_champion_key on model (tenant_id, panel_id) where stage = 'champion';
