-- A scenario (0015) is no forecast of its issue time: dashboards leave them out wherever they pick forecasts. A forecast
-- that is named is shown whatever it is, and its label says so. Apart from that, everything is as in 0012.

create or replace view dashboard_panel as
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
            and f.scenario is null
        order by f.issue_time desc, f.forecast_id desc limit 1
    ) f
    where v.tenant_id = p.tenant_id and v.panel_id = p.panel_id
    order by f.issue_time desc, f.forecast_id desc limit 1
) latest on true
left join model champion
    on champion.tenant_id = p.tenant_id and champion.panel_id = p.panel_id and champion.stage = 'champion';

create or replace view dashboard_forecast as
select
    f.tenant_id, v.panel_id, p.name as panel, f.forecast_id, f.issue_time, f.data_cutoff, f.horizon, f.num_samples,
    f.first_valid_time, f.last_valid_time, f.quality, f.created_at, m.version as model_version,
    to_char(f.issue_time at time zone p.time_zone, 'YYYY-MM-DD HH24:MI') || ', model ' || m.version
        || case when f.scenario is null then '' else ', scenario' end as label,
    (extract(epoch from f.first_valid_time - 3 * (f.last_valid_time - f.first_valid_time)) * 1000)::bigint
        as range_start_ms,
    (extract(epoch from f.last_valid_time) * 1000)::bigint as range_end_ms
from forecast f
join panel_version v on v.tenant_id = f.tenant_id and v.panel_version_id = f.panel_version_id
join panel p on p.tenant_id = v.tenant_id and p.panel_id = v.panel_id
join model m on m.tenant_id = f.tenant_id and m.model_id = f.model_id
where f.status = 'succeeded';

create or replace function dashboard_newest_forecast(of_tenant text, of_panel text, n_forecasts integer)
returns table (forecast_id uuid, label text)
language sql stable security definer
begin atomic
    select f.forecast_id, d.label
    from panel_version v
    cross join lateral (
        select g.forecast_id, g.issue_time
        from forecast g
        where g.tenant_id = v.tenant_id and g.panel_version_id = v.panel_version_id and g.status = 'succeeded'
            and g.scenario is null
        order by g.issue_time desc
        limit n_forecasts
    ) f
    join dashboard_forecast d on d.tenant_id = v.tenant_id and d.forecast_id = f.forecast_id
    where v.tenant_id = nullif(of_tenant, '')::integer and v.panel_id = nullif(of_panel, '')::integer
    order by f.issue_time desc, f.forecast_id desc
    limit n_forecasts;
end;

create or replace function dashboard_fan_at_lead(
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
            and not exists (
                select from forecast s
                where s.tenant_id = w.tenant_id and s.forecast_id = w.forecast_id and s.scenario is not null
            )
        order by w.valid_time, w.issue_time desc, w.forecast_id desc
    ) v
    join forecast f on f.tenant_id = v.tenant_id and f.forecast_id = v.forecast_id
    order by v.valid_time;
end;

create or replace function dashboard_earlier(of_tenant text, of_forecast text, of_series text, n_forecasts integer)
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
                and h.issue_time < f.issue_time and h.status = 'succeeded' and h.scenario is null
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
