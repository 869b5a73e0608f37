-- Totals over some hours: those of the dashboard's time range, of which one may drag out any part. As in 0012_dashboard,
-- which takes the whole horizon.

create function dashboard_total(
    of_tenant text, of_forecast text, of_series text[], combine text, since timestamptz, until timestamptz
)
returns table (sample integer, total double precision)
language sql stable security definer
begin atomic
    select sample, case combine when 'mean' then avg(value) else sum(value) end
    from dashboard_sample(of_tenant, of_forecast, of_series, combine)
    where valid_time between since and until
    group by sample
    order by sample;
end;

comment on function dashboard_total(text, text, text[], text, timestamptz, timestamptz)
is 'one number per trajectory: the combined series over the steps of a time range';

create function dashboard_total_interval(
    of_tenant text, of_forecast text, of_series text[], combine text, since timestamptz, until timestamptz
)
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
        from dashboard_total(of_tenant, of_forecast, of_series, combine, since, until)
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
                and v.valid_time between since and until
                and v.series_id = any (array_remove(of_series, '')::integer[]) and v.step >= 1
        ) b
    ) a
    where j.q is not null;
end;

comment on function dashboard_total_interval(text, text, text[], text, timestamptz, timestamptz)
is 'the 90 % interval of that total, from trajectories and by adding quantiles';

revoke execute on function dashboard_total(text, text, text[], text, timestamptz, timestamptz) from public;
revoke execute on function dashboard_total_interval(text, text, text[], text, timestamptz, timestamptz) from public;
