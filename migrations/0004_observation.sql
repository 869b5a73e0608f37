-- One value of a series at one instant, known since another: the table is bitemporal, and rows are only ever added.
--
-- What was known at an issue_time is, per series and valid_time, the row with the latest available_at that is not after
-- it. A correction is a new row, so a backtest still sees what a forecast could have seen. The rules by which a load
-- decides whether a value is new, a correction or nothing new stand in api/src/db/observation.sql.
create table observation (
    tenant_id    integer          not null,
    series_id    integer          not null,

    -- The instant that the value refers to: the start of its interval.
    valid_time   timestamptz      not null,

    -- The instant at which the value became known.
    available_at timestamptz      not null,

    -- Double precision holds every integer up to 2^53; what exceeds it is refused when a file is read.
    value        double precision not null,

    -- Standard deviation of the measurement, where the source states one.
    sd           double precision,

    -- True where the source did not say when the value became known, and available_at is the end of the interval plus
    -- the panel's publication delay.
    assumed      boolean          not null default false,

    constraint observation_pkey primary key (tenant_id, series_id, valid_time, available_at),
    constraint observation_series_fkey foreign key (tenant_id, series_id) references series,

    -- A missing value has no row. NaN is above infinity in Postgres, so this refuses it too.
    constraint observation_value_check check (value > '-infinity' and value < 'infinity'),
    constraint observation_sd_check check (sd >= 0 and sd < 'infinity'),
    constraint observation_valid_time_check check (isfinite(valid_time)),
    constraint observation_available_at_check check (isfinite(available_at))
) partition by range (valid_time);

-- A year of 1000 hourly series is about 9 million rows: large enough to keep the number of partitions small when a
-- history is long, small enough to detach and archive.
create table observation_default partition of observation default;

-- The latest known value of each series and valid_time. The restrictions of a query on these three columns reach the
-- index below.
create view observation_latest as
select distinct on (tenant_id, series_id, valid_time)
    tenant_id, series_id, valid_time, value, sd, available_at, assumed
from observation
order by tenant_id, series_id, valid_time, available_at desc;

-- What was known at an issue_time of the series of one panel version, by position and time. Restrict valid_time in the
-- query that uses it: the function is inlined, so only the partitions of that range are read.
create function observation_as_of(tenant_id integer, panel_version_id integer, issue_time timestamptz)
returns table (
    "position" integer, series_id integer, valid_time timestamptz,
    value double precision, sd double precision, available_at timestamptz, assumed boolean
)
language sql
stable
as $$
    select distinct on (s.position, o.valid_time)
        s.position, o.series_id, o.valid_time, o.value, o.sd, o.available_at, o.assumed
    from panel_version_series s
    join observation o on o.tenant_id = s.tenant_id and o.series_id = s.series_id
    where s.tenant_id = $1 and s.panel_version_id = $2 and o.available_at <= $3
    order by s.position, o.valid_time, o.available_at desc
$$;
