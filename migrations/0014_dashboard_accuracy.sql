-- What dashboards read about accuracy and retraining: see 0012_dashboard.sql for the rules. Scores are read by the partitions
-- of the time range, which is that of the values.

-- Scores of stored forecasts by lead, over the values that came in a time range. CRPS is divided by the mean magnitude of
-- the values, as in a backtest; skill is 1 - (mean error of the median) / (that of seasonal naive) on the same values.
create function dashboard_accuracy_by_step(
    of_tenant text, of_panel text, of_series text[], since timestamptz, until timestamptz
)
returns table (
    step integer, n_values bigint, crps double precision, skill double precision,
    coverage_50 double precision, coverage_80 double precision, coverage_90 double precision
)
language sql stable security definer
begin atomic
    select
        s.step, count(*),
        sum(s.crps) / nullif(sum(abs(s.value)), 0),
        1 - sum(s.absolute_error) filter (where s.naive_absolute_error is not null) / nullif(sum(s.naive_absolute_error), 0),
        avg(s.inside_50::integer)::double precision, avg(s.inside_80::integer)::double precision,
        avg(s.inside_90::integer)::double precision
    from score s
    where s.tenant_id = nullif(of_tenant, '')::integer and s.panel_id = nullif(of_panel, '')::integer
        and s.series_id = any (array_remove(of_series, '')::integer[])
        and s.valid_time between since and until
    group by s.step
    order by s.step;
end;

comment on function dashboard_accuracy_by_step is 'scores of stored forecasts by lead';

-- The same by series.
create function dashboard_accuracy_by_series(of_tenant text, of_panel text, since timestamptz, until timestamptz)
returns table (
    series text, n_values bigint, crps double precision, skill double precision,
    coverage_50 double precision, coverage_80 double precision, coverage_90 double precision
)
language sql stable security definer
begin atomic
    select
        n.name, count(*),
        sum(s.crps) / nullif(sum(abs(s.value)), 0),
        1 - sum(s.absolute_error) filter (where s.naive_absolute_error is not null) / nullif(sum(s.naive_absolute_error), 0),
        avg(s.inside_50::integer)::double precision, avg(s.inside_80::integer)::double precision,
        avg(s.inside_90::integer)::double precision
    from score s
    join series n on n.tenant_id = s.tenant_id and n.series_id = s.series_id
    where s.tenant_id = nullif(of_tenant, '')::integer and s.panel_id = nullif(of_panel, '')::integer
        and s.valid_time between since and until
    group by n.name
    order by 3 desc nulls last;
end;

comment on function dashboard_accuracy_by_series is 'scores of stored forecasts by series';

-- The same by calendar period of the value.
create function dashboard_accuracy_by_period(
    of_tenant text, of_panel text, of_series text[], since timestamptz, until timestamptz
)
returns table (
    period timestamptz, n_values bigint, crps double precision,
    coverage_50 double precision, coverage_80 double precision, coverage_90 double precision
)
language sql stable security definer
begin atomic
    select
        date_trunc(dashboard_period(p.frequency), s.valid_time, p.time_zone), count(*),
        sum(s.crps) / nullif(sum(abs(s.value)), 0),
        avg(s.inside_50::integer)::double precision, avg(s.inside_80::integer)::double precision,
        avg(s.inside_90::integer)::double precision
    from score s
    join panel p on p.tenant_id = s.tenant_id and p.panel_id = s.panel_id
    where s.tenant_id = nullif(of_tenant, '')::integer and s.panel_id = nullif(of_panel, '')::integer
        and s.series_id = any (array_remove(of_series, '')::integer[])
        and s.valid_time between since and until
    group by 1
    order by 1;
end;

comment on function dashboard_accuracy_by_period is 'scores of stored forecasts by calendar period';

-- How often values fell into each tenth of their forecast's distribution: a tenth each, if the forecast is right. Too
-- often at both ends: intervals are too narrow; in the middle: too wide; at one end: biased.
create function dashboard_pit(of_tenant text, of_panel text, of_series text[], since timestamptz, until timestamptz)
returns table (tenth text, share double precision, uniform double precision)
language sql stable security definer
begin atomic
    select
        to_char((b.bin - 1) / 10.0, 'FM0.0') || '–' || to_char(b.bin / 10.0, 'FM0.0'),
        coalesce(count(s.pit) / nullif(sum(count(s.pit)) over (), 0), 0)::double precision,
        0.1::double precision
    from generate_series(1, 10) as b (bin)
    left join score s
        on least(width_bucket(s.pit, 0, 1, 10), 10) = b.bin
        and s.tenant_id = nullif(of_tenant, '')::integer and s.panel_id = nullif(of_panel, '')::integer
        and s.series_id = any (array_remove(of_series, '')::integer[])
        and s.valid_time between since and until
    group by b.bin
    order by b.bin;
end;

comment on function dashboard_pit is 'how often values fell into each tenth of their forecast''s distribution';

-- Where forecasts lean, by hour of the panel's clock and quarter of the longest lead: mean of the probability integral
-- transform, minus a half. Positive: values come out above the forecast.
create function dashboard_lean(of_tenant text, of_panel text, of_series text[], since timestamptz, until timestamptz)
returns table (
    hour integer, first_quarter double precision, second_quarter double precision, third_quarter double precision,
    last_quarter double precision
)
language sql stable security definer
begin atomic
    select
        q.hour,
        avg(q.pit) filter (where q.quarter = 1) - 0.5, avg(q.pit) filter (where q.quarter = 2) - 0.5,
        avg(q.pit) filter (where q.quarter = 3) - 0.5, avg(q.pit) filter (where q.quarter = 4) - 0.5
    from (
        select
            extract(hour from s.valid_time at time zone p.time_zone)::integer as hour, s.pit,
            ceil(4.0 * s.step / max(s.step) over ())::integer as quarter
        from score s
        join panel p on p.tenant_id = s.tenant_id and p.panel_id = s.panel_id
        where s.tenant_id = nullif(of_tenant, '')::integer and s.panel_id = nullif(of_panel, '')::integer
            and s.series_id = any (array_remove(of_series, '')::integer[])
            and s.valid_time between since and until
    ) q
    group by q.hour
    order by q.hour;
end;

comment on function dashboard_lean is 'where forecasts lean, by hour of the day and quarter of the lead';

-- How candidates did on the same windows as what they were to replace.
create view dashboard_comparison as
select
    c.tenant_id, m.panel_id, m.version, m.stage, c.reference, champion.version as champion_version, c.compared_at,
    c.decision, c.is_flagged, c.reason, c.difference, c.difference_lower, c.difference_upper,
    cardinality(c.issue_times) as n_windows,
    (select avg(x) from unnest(c.candidate_crps) as x) as candidate_crps,
    (select avg(x) from unnest(c.reference_crps) as x) as reference_crps,
    (select avg(x) from unnest(c.candidate_coverage_80) as x) as candidate_coverage_80,
    (select avg(x) from unnest(c.reference_coverage_80) as x) as reference_coverage_80
from model_comparison c
join model m on m.tenant_id = c.tenant_id and m.model_id = c.model_id
left join model champion on champion.tenant_id = c.tenant_id and champion.model_id = c.champion_model_id;

comment on view dashboard_comparison is 'how candidates did on the same windows as what they were to replace';

-- Alarms: scores of a model are worse than its backtest let expect, beyond chance.
create view dashboard_drift as
select
    d.tenant_id, d.panel_id, m.version, d.kind, d.issue_time, d.raised_at, d.observed, d.expected, d.statistic, d.threshold,
    d.n_forecasts, d.message
from drift_event d
join model m on m.tenant_id = d.tenant_id and m.model_id = d.model_id;

comment on view dashboard_drift is 'alarms: a model does worse than its backtest let expect';

-- For alert rules: the lowest share of values inside their 80 % interval, over the panels with at least so many values that
-- came within so long before now. One row, 0.8 where there is no such panel.
create function dashboard_recent_coverage(within interval, least_values integer)
returns table (coverage_80 double precision)
language sql stable security definer
begin atomic
    select coalesce(min(c.coverage_80), 0.8)
    from (
        select avg(s.inside_80::integer)::double precision as coverage_80
        from score s
        where s.valid_time between now() - within and now()
        group by s.tenant_id, s.panel_id
        having count(*) >= least_values
    ) c;
end;

comment on function dashboard_recent_coverage is 'lowest share of recent values inside their 80 % interval';

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
