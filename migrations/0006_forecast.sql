-- One forecast of a panel: what was asked, by which model, from what was known when. The numbers are in forecast_value
-- and trajectory; all three are written in one transaction.
create table forecast (
    tenant_id        integer            not null,

    -- A version 7 UUID, made by whoever asks: it is known before the row is written, and sorts by time of creation.
    forecast_id      uuid               not null,

    panel_version_id integer            not null,
    model_id         integer            not null,

    -- Only what was known at this instant was used.
    issue_time       timestamptz        not null,

    -- available_at of the newest observation that was used; how fresh the forecast really is.
    data_cutoff      timestamptz        not null,

    -- Steps first_step .. horizon are stored. Step 1 is the first interval that starts at or after issue_time; steps
    -- 0, -1, … are intervals before it whose values were not known yet.
    first_step       integer            not null,
    horizon          integer            not null,

    -- valid_time of the first and of the last step. They bound what has to be read in forecast_value.
    first_valid_time timestamptz        not null,
    last_valid_time  timestamptz        not null,

    -- Together with the model's digest, these reproduce the trajectories.
    num_samples      integer            not null,
    seed             bigint             not null,
    schedule         text               not null,
    passes           integer            not null,

    -- The quantile levels of forecast_value.quantiles, in the same order.
    quantile_levels  double precision[] not null,

    -- The request as it was understood, defaults filled in.
    params           jsonb              not null default '{}',

    status           text               not null default 'succeeded',

    -- 'degraded': made from incomplete or late data. 'fallback': made by a baseline, the model could not be used.
    quality          text               not null default 'ok',

    -- The Idempotency-Key of the request that made it, and the SHA-256 of that request's body in hexadecimal: the same
    -- key and body get this forecast again; the same key with another body is a mistake of the client.
    idempotency_key  text,
    request_digest   text,

    created_at       timestamptz        not null default now(),

    constraint forecast_pkey primary key (tenant_id, forecast_id),
    constraint forecast_panel_version_fkey foreign key (tenant_id, panel_version_id) references panel_version,
    constraint forecast_model_fkey
        foreign key (tenant_id, panel_version_id, model_id)
        references model (tenant_id, panel_version_id, model_id),
    constraint forecast_idempotency_key_key unique (tenant_id, idempotency_key),
    constraint forecast_steps_check check (first_step <= 1 and horizon >= 1),
    constraint forecast_valid_time_check check (first_valid_time <= last_valid_time),
    constraint forecast_data_cutoff_check check (data_cutoff <= issue_time),
    constraint forecast_num_samples_check check (num_samples >= 1),
    constraint forecast_seed_check check (seed >= 0),
    constraint forecast_passes_check check (passes >= 1),
    constraint forecast_quantile_levels_check check (0 < all (quantile_levels) and 1 > all (quantile_levels)),
    constraint forecast_status_check check (status in ('pending', 'running', 'succeeded', 'failed', 'cancelled')),
    constraint forecast_quality_check check (quality in ('ok', 'degraded', 'fallback')),
    constraint forecast_idempotency_check check ((idempotency_key is null) = (request_digest is null)),
    constraint forecast_request_digest_check check (request_digest ~ '^[0-9a-f]{64}$')
);

-- The latest forecast of a panel version, and forecasts by issue time.
create index forecast_issue_time_idx on forecast (tenant_id, panel_version_id, issue_time desc);

-- Quantiles and mean of one series at one step.
--
-- One row per step with an array, instead of one row per level: nine to nineteen times fewer rows, and the levels are
-- stored once. The view forecast_quantile unfolds them.
create table forecast_value (
    tenant_id    integer            not null,
    forecast_id  uuid               not null,
    series_id    integer            not null,
    valid_time   timestamptz        not null,

    -- Repeated from forecast, so that "the latest forecast of this hour made at least a day ahead" reads one index.
    issue_time   timestamptz        not null,

    step         integer            not null,

    -- valid_time - issue_time: negative for nowcast steps.
    lead_seconds bigint             not null,

    mean         double precision   not null,

    -- Aligned with forecast.quantile_levels.
    quantiles    double precision[] not null,

    constraint forecast_value_pkey primary key (tenant_id, forecast_id, series_id, valid_time),
    constraint forecast_value_forecast_fkey
        foreign key (tenant_id, forecast_id) references forecast on delete cascade,
    constraint forecast_value_series_fkey foreign key (tenant_id, series_id) references series,
    constraint forecast_value_mean_check check (mean > '-infinity' and mean < 'infinity'),
    constraint forecast_value_lead_seconds_check
        check (lead_seconds = floor(extract(epoch from valid_time - issue_time)))
) partition by range (valid_time);

create table forecast_value_default partition of forecast_value default;

create index forecast_value_latest_idx on forecast_value (tenant_id, series_id, valid_time, issue_time desc);

-- The sampled futures of one series: value[sample][step], both counted from 1, the first step being forecast.first_step.
--
-- Sample k is the same draw in every series of a forecast: adding value[k][…] of two series gives a draw of their sum.
-- Single precision halves the size; its relative error of 6e-8 is far below the sampling error of any number of
-- trajectories that can be stored.
create table trajectory (
    tenant_id   integer     not null,
    forecast_id uuid        not null,
    series_id   integer     not null,
    issue_time  timestamptz not null,
    value       real[]      not null,

    constraint trajectory_pkey primary key (tenant_id, forecast_id, series_id, issue_time),
    constraint trajectory_forecast_fkey
        foreign key (tenant_id, forecast_id) references forecast on delete cascade,
    constraint trajectory_series_fkey foreign key (tenant_id, series_id) references series,
    constraint trajectory_value_check check (coalesce(array_ndims(value), 0) = 2)
) partition by range (issue_time);

-- Random digits do not compress: trying costs time at every write.
alter table trajectory alter column value set storage external;

create table trajectory_default partition of trajectory default;

-- One row per quantile, for people and for tools that cannot read arrays.
create view forecast_quantile as
select
    v.tenant_id, v.forecast_id, v.series_id, v.valid_time, v.issue_time, v.step, v.lead_seconds,
    q.quantile_level, q.value
from forecast_value v
join forecast f on f.tenant_id = v.tenant_id and f.forecast_id = v.forecast_id
cross join lateral unnest(f.quantile_levels, v.quantiles) as q (quantile_level, value);
