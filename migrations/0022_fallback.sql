-- Where the model of a panel cannot answer, or there is none, a baseline makes the forecast: its quality is `fallback`, and no
-- model made it. Dashboards tell such a forecast from those of models.

alter table forecast alter column model_id drop not null;

-- Whoever reads forecasts of a model by its identifier never gets those of the baseline. Rows of before satisfy this: none is a
-- fallback, and each has a model.
alter table forecast add constraint forecast_fallback_check check ((quality = 'fallback') = (model_id is null)) not valid;

create or replace view dashboard_forecast as
select
    f.tenant_id, v.panel_id, p.name as panel, f.forecast_id, f.issue_time, f.data_cutoff, f.horizon, f.num_samples,
    f.first_valid_time, f.last_valid_time, f.quality, f.created_at, m.version as model_version,
    to_char(f.issue_time at time zone p.time_zone, 'YYYY-MM-DD HH24:MI') || coalesce(', model ' || m.version, ', fallback')
        || case when f.scenario is null then '' else ', scenario' end as label,
    (extract(epoch from f.first_valid_time - 3 * (f.last_valid_time - f.first_valid_time)) * 1000)::bigint
        as range_start_ms,
    (extract(epoch from f.last_valid_time) * 1000)::bigint as range_end_ms
from forecast f
join panel_version v on v.tenant_id = f.tenant_id and v.panel_version_id = f.panel_version_id
join panel p on p.tenant_id = v.tenant_id and p.panel_id = v.panel_id
left join model m on m.tenant_id = f.tenant_id and m.model_id = f.model_id
where f.status = 'succeeded';

-- As in 0017, with the quality of the newest forecast.
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
    champion.version as champion_version, champion.created_at as champion_created_at,
    latest.quality
from panel p
left join lateral (
    select
        count(*) as n_series, min(oldest.valid_time) as oldest_valid_time,
        max(newest.valid_time) filter (where s.role <> 'known') as newest_valid_time
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
    select f.forecast_id, f.issue_time, f.first_valid_time, f.last_valid_time, f.horizon, f.quality
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
