-- What is supplied ahead of known covariates is no observation: a panel whose measurements have stopped is overdue however
-- far its plans reach. Apart from that, the view is as in 0016.

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
