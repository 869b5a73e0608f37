-- Fills a database for `plumecast bench dashboards`: hourly forecasts of twenty series, two days ahead; a hundred trajectories
-- of the newest fifty; scores of the last month. Its settings: bench.panel_version, bench.model, bench.panel, and bench.start
-- and bench.end, the first hour and the one after the last.
insert into forecast (
    tenant_id, forecast_id, panel_version_id, model_id, issue_time, data_cutoff, first_step, horizon, first_valid_time,
    last_valid_time, num_samples, seed, schedule, passes, quantile_levels
)
select
    1, (lpad(to_hex(extract(epoch from t)::bigint * 1000), 12, '0') || '70008000' || lpad('0', 12, '0'))::uuid,
    current_setting('bench.panel_version')::integer, current_setting('bench.model')::integer, t, t,
    1, 48, t, t + interval '47 hours', 100, 1, 'autoregressive', 12, array[0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95]
from generate_series(
    current_setting('bench.start')::timestamptz, current_setting('bench.end')::timestamptz - interval '1 hour', interval '1 hour'
) as t;

insert into forecast_value (tenant_id, forecast_id, series_id, valid_time, issue_time, step, lead_seconds, mean, quantiles)
select
    1, forecast_id, series_id, issue_time + (step - 1) * interval '1 hour', issue_time, step, (step - 1) * 3600, 10,
    array[7, 8, 9, 10, 11, 12, 13 + series_id % 3]
from forecast, series, generate_series(1, 48) as step
where panel_id = current_setting('bench.panel')::integer;

insert into trajectory (tenant_id, forecast_id, series_id, issue_time, value)
select
    1, forecast_id, series_id, issue_time,
    (
        select array_agg(path order by sample)
        from (
            select sample, array_agg((10 + 3 * sin(0.2 * step + sample) + series_id % 3)::real order by step) as path
            from generate_series(1, 100) as sample, generate_series(1, 48) as step
            group by sample
        ) as paths
    )
from (select * from forecast order by issue_time desc limit 50) as newest, series
where panel_id = current_setting('bench.panel')::integer;

insert into score (
    tenant_id, panel_id, series_id, step, valid_time, forecast_id, model_id, issue_time, value, crps, pinball, absolute_error,
    naive_absolute_error, inside_50, inside_80, inside_90, pit, scored_at
)
select
    1, current_setting('bench.panel')::integer, series_id, step, valid_time, forecast_id,
    current_setting('bench.model')::integer, issue_time, 10, 0.3 + step * 0.01, array[1, 1, 1, 1, 1, 1, 1], 0.5, 0.8,
    step % 2 = 0, step % 5 > 0, step % 10 > 0, (step % 20) / 20.0, current_setting('bench.end')::timestamptz
from forecast_value
where valid_time >= current_setting('bench.end')::timestamptz - interval '30 days'
  and valid_time < current_setting('bench.end')::timestamptz;

analyze;
