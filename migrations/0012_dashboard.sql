-- What dashboards read: views and functions whose names begin with dashboard_, and nothing else. The reader role that
-- `plumecast migrate --reader-role` makes sees these alone (api/src/db/reader.sql).
--
-- A view reads its tables with the rights of its owner. A function does so as `security definer`; its body is
-- `begin atomic`, so that names were resolved when it was created and no search path can redirect them. Nobody may call
-- one but its owner and readers.
--
-- Dashboards paste their variables as text, empty where there is nothing to choose yet. So functions take identifiers as
-- text, and an empty one gives no rows instead of an error.
--
-- Each reads the partitions of the time range that it is about: that of the query where it takes one, else that of the
-- forecast (first_valid_time to last_valid_time, and issue_time for trajectories). The times of a forecast come as scalar
-- subqueries, which are computed first, so that no order of joins can read the partitions of other times.

-- The length of a panel's interval, by its canonical frequency.
create function dashboard_interval(frequency text) returns interval
language sql immutable parallel safe
return case
    when frequency ~ '^\d+(s|min|h)$' then frequency::interval
    when frequency = '1d' then interval '1 day'
    when frequency = '1b' then interval '1 day'
    when frequency like '1w%' then interval '7 days'
    when frequency = '1mo' then interval '1 month'
    when frequency = '1q' then interval '3 months'
    when frequency = '1y' then interval '1 year'
end;

-- The calendar period that sums up a panel's steps: the day below a day, and so on.
create function dashboard_period(frequency text) returns text
language sql immutable parallel safe
return case
    when frequency ~ '^\d+(s|min|h)$' then 'day'
    when frequency in ('1d', '1b') then 'week'
    else 'year'
end;

-- The quantile at a level, from those that are stored (levels ascending): itself where it is stored, by linear
-- interpolation between its neighbours else, null beyond the outermost. A level asked for as 90 % of the centre is
-- stored as (1 - 0.9) / 2, which is 0.05 but for the last digit.
create function dashboard_quantile(levels double precision[], quantiles double precision[], level double precision)
returns double precision
language sql immutable parallel safe
return case
    when levels[width_bucket(level + 1e-9, levels)] >= level - 1e-9
    then quantiles[width_bucket(level + 1e-9, levels)]
    else quantiles[width_bucket(level, levels)]
        + (level - levels[width_bucket(level, levels)])
        / (levels[width_bucket(level, levels) + 1] - levels[width_bucket(level, levels)])
        * (quantiles[width_bucket(level, levels) + 1] - quantiles[width_bucket(level, levels)])
end;


-- Lists ---------------------------------------------------------------------------------------------------------------

create view dashboard_tenant as
select tenant_id, name as tenant
from tenant;

-- Panels, with their newest data, newest forecast and the model that serves. Newest values are looked up series by
-- series at the end of the index, whatever the number of rows.
create view dashboard_panel as
select
    p.tenant_id, p.panel_id, p.name as panel, p.frequency, p.time_zone,
    data.n_series, data.oldest_valid_time, data.newest_valid_time,
    -- How long ago the value after the newest one should have been known; negative while it is not due.
    extract(epoch from now() - (
        (data.newest_valid_time at time zone p.time_zone + 2 * dashboard_interval(p.frequency)) at time zone p.time_zone
        + p.publication_delay
    ))::double precision as overdue_seconds,
    extract(epoch from dashboard_interval(p.frequency))::double precision as interval_seconds,
    -- Where a dashboard about data should look: the newest thirty calendar periods.
    (extract(epoch from data.newest_valid_time - ('30 ' || dashboard_period(p.frequency))::interval) * 1000)::bigint
        as data_start_ms,
    (extract(epoch from data.newest_valid_time) * 1000)::bigint as data_end_ms,
    latest.forecast_id, latest.issue_time, latest.first_valid_time, latest.last_valid_time, latest.horizon,
    -- Where a dashboard should look: the forecast, and three times its length of what came before.
    (extract(epoch from latest.first_valid_time - 3 * (latest.last_valid_time - latest.first_valid_time)) * 1000)::bigint
        as range_start_ms,
    (extract(epoch from latest.last_valid_time) * 1000)::bigint as range_end_ms,
    extract(epoch from now() - latest.issue_time)::double precision as forecast_age_seconds,
    champion.version as champion_version, champion.created_at as champion_created_at
from panel p
left join lateral (
    select count(*) as n_series, min(oldest.valid_time) as oldest_valid_time, max(newest.valid_time) as newest_valid_time
    from series s
    left join lateral (
        select o.valid_time from observation o
        where o.tenant_id = s.tenant_id and o.series_id = s.series_id
        order by o.valid_time limit 1
    ) oldest on true
    left join lateral (
        select o.valid_time from observation o
        where o.tenant_id = s.tenant_id and o.series_id = s.series_id
        order by o.valid_time desc limit 1
    ) newest on true
    where s.tenant_id = p.tenant_id and s.panel_id = p.panel_id
) data on true
left join lateral (
    select f.forecast_id, f.issue_time, f.first_valid_time, f.last_valid_time, f.horizon
    from panel_version v
    cross join lateral (
        select * from forecast f
        where f.tenant_id = v.tenant_id and f.panel_version_id = v.panel_version_id and f.status = 'succeeded'
        order by f.issue_time desc, f.forecast_id desc limit 1
    ) f
    where v.tenant_id = p.tenant_id and v.panel_id = p.panel_id
    order by f.issue_time desc, f.forecast_id desc limit 1
) latest on true
left join model champion
    on champion.tenant_id = p.tenant_id and champion.panel_id = p.panel_id and champion.stage = 'champion';

comment on view dashboard_panel is 'panels, with how fresh their data and forecasts are, and the model that serves';

-- Series, in the order in which they were first loaded, with their newest value.
create view dashboard_series as
select
    s.tenant_id, s.panel_id, p.name as panel, s.series_id, s.name as series, s.role, s.kind, coalesce(s.unit, '') as unit,
    newest.valid_time as newest_valid_time, newest.available_at as newest_available_at, newest.value as newest_value,
    extract(epoch from now() - (
        (newest.valid_time at time zone p.time_zone + 2 * dashboard_interval(p.frequency)) at time zone p.time_zone
        + p.publication_delay
    ))::double precision as overdue_seconds
from series s
join panel p on p.tenant_id = s.tenant_id and p.panel_id = s.panel_id
left join lateral (
    select o.valid_time, o.available_at, o.value from observation o
    where o.tenant_id = s.tenant_id and o.series_id = s.series_id
    order by o.valid_time desc, o.available_at desc limit 1
) newest on true;

comment on view dashboard_series is 'series, with their newest value and how long the next one is overdue';

-- Forecasts that succeeded. Identifiers rise with the time at which they were made: order by them for the newest.
create view dashboard_forecast as
select
    f.tenant_id, v.panel_id, p.name as panel, f.forecast_id, f.issue_time, f.data_cutoff, f.horizon, f.num_samples,
    f.first_valid_time, f.last_valid_time, f.quality, f.created_at, m.version as model_version,
    to_char(f.issue_time at time zone p.time_zone, 'YYYY-MM-DD HH24:MI') || ', model ' || m.version as label,
    (extract(epoch from f.first_valid_time - 3 * (f.last_valid_time - f.first_valid_time)) * 1000)::bigint
        as range_start_ms,
    (extract(epoch from f.last_valid_time) * 1000)::bigint as range_end_ms
from forecast f
join panel_version v on v.tenant_id = f.tenant_id and v.panel_version_id = f.panel_version_id
join panel p on p.tenant_id = v.tenant_id and p.panel_id = v.panel_id
join model m on m.tenant_id = f.tenant_id and m.model_id = f.model_id
where f.status = 'succeeded';

comment on view dashboard_forecast is 'forecasts that succeeded, with the model that made them';

-- The forecasts of a panel with the newest issue times, to choose from. Each version of the panel is read at the end of
-- the index on issue_time, whatever the number of forecasts.
create function dashboard_newest_forecast(of_tenant text, of_panel text, n_forecasts integer)
returns table (forecast_id uuid, label text)
language sql stable security definer
begin atomic
    select f.forecast_id, d.label
    from panel_version v
    cross join lateral (
        select g.forecast_id, g.issue_time
        from forecast g
        where g.tenant_id = v.tenant_id and g.panel_version_id = v.panel_version_id and g.status = 'succeeded'
        order by g.issue_time desc
        limit n_forecasts
    ) f
    join dashboard_forecast d on d.tenant_id = v.tenant_id and d.forecast_id = f.forecast_id
    where v.tenant_id = nullif(of_tenant, '')::integer and v.panel_id = nullif(of_panel, '')::integer
    order by f.issue_time desc, f.forecast_id desc
    limit n_forecasts;
end;

comment on function dashboard_newest_forecast is 'the forecasts of a panel with the newest issue times';

-- The latest known value of each series and valid_time. Restrict all three.
create view dashboard_observation as
select tenant_id, series_id, valid_time, value, available_at, assumed
from observation_latest;

comment on view dashboard_observation is 'latest known values; restrict tenant_id, series_id and valid_time';


-- Forecasts of one series ---------------------------------------------------------------------------------------------

-- Median and central intervals of one series of a forecast, by valid time. `levels` are the intervals wanted, in
-- percent; the columns of others are null.
create function dashboard_fan(of_tenant text, of_forecast text, of_series text, levels text[])
returns table (
    valid_time timestamptz, step integer, mean double precision,
    lower_90 double precision, lower_80 double precision, lower_50 double precision, median double precision,
    upper_50 double precision, upper_80 double precision, upper_90 double precision
)
language sql stable security definer
begin atomic
    with f as materialized (
        select g.* from forecast g
        where g.tenant_id = nullif(of_tenant, '')::integer and g.forecast_id = nullif(of_forecast, '')::uuid
    )
    select
        v.valid_time, v.step, v.mean,
        case when '90' = any (levels) then dashboard_quantile(f.quantile_levels, v.quantiles, 0.05) end,
        case when '80' = any (levels) then dashboard_quantile(f.quantile_levels, v.quantiles, 0.1) end,
        case when '50' = any (levels) then dashboard_quantile(f.quantile_levels, v.quantiles, 0.25) end,
        dashboard_quantile(f.quantile_levels, v.quantiles, 0.5),
        case when '50' = any (levels) then dashboard_quantile(f.quantile_levels, v.quantiles, 0.75) end,
        case when '80' = any (levels) then dashboard_quantile(f.quantile_levels, v.quantiles, 0.9) end,
        case when '90' = any (levels) then dashboard_quantile(f.quantile_levels, v.quantiles, 0.95) end
    from f
    join forecast_value v on v.tenant_id = f.tenant_id and v.forecast_id = f.forecast_id
    where v.series_id = nullif(of_series, '')::integer
        and v.valid_time between (select first_valid_time from f) and (select last_valid_time from f)
    order by v.valid_time;
end;

comment on function dashboard_fan is 'median and central intervals of one series of a forecast';

-- The first trajectories of one series of a forecast: a fair choice, as all are equally likely.
create function dashboard_path(of_tenant text, of_forecast text, of_series text, n_paths integer)
returns table (valid_time timestamptz, sample integer, value double precision)
language sql stable security definer
begin atomic
    with f as materialized (
        select g.*, g.horizon - g.first_step + 1 as n_steps from forecast g
        where g.tenant_id = nullif(of_tenant, '')::integer and g.forecast_id = nullif(of_forecast, '')::uuid
    )
    select v.valid_time, ((path.ordinal - 1) / f.n_steps + 1)::integer, path.value::double precision
    from f
    join trajectory t on t.tenant_id = f.tenant_id and t.forecast_id = f.forecast_id
    cross join lateral unnest(t.value[1:n_paths][1:f.n_steps]) with ordinality as path (value, ordinal)
    join forecast_value v
        on v.tenant_id = f.tenant_id and v.forecast_id = f.forecast_id and v.series_id = t.series_id
        and v.step = f.first_step + (path.ordinal - 1) % f.n_steps
    where t.series_id = nullif(of_series, '')::integer
        and t.issue_time = (select issue_time from f)
        and v.valid_time between (select first_valid_time from f) and (select last_valid_time from f)
        and n_paths > 0
    order by v.valid_time, 2;
end;

comment on function dashboard_path is 'the first trajectories of one series of a forecast';

-- What was forecast at least so many steps ahead: of each valid time, the newest forecast with step >= least_step.
create function dashboard_fan_at_lead(
    of_tenant text, of_series text, least_step text, since timestamptz, until timestamptz, levels text[]
)
returns table (
    valid_time timestamptz, issue_time timestamptz, step integer,
    lower_90 double precision, lower_80 double precision, lower_50 double precision, median double precision,
    upper_50 double precision, upper_80 double precision, upper_90 double precision
)
language sql stable security definer
begin atomic
    select
        v.valid_time, v.issue_time, v.step,
        case when '90' = any (levels) then dashboard_quantile(f.quantile_levels, v.quantiles, 0.05) end,
        case when '80' = any (levels) then dashboard_quantile(f.quantile_levels, v.quantiles, 0.1) end,
        case when '50' = any (levels) then dashboard_quantile(f.quantile_levels, v.quantiles, 0.25) end,
        dashboard_quantile(f.quantile_levels, v.quantiles, 0.5),
        case when '50' = any (levels) then dashboard_quantile(f.quantile_levels, v.quantiles, 0.75) end,
        case when '80' = any (levels) then dashboard_quantile(f.quantile_levels, v.quantiles, 0.9) end,
        case when '90' = any (levels) then dashboard_quantile(f.quantile_levels, v.quantiles, 0.95) end
    from (
        select distinct on (w.valid_time)
            w.tenant_id, w.forecast_id, w.valid_time, w.issue_time, w.step, w.quantiles
        from forecast_value w
        where w.tenant_id = nullif(of_tenant, '')::integer
            and w.series_id = nullif(of_series, '')::integer
            and w.valid_time between since and until
            and w.step >= coalesce(nullif(least_step, ''), '1')::integer
        order by w.valid_time, w.issue_time desc, w.forecast_id desc
    ) v
    join forecast f on f.tenant_id = v.tenant_id and f.forecast_id = v.forecast_id
    order by v.valid_time;
end;

comment on function dashboard_fan_at_lead is 'of each valid time, the newest forecast made at least so many steps ahead';

-- Leads to choose from: one step, and what is usual, up to the longest of the newest forecasts.
create function dashboard_lead(of_tenant text, of_panel text)
returns table (step integer, label text)
language sql stable security definer
begin atomic
    select
        s.step,
        format(case s.step when 1 then '%s step' else '%s steps' end || ' ahead or more', s.step)
    from panel p
    cross join unnest(array[1, 2, 3, 6, 12, 24, 48, 72, 168]) as s (step)
    where p.tenant_id = nullif(of_tenant, '')::integer
        and p.panel_id = nullif(of_panel, '')::integer
        and s.step <= (
            select coalesce(max(newest.horizon), 1)
            from panel_version v
            cross join lateral (
                select f.horizon
                from forecast f
                where f.tenant_id = v.tenant_id and f.panel_version_id = v.panel_version_id
                order by f.issue_time desc limit 10
            ) newest
            where v.tenant_id = p.tenant_id and v.panel_id = p.panel_id
        )
    order by s.step;
end;

comment on function dashboard_lead is 'steps ahead to choose from';

-- Medians of the forecasts that were made before a given one and reach into its range: how the view of the same hours
-- changed. The name of each is its issue time on the panel's clock.
create function dashboard_earlier(of_tenant text, of_forecast text, of_series text, n_forecasts integer)
returns table (valid_time timestamptz, issued text, median double precision)
language sql stable security definer
begin atomic
    select
        v.valid_time,
        to_char(g.issue_time at time zone g.time_zone, 'YYYY-MM-DD HH24:MI'),
        dashboard_quantile(g.quantile_levels, v.quantiles, 0.5)
    from (
        -- Of forecasts with the same issue time, the one that was made last.
        select distinct on (g.issue_time)
            g.tenant_id, g.forecast_id, g.issue_time, g.quantile_levels, g.first_valid_time, g.last_valid_time,
            p.time_zone
        from forecast f
        join panel_version v on v.tenant_id = f.tenant_id and v.panel_version_id = f.panel_version_id
        join panel p on p.tenant_id = v.tenant_id and p.panel_id = v.panel_id
        join panel_version w on w.tenant_id = v.tenant_id and w.panel_id = v.panel_id
        cross join lateral (
            -- Some may share an issue time.
            select h.* from forecast h
            where h.tenant_id = w.tenant_id and h.panel_version_id = w.panel_version_id
                and h.issue_time < f.issue_time and h.status = 'succeeded'
            order by h.issue_time desc
            limit 10 * n_forecasts
        ) g
        where f.tenant_id = nullif(of_tenant, '')::integer and f.forecast_id = nullif(of_forecast, '')::uuid
        order by g.issue_time desc, g.forecast_id desc
        limit n_forecasts
    ) g
    cross join lateral (
        select w.valid_time, w.quantiles
        from forecast_value w
        where w.tenant_id = g.tenant_id and w.forecast_id = g.forecast_id
            and w.series_id = nullif(of_series, '')::integer
            and w.valid_time between g.first_valid_time and g.last_valid_time
        -- Keeps this apart from the rest, so that each forecast reads the partitions of its own times.
        offset 0
    ) v
    order by v.valid_time, g.issue_time;
end;

comment on function dashboard_earlier is 'medians of the forecasts made before a given one';


-- Totals and events: from trajectories, so that dependence between series and hours is kept ---------------------------

-- The chosen series of a forecast, combined along each trajectory: their sum, or their mean. Nowcast steps do not count.
-- `period` is the first day of the calendar period (dashboard_period) on the panel's clock.
create function dashboard_sample(of_tenant text, of_forecast text, of_series text[], combine text)
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
        -- The valid times of the steps, from any one of the series.
        select w.step, w.valid_time
        from f
        join forecast_value w on w.tenant_id = f.tenant_id and w.forecast_id = f.forecast_id
        where w.series_id = (array_remove(of_series, ''))[1]::integer
            and w.valid_time between (select first_valid_time from f) and (select last_valid_time from f)
    ) v on v.step = s.step;
end;

comment on function dashboard_sample is 'chosen series of a forecast, combined along each trajectory';

-- Median and central intervals of the combined series, by valid time.
create function dashboard_total_fan(of_tenant text, of_forecast text, of_series text[], combine text, levels text[])
returns table (
    valid_time timestamptz, step integer,
    lower_90 double precision, lower_80 double precision, lower_50 double precision, median double precision,
    upper_50 double precision, upper_80 double precision, upper_90 double precision
)
language sql stable security definer
begin atomic
    select
        s.valid_time, s.step,
        case when '90' = any (levels) then s.q[1] end, case when '80' = any (levels) then s.q[2] end,
        case when '50' = any (levels) then s.q[3] end, s.q[4], case when '50' = any (levels) then s.q[5] end,
        case when '80' = any (levels) then s.q[6] end, case when '90' = any (levels) then s.q[7] end
    from (
        select valid_time, step,
            percentile_cont(array[0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95]) within group (order by value) as q
        from dashboard_sample(of_tenant, of_forecast, of_series, combine)
        group by valid_time, step
    ) s
    order by s.valid_time;
end;

comment on function dashboard_total_fan is 'median and central intervals of several series combined';

-- What was measured of the combined series, where all of them were.
create function dashboard_total_actual(of_tenant text, of_series text[], combine text, since timestamptz, until timestamptz)
returns table (valid_time timestamptz, actual double precision)
language sql stable security definer
begin atomic
    select o.valid_time, case combine when 'mean' then avg(o.value) else sum(o.value) end
    from observation_latest o
    where o.tenant_id = nullif(of_tenant, '')::integer
        and o.series_id = any (array_remove(of_series, '')::integer[])
        and o.valid_time between since and until
    group by o.valid_time
    having count(*) = cardinality(array_remove(of_series, ''))
    order by o.valid_time;
end;

comment on function dashboard_total_actual is 'what was measured of several series combined';

-- One number per trajectory: the combined series over the whole horizon.
create function dashboard_total(of_tenant text, of_forecast text, of_series text[], combine text)
returns table (sample integer, total double precision)
language sql stable security definer
begin atomic
    select sample, case combine when 'mean' then avg(value) else sum(value) end
    from dashboard_sample(of_tenant, of_forecast, of_series, combine)
    group by sample
    order by sample;
end;

comment on function dashboard_total is 'one number per trajectory: the combined series over the horizon';

-- The 90 % interval of that number, right (from trajectories) and wrong (by adding up the quantiles of each series and
-- step, as has to be done where only these are stored).
create function dashboard_total_interval(of_tenant text, of_forecast text, of_series text[], combine text)
returns table (
    joint_lower double precision, joint_median double precision, joint_upper double precision,
    added_lower double precision, added_upper double precision
)
language sql stable security definer
begin atomic
    with f as materialized (
        select g.* from forecast g
        where g.tenant_id = nullif(of_tenant, '')::integer and g.forecast_id = nullif(of_forecast, '')::uuid
    )
    select j.q[1], j.q[2], j.q[3], a.lower, a.upper
    from (
        select percentile_cont(array[0.05, 0.5, 0.95]) within group (order by total) as q
        from dashboard_total(of_tenant, of_forecast, of_series, combine)
    ) j
    cross join (
        select
            case combine when 'mean' then avg(b.lower) else sum(b.lower) end as lower,
            case combine when 'mean' then avg(b.upper) else sum(b.upper) end as upper
        from (
            select
                dashboard_quantile(f.quantile_levels, v.quantiles, 0.05) as lower,
                dashboard_quantile(f.quantile_levels, v.quantiles, 0.95) as upper
            from f
            join forecast_value v on v.tenant_id = f.tenant_id and v.forecast_id = f.forecast_id
            where v.valid_time between (select first_valid_time from f) and (select last_valid_time from f)
                and v.series_id = any (array_remove(of_series, '')::integer[]) and v.step >= 1
        ) b
    ) a
    where j.q is not null;
end;

comment on function dashboard_total_interval is 'the 90 % interval of the total, from trajectories and by adding quantiles';

-- The highest step of each calendar period: quantiles over trajectories.
create function dashboard_peak(of_tenant text, of_forecast text, of_series text[], combine text)
returns table (
    period date, n_steps bigint,
    lower_90 double precision, lower_50 double precision, median double precision, upper_50 double precision,
    upper_90 double precision
)
language sql stable security definer
begin atomic
    select p.period, p.n_steps, p.q[1], p.q[2], p.q[3], p.q[4], p.q[5]
    from (
        select m.period, max(m.n_steps) as n_steps,
            percentile_cont(array[0.05, 0.25, 0.5, 0.75, 0.95]) within group (order by m.peak) as q
        from (
            select period, sample, max(value) as peak, count(*) as n_steps
            from dashboard_sample(of_tenant, of_forecast, of_series, combine)
            group by period, sample
        ) m
        group by m.period
    ) p
    order by p.period;
end;

comment on function dashboard_peak is 'quantiles of the highest step of each calendar period';

-- How likely the combined series is above a threshold in at least one step of each calendar period.
create function dashboard_exceedance(
    of_tenant text, of_forecast text, of_series text[], combine text, threshold text
)
returns table (period date, probability double precision)
language sql stable security definer
begin atomic
    select m.period, avg(case when m.peak > nullif(threshold, '')::double precision then 1.0 else 0.0 end)::double precision
    from (
        select period, sample, max(value) as peak
        from dashboard_sample(of_tenant, of_forecast, of_series, combine)
        group by period, sample
    ) m
    group by m.period
    order by m.period;
end;

comment on function dashboard_exceedance is 'chance to be above a threshold in a step of each calendar period';

-- How likely the combined series is above a threshold at each step, and has been above it by then.
create function dashboard_passage(of_tenant text, of_forecast text, of_series text[], combine text, threshold text)
returns table (valid_time timestamptz, at_step double precision, by_then double precision)
language sql stable security definer
begin atomic
    select
        m.valid_time,
        avg(case when m.value > nullif(threshold, '')::double precision then 1.0 else 0.0 end)::double precision,
        avg(case when m.peak > nullif(threshold, '')::double precision then 1.0 else 0.0 end)::double precision
    from (
        select valid_time, value, max(value) over (partition by sample order by step) as peak
        from dashboard_sample(of_tenant, of_forecast, of_series, combine)
    ) m
    group by m.valid_time
    order by m.valid_time;
end;

comment on function dashboard_passage is 'chance to be above a threshold at each step, and to have been by then';

-- Thresholds to choose from: quantiles of the highest step of the horizon, rounded to three digits. The first is one that
-- is passed about every other time.
create function dashboard_threshold(of_tenant text, of_forecast text, of_series text[], combine text)
returns table (threshold double precision)
language sql stable security definer
begin atomic
    select t.threshold
    from (
        select
            round(q.value::numeric, (2 - floor(log(greatest(abs(q.value), 1e-9))))::integer)::double precision as threshold,
            min(q.ordinal) as ordinal
        from (
            select percentile_cont(array[0.5, 0.05, 0.25, 0.75, 0.9, 0.99]) within group (order by m.peak) as qs
            from (
                select max(value) as peak
                from dashboard_sample(of_tenant, of_forecast, of_series, combine)
                group by sample
            ) m
        ) p
        cross join lateral unnest(p.qs) with ordinality as q (value, ordinal)
        group by 1
    ) t
    order by t.ordinal;
end;

comment on function dashboard_threshold is 'thresholds to choose from';

-- How to combine the chosen series, the better way first: what is no total is averaged.
create function dashboard_combine(of_tenant text, of_series text[])
returns table (combine text)
language sql stable security definer
begin atomic
    select c.combine
    from (
        select bool_and(s.kind = 'sum') as are_totals
        from series s
        where s.tenant_id = nullif(of_tenant, '')::integer and s.series_id = any (array_remove(of_series, '')::integer[])
    ) s
    cross join lateral unnest(
        case when s.are_totals then array['sum', 'mean'] else array['mean', 'sum'] end
    ) with ordinality as c (combine, ordinal)
    order by c.ordinal;
end;

comment on function dashboard_combine is 'how to combine series, the better way first';

-- For alert rules: how likely a series, named as people name it, is above a threshold in at least one step that begins
-- from now on and within so long, by the panel's newest forecast. One row, 0 where there is no such forecast or step.
create function dashboard_risk(of_panel text, of_series text, threshold double precision, within interval)
returns table (probability double precision)
language sql stable security definer
begin atomic
    select coalesce(max(r.probability), 0)
    from (
        select p.tenant_id, p.forecast_id, s.series_id
        from dashboard_panel p
        join series s on s.tenant_id = p.tenant_id and s.panel_id = p.panel_id
        where p.panel = of_panel and s.name = of_series and p.forecast_id is not null
    ) f
    cross join lateral (
        select avg(case when m.peak > threshold then 1.0 else 0.0 end)::double precision as probability
        from (
            select max(t.value) as peak
            from dashboard_sample(f.tenant_id::text, f.forecast_id::text, array[f.series_id::text], 'sum') t
            where t.valid_time between now() and now() + within
            group by t.sample
        ) m
    ) r;
end;

comment on function dashboard_risk is 'chance that a series is above a threshold within so long';


-- Data quality --------------------------------------------------------------------------------------------------------

-- The steps of a panel's grid in a range, counted from a step that is known to be one. Steps that divide an hour are
-- counted in time that passes, others on the panel's clock.
create function dashboard_grid(
    frequency text, time_zone text, anchor timestamptz, since timestamptz, until timestamptz
)
returns setof timestamptz
language sql stable
begin atomic
    select g.step
    from (
        select extract(epoch from dashboard_interval(frequency))::double precision as seconds
    ) i
    cross join lateral (
        -- Steps to skip from the anchor; months and the like are short enough to start at it.
        select greatest(ceil(extract(epoch from since - anchor) / i.seconds) - 1, 0)
            * case when i.seconds <= 604800 and frequency <> '1b' then 1 else 0 end as n
    ) skip
    cross join lateral (
        select generate_series(
            anchor + make_interval(secs => skip.n * i.seconds), until, make_interval(secs => i.seconds)
        ) as step
        where 3600 % i.seconds::numeric = 0
        union all
        select local_step at time zone time_zone
        from generate_series(
            anchor at time zone time_zone + dashboard_interval(frequency) * skip.n, until at time zone time_zone,
            dashboard_interval(frequency)
        ) as local_step
        where 3600 % i.seconds::numeric <> 0 and (frequency <> '1b' or extract(isodow from local_step) < 6)
    ) g
    where g.step between since and until;
end;

-- Values that should be there and are not, by series and calendar period, between the panel's first and newest step.
create function dashboard_missing(of_tenant text, of_panel text, since timestamptz, until timestamptz)
returns table (period timestamptz, series_id integer, series text, n_expected bigint, n_missing bigint)
language sql stable security definer
begin atomic
    with p as (
        select q.*, greatest(since, q.oldest_valid_time) as range_start, least(until, q.newest_valid_time) as range_end
        from dashboard_panel q
        where q.tenant_id = nullif(of_tenant, '')::integer and q.panel_id = nullif(of_panel, '')::integer
    ),
    expected as (
        select date_trunc(dashboard_period(p.frequency), g.step, p.time_zone) as period, count(*) as n_expected
        from p
        cross join lateral dashboard_grid(p.frequency, p.time_zone, p.oldest_valid_time, p.range_start, p.range_end)
            as g (step)
        group by 1
    ),
    observed as (
        select s.series_id, date_trunc(dashboard_period(p.frequency), o.valid_time, p.time_zone) as period,
            count(distinct o.valid_time) as n_observed
        from p
        join series s on s.tenant_id = p.tenant_id and s.panel_id = p.panel_id
        join observation o
            on o.tenant_id = s.tenant_id and o.series_id = s.series_id
            and o.valid_time between (select range_start from p) and (select range_end from p)
        group by 1, 2
    )
    select e.period, s.series_id, s.name, e.n_expected, greatest(e.n_expected - coalesce(o.n_observed, 0), 0)
    from expected e
    cross join p
    join series s on s.tenant_id = p.tenant_id and s.panel_id = p.panel_id
    left join observed o on o.series_id = s.series_id and o.period = e.period
    order by e.period, s.series_id;
end;

comment on function dashboard_missing is 'values that should be there and are not, by series and calendar period';

-- The longest runs of missing values that lie between two values, or between the newest value of a series and that of
-- its panel.
create function dashboard_gap(of_tenant text, of_panel text, since timestamptz, until timestamptz, n_gaps integer)
returns table (series text, last_before timestamptz, first_after timestamptz, n_missing integer)
language sql stable security definer
begin atomic
    with p as materialized (
        select q.*, least(until, q.newest_valid_time) as range_end,
            -- Months differ in length, and Friday's interval lasts until Monday.
            make_interval(secs => q.interval_seconds * case when q.frequency = '1b' then 3.5 else 1.5 end) as unbroken
        from dashboard_panel q
        where q.tenant_id = nullif(of_tenant, '')::integer and q.panel_id = nullif(of_panel, '')::integer
    )
    select s.name, g.valid_time, g.next_time,
        round(extract(epoch from coalesce(g.next_time, p.range_end) - g.valid_time) / p.interval_seconds)::integer
        - case when g.next_time is null then 0 else 1 end as n_missing
    from p
    join series s on s.tenant_id = p.tenant_id and s.panel_id = p.panel_id
    cross join lateral (
        select o.valid_time, lead(o.valid_time) over (order by o.valid_time) as next_time
        from observation o
        where o.tenant_id = s.tenant_id and o.series_id = s.series_id and o.valid_time between since and until
            and o.valid_time <= p.range_end
    ) g
    where g.next_time - g.valid_time > p.unbroken or (g.next_time is null and g.valid_time < p.range_end)
    order by n_missing desc, g.valid_time desc
    limit n_gaps;
end;

comment on function dashboard_gap is 'the longest runs of missing values';

-- Corrections by calendar period: values that replaced an earlier one of the same valid time.
create function dashboard_correction(of_tenant text, of_panel text, since timestamptz, until timestamptz)
returns table (period timestamptz, n_values bigint, n_corrections bigint)
language sql stable security definer
begin atomic
    select date_trunc(dashboard_period(p.frequency), o.valid_time, p.time_zone),
        count(*), count(*) - count(distinct (o.series_id, o.valid_time))
    from panel p
    join series s on s.tenant_id = p.tenant_id and s.panel_id = p.panel_id
    join observation o
        on o.tenant_id = s.tenant_id and o.series_id = s.series_id and o.valid_time between since and until
    where p.tenant_id = nullif(of_tenant, '')::integer and p.panel_id = nullif(of_panel, '')::integer
    group by 1
    order by 1;
end;

comment on function dashboard_correction is 'values and corrections by calendar period';


-- Models and the service ----------------------------------------------------------------------------------------------

-- Models, with what their training reported.
create view dashboard_model as
select
    m.tenant_id, m.panel_id, p.name as panel, m.model_id, m.version, m.stage, m.created_at, m.data_cutoff,
    (m.config ->> 'horizon')::integer as horizon,
    m.metrics #>> '{training,base}' as base,
    (m.metrics #>> '{training,n_parameters}')::bigint as n_parameters,
    (m.metrics #>> '{training,best_step}')::bigint as best_step,
    (m.metrics #>> '{training,seconds}')::double precision as train_seconds,
    (m.metrics #>> '{training,validation_loss}')::double precision as validation_loss
from model m
join panel p on p.tenant_id = m.tenant_id and p.panel_id = m.panel_id;

comment on view dashboard_model is 'models, with what their training reported';

-- Scores of each model and of the forecasters beside it, on windows that its training did not see.
create view dashboard_model_score as
select
    m.tenant_id, m.panel_id, m.model_id, m.version, m.stage, m.created_at, s.forecaster,
    s.crps, s.crps_sum, s.nd, s.mase, s.energy_score, s.coverage_50, s.coverage_80, s.coverage_90
from model m
cross join lateral (
    select r ->> 'model' as forecaster, v.*
    from jsonb_array_elements(
        case when jsonb_typeof(m.metrics -> 'backtest') = 'array' then m.metrics -> 'backtest' else '[]' end
    ) as r
    cross join lateral jsonb_to_record(r) as v (
        crps double precision, crps_sum double precision, nd double precision, mase double precision,
        energy_score double precision, coverage_50 double precision, coverage_80 double precision,
        coverage_90 double precision
    )
) s;

comment on view dashboard_model_score is 'scores of models and of the forecasters beside them';

-- What lies where, partitions added up. Rows are the server's estimate.
create view dashboard_storage as
select
    root.relname::text as "table",
    sum(pg_total_relation_size(part.relid))::bigint as n_bytes,
    sum(greatest(c.reltuples, 0))::bigint as n_rows,
    count(*) filter (where c.relkind = 'r') as n_partitions
from pg_class root
cross join lateral (
    select t.relid from pg_partition_tree(root.oid) t
    union
    select root.oid
) part
join pg_class c on c.oid = part.relid
where root.relnamespace = (select relnamespace from pg_class where oid = 'tenant'::regclass)
    and root.relkind in ('r', 'p') and not root.relispartition
group by root.relname;

comment on view dashboard_storage is 'size of each table, with its partitions';

-- Functions may be called by everybody unless that is taken back. These three read no table.
do $$
declare
    routine regprocedure;
begin
    for routine in
        select p.oid::regprocedure
        from pg_proc p
        where p.pronamespace = (select pronamespace from pg_proc where oid = 'dashboard_fan'::regproc)
            and p.proname like 'dashboard\_%' and p.prosecdef
    loop
        execute format('revoke execute on function %s from public', routine);
    end loop;
end
$$;
