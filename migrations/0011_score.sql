-- Scores of stored forecasts against what came, and alarms that follow from them.

-- The score of one value of a forecast: one series at one step. It is computed once the value is known, and again when the
-- value is corrected. Scores are derived: deleting them loses nothing that could not be computed from the trajectories.
create table score (
    tenant_id            integer            not null,
    panel_id             integer            not null,
    series_id            integer            not null,

    -- Step of the forecast, from 1: how far ahead it was made.
    step                 integer            not null,

    valid_time           timestamptz        not null,
    forecast_id          uuid               not null,
    model_id             integer            not null,
    issue_time           timestamptz        not null,

    -- What came, as known when this was scored.
    value                double precision   not null,

    -- Mean over the levels 0.05, 0.10 … 0.95 of twice the pinball loss, in the unit of the series: summed and divided by
    -- the summed magnitude of the values, it is the CRPS of a backtest.
    crps                 double precision   not null,

    -- Pinball loss of each stored quantile, aligned with forecast.quantile_levels.
    pinball              double precision[] not null,

    -- Of the median, and of the value one season earlier as known at the issue time; null where that is not known.
    absolute_error       double precision   not null,
    naive_absolute_error double precision,

    -- Whether the value lies inside the central intervals.
    inside_50            boolean            not null,
    inside_80            boolean            not null,
    inside_90            boolean            not null,

    -- Probability integral transform: the share of the trajectories below the value, those that equal it counting half.
    pit                  double precision   not null,

    scored_at            timestamptz        not null,

    constraint score_pkey primary key (tenant_id, panel_id, series_id, step, valid_time, forecast_id),
    constraint score_series_fkey foreign key (tenant_id, panel_id, series_id)
        references series (tenant_id, panel_id, series_id),
    constraint score_forecast_fkey foreign key (tenant_id, forecast_id) references forecast on delete cascade,
    constraint score_model_fkey foreign key (tenant_id, model_id) references model (tenant_id, model_id),
    constraint score_step_check check (step >= 1),
    constraint score_crps_check check (crps >= 0 and crps < 'infinity'),
    constraint score_pit_check check (pit >= 0 and pit <= 1)
) partition by range (valid_time);

create table score_default partition of score default;

-- Scores of a period, and those of one forecast.
create index score_valid_time_idx on score (tenant_id, panel_id, valid_time);
create index score_forecast_idx on score (tenant_id, forecast_id);

-- The score of a whole forecast, once all its values from step 1 on are known.
create table forecast_score (
    tenant_id    integer          not null,
    forecast_id  uuid             not null,
    panel_id     integer          not null,
    model_id     integer          not null,
    issue_time   timestamptz      not null,
    last_valid_time timestamptz   not null,

    -- Number of values.
    n_values     integer          not null,

    -- CRPS and coverage over all of them, as a backtest has them for one window.
    crps         double precision,
    coverage_80  double precision not null,

    -- Energy score of the trajectories, each series divided by its mean magnitude over as many steps before the issue time
    -- as the forecast has after it, as known then (1 where nothing was).
    energy_score double precision not null,

    scored_at    timestamptz      not null,

    constraint forecast_score_pkey primary key (tenant_id, forecast_id),
    constraint forecast_score_forecast_fkey
        foreign key (tenant_id, forecast_id) references forecast on delete cascade,
    constraint forecast_score_model_fkey foreign key (tenant_id, model_id) references model (tenant_id, model_id)
);

create index forecast_score_issue_time_idx on forecast_score (tenant_id, panel_id, model_id, issue_time);

-- An alarm: scores of a model are worse than its backtest says, beyond chance.
create table drift_event (
    tenant_id       integer          not null,
    drift_event_id  integer          generated always as identity,
    panel_id        integer          not null,
    model_id        integer          not null,

    -- Which of the scores: 'crps-high', 'coverage-low' or 'coverage-high'.
    kind            text             not null,

    -- The forecast at which the alarm was raised, and when that was noticed.
    issue_time      timestamptz      not null,
    raised_at       timestamptz      not null,

    -- The statistic of the test and the threshold that it passed; between two false alarms lie at least as many forecasts
    -- as the threshold says, on average.
    statistic       double precision not null,
    threshold       double precision not null,

    -- Mean of the score that the backtest lets expect, with its allowance, and the mean of the last forecasts.
    expected        double precision not null,
    observed        double precision not null,
    n_forecasts     integer          not null,

    message         text             not null,

    constraint drift_event_pkey primary key (tenant_id, drift_event_id),
    constraint drift_event_model_fkey
        foreign key (tenant_id, model_id) references model (tenant_id, model_id) on delete cascade,
    -- Noticing the same alarm twice makes one row.
    constraint drift_event_issue_time_key unique (tenant_id, model_id, issue_time),
    constraint drift_event_kind_check check (kind in ('crps-high', 'coverage-low', 'coverage-high'))
);

create index drift_event_panel_idx on drift_event (tenant_id, panel_id, drift_event_id desc);
