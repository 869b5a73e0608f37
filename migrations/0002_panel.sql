-- A group of series on one regular time grid, modelled jointly.
create table panel (
    tenant_id         integer     not null,
    panel_id          integer     generated always as identity,
    name              text        not null,

    -- The canonical word ('1h', '15min', '1mo'). It never changes: all that is stored of a panel lies on its grid.
    frequency         text        not null,

    -- IANA name. Days, weeks and months begin by this clock, and the calendar features follow it.
    time_zone         text        not null,

    -- How long after the end of its interval a value is usually known. Used where a source does not say.
    publication_delay interval    not null default '0',

    created_at        timestamptz not null default now(),

    constraint panel_pkey primary key (tenant_id, panel_id),
    constraint panel_tenant_fkey foreign key (tenant_id) references tenant,
    constraint panel_name_key unique (tenant_id, name),
    constraint panel_name_check check (name <> ''),
    constraint panel_frequency_check check (frequency <> ''),
    constraint panel_time_zone_check check (time_zone <> ''),
    constraint panel_publication_delay_check check (publication_delay >= '0')
);

-- One measured quantity.
create table series (
    tenant_id   integer          not null,
    series_id   integer          generated always as identity,
    panel_id    integer          not null,
    name        text             not null,

    -- 'target' is forecast; the future of a 'known' covariate is supplied; that of a 'past' covariate is not.
    role        text             not null default 'target',

    -- What a value means over its interval: it decides whether totals over time are sums or averages.
    kind        text             not null default 'mean',

    unit        text,

    -- The range that values can have by nature. Trajectories keep to it.
    lower_bound double precision,
    upper_bound double precision,
    is_integer  boolean          not null default false,
    created_at  timestamptz      not null default now(),

    constraint series_pkey primary key (tenant_id, series_id),
    constraint series_panel_fkey foreign key (tenant_id, panel_id) references panel,
    constraint series_name_key unique (tenant_id, panel_id, name),
    -- For the foreign key of panel_version_series, which keeps every version within its panel.
    constraint series_panel_key unique (tenant_id, panel_id, series_id),
    constraint series_name_check check (name <> ''),
    constraint series_role_check check (role in ('target', 'known', 'past')),
    constraint series_kind_check check (kind in ('mean', 'sum', 'point')),
    -- In Postgres NaN is above infinity, so this also refuses NaN. An open side is null.
    constraint series_bounds_check check (
        lower_bound > '-infinity' and lower_bound < 'infinity'
        and upper_bound > '-infinity' and upper_bound < 'infinity'
        and lower_bound < upper_bound
    )
);

-- The frozen, ordered list of series that a model, a forecast and its trajectories refer to. A panel that gains a
-- series gets a new version; what was made with an older one keeps its meaning.
create table panel_version (
    tenant_id        integer     not null,
    panel_version_id integer     generated always as identity,
    panel_id         integer     not null,
    version          integer     not null,
    created_at       timestamptz not null default now(),

    constraint panel_version_pkey primary key (tenant_id, panel_version_id),
    constraint panel_version_panel_fkey foreign key (tenant_id, panel_id) references panel,
    constraint panel_version_version_key unique (tenant_id, panel_id, version),
    -- For the foreign keys that carry the panel along.
    constraint panel_version_panel_key unique (tenant_id, panel_id, panel_version_id),
    constraint panel_version_version_check check (version >= 1)
);

create table panel_version_series (
    tenant_id        integer not null,
    panel_version_id integer not null,

    -- 1, 2, …: the place of the series in grids, batches and trajectories of this version.
    position         integer not null,

    panel_id         integer not null,
    series_id        integer not null,

    constraint panel_version_series_pkey primary key (tenant_id, panel_version_id, position),
    constraint panel_version_series_version_fkey
        foreign key (tenant_id, panel_id, panel_version_id)
        references panel_version (tenant_id, panel_id, panel_version_id),
    constraint panel_version_series_series_fkey
        foreign key (tenant_id, panel_id, series_id) references series (tenant_id, panel_id, series_id),
    constraint panel_version_series_series_key unique (tenant_id, panel_version_id, series_id),
    constraint panel_version_series_position_check check (position >= 1)
);
