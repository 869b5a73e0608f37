-- Backtests of registered models: forecasts of past windows, each from what was known at its issue time, scored by what came.
create table backtest (
    tenant_id          integer            not null,

    -- A version 7 UUID: that of the job that made it, if one did.
    backtest_id        uuid               not null,

    panel_id           integer            not null,
    model_id           integer            not null,
    made_at            timestamptz        not null,

    -- Nothing that became known later was used, neither as input nor as truth.
    as_of              timestamptz        not null,

    horizon            integer            not null,
    num_samples        integer            not null,
    -- Of the first window; each has the next one.
    seed               bigint             not null,

    -- An element for each window. A window is fair when the model had learned from nothing that came after its issue time.
    issue_times        timestamptz[]      not null,
    is_fair            boolean[]          not null,

    -- CRPS and coverage of the model and of seasonal naive; null where nothing was known to forecast from, or nothing came.
    crps               double precision[] not null,
    coverage_80        double precision[] not null,
    naive_crps         double precision[] not null,
    naive_coverage_80  double precision[] not null,

    -- All windows together, a row for each forecaster, as with a model that was tested when it was trained.
    scores             jsonb              not null,

    constraint backtest_pkey primary key (tenant_id, backtest_id),
    constraint backtest_panel_fkey foreign key (tenant_id, panel_id) references panel,
    constraint backtest_model_fkey
        foreign key (tenant_id, model_id) references model (tenant_id, model_id) on delete cascade,
    constraint backtest_numbers_check check (horizon >= 1 and num_samples >= 1 and seed >= 0),
    constraint backtest_windows_check check (
        cardinality(issue_times) >= 1 and cardinality(is_fair) = cardinality(issue_times)
        and cardinality(crps) = cardinality(issue_times) and cardinality(coverage_80) = cardinality(issue_times)
        and cardinality(naive_crps) = cardinality(issue_times)
        and cardinality(naive_coverage_80) = cardinality(issue_times)
    )
);

create index backtest_panel_idx on backtest (tenant_id, panel_id, backtest_id desc);

-- A model that is deleted takes its backtests along.
create index backtest_model_idx on backtest (tenant_id, model_id);
