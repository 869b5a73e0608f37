-- Totals of chosen series of which some are not forecast, such as a covariate: those that are forecast count, whichever
-- is named first. As in 0012_dashboard, but that the valid times of the steps come from any series of the forecast.

create or replace function dashboard_sample(of_tenant text, of_forecast text, of_series text[], combine text)
returns table (sample integer, step integer, valid_time timestamptz, period date, value double precision)
language sql stable security definer
begin atomic
    with f as materialized (
        select g.*, p.frequency, p.time_zone
        from forecast g
        join panel_version v on v.tenant_id = g.tenant_id and v.panel_version_id = g.panel_version_id
        join panel p on p.tenant_id = v.tenant_id and p.panel_id = v.panel_id
        where g.tenant_id = nullif(of_tenant, '')::integer and g.forecast_id = nullif(of_forecast, '')::uuid
    )
    select s.sample, s.step, v.valid_time,
        date_trunc(dashboard_period(f.frequency), v.valid_time at time zone f.time_zone)::date,
        s.value
    from f
    cross join lateral (
        select
            ((path.ordinal - 1) / f.horizon + 1)::integer as sample,
            ((path.ordinal - 1) % f.horizon + 1)::integer as step,
            case combine when 'mean' then avg(path.value::double precision) else sum(path.value::double precision) end
                as value
        from trajectory t
        -- Step 1 is column 2 - first_step.
        cross join lateral unnest(t.value[1:f.num_samples][2 - f.first_step:f.horizon - f.first_step + 1])
            with ordinality as path (value, ordinal)
        where t.tenant_id = f.tenant_id and t.forecast_id = f.forecast_id
            and t.issue_time = (select issue_time from f)
            and t.series_id = any (array_remove(of_series, '')::integer[])
        group by path.ordinal
    ) s
    join (
        select w.step, w.valid_time
        from f
        join forecast_value w on w.tenant_id = f.tenant_id and w.forecast_id = f.forecast_id
        where w.series_id = (
                select one.series_id
                from f
                join trajectory one on one.tenant_id = f.tenant_id and one.forecast_id = f.forecast_id
                where one.issue_time = (select issue_time from f)
                limit 1
            )
            and w.valid_time between (select first_valid_time from f) and (select last_valid_time from f)
    ) v on v.step = s.step;
end;
