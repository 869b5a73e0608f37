-- Sums of scores, so that what is said of weeks and months of them need not read each one.
--
-- One row sums up the scores of a value by the forecasts that were as far ahead of it, by quarter of their horizon. An hourly
-- forecast of two days has 48 scores of a value and four rows here; one forecast a day has as many rows as scores. Rows are
-- by value and not by day, since days are those of a clock, and dashboards cut their time range where they like.
--
-- Triggers add and take away what each statement changes, in its own transaction and whoever makes it. Sums are `numeric`,
-- and each score is turned into one before it is added: then what was added is exactly what is taken away, in any order, and
-- sums never drift from what they sum up. Only truncating tables and dropping partitions by hand goes unnoticed;
-- score_sum_recounted says what should be there.
create table score_sum (
    tenant_id            integer     not null,
    panel_id             integer     not null,
    series_id            integer     not null,
    valid_time           timestamptz not null,

    -- 1 to 4: how far ahead of the value the forecasts were made, by quarter of the horizon of each.
    quarter              smallint    not null,

    n_values             bigint      not null,

    -- Of |value|, and of what is called the same in score; absolute_error where that of the season before is known.
    magnitude            numeric     not null,
    crps                 numeric     not null,
    absolute_error       numeric     not null,
    naive_absolute_error numeric     not null,
    n_inside_50          bigint      not null,
    n_inside_80          bigint      not null,
    n_inside_90          bigint      not null,
    pit                  numeric     not null,

    -- How many values lie in each tenth of the predictive distribution.
    pit_counts           bigint[]    not null,

    constraint score_sum_pkey primary key (tenant_id, panel_id, series_id, valid_time, quarter),
    constraint score_sum_series_fkey foreign key (tenant_id, panel_id, series_id)
        references series (tenant_id, panel_id, series_id)
)
-- Rows are updated in place, as forecast after forecast is scored by a new value.
with (fillfactor = 70);

-- What score_sum should hold: a full count, to fill and to check it.
create view score_sum_recounted as
select
    s.tenant_id, s.panel_id, s.series_id, s.valid_time, ceil(4.0 * s.step / f.horizon)::smallint as quarter,
    count(*) as n_values, sum(abs(s.value)::numeric) as magnitude, sum(s.crps::numeric) as crps,
    coalesce(sum(s.absolute_error::numeric) filter (where s.naive_absolute_error is not null), 0) as absolute_error,
    coalesce(sum(s.naive_absolute_error::numeric), 0) as naive_absolute_error,
    count(*) filter (where s.inside_50) as n_inside_50, count(*) filter (where s.inside_80) as n_inside_80,
    count(*) filter (where s.inside_90) as n_inside_90, sum(s.pit::numeric) as pit,
    array[
        count(*) filter (where s.pit < 0.1), count(*) filter (where s.pit >= 0.1 and s.pit < 0.2),
        count(*) filter (where s.pit >= 0.2 and s.pit < 0.3), count(*) filter (where s.pit >= 0.3 and s.pit < 0.4),
        count(*) filter (where s.pit >= 0.4 and s.pit < 0.5), count(*) filter (where s.pit >= 0.5 and s.pit < 0.6),
        count(*) filter (where s.pit >= 0.6 and s.pit < 0.7), count(*) filter (where s.pit >= 0.7 and s.pit < 0.8),
        count(*) filter (where s.pit >= 0.8 and s.pit < 0.9), count(*) filter (where s.pit >= 0.9)
    ] as pit_counts
from score s
join forecast f on f.tenant_id = s.tenant_id and f.forecast_id = s.forecast_id
group by 1, 2, 3, 4, 5;

comment on view score_sum_recounted is 'what score_sum should hold, by a full count';

-- Adds the rows that a statement has written (argument 1), or takes away those that were there before (-1).
create function keep_score_sum() returns trigger
language plpgsql
as $$
declare
    sign constant integer not null := tg_argv[0];
begin
    insert into score_sum as kept (
        tenant_id, panel_id, series_id, valid_time, quarter, n_values, magnitude, crps, absolute_error,
        naive_absolute_error, n_inside_50, n_inside_80, n_inside_90, pit, pit_counts
    )
    select
        s.tenant_id, s.panel_id, s.series_id, s.valid_time, ceil(4.0 * s.step / f.horizon)::smallint,
        sign * count(*), sign * sum(abs(s.value)::numeric), sign * sum(s.crps::numeric),
        sign * coalesce(sum(s.absolute_error::numeric) filter (where s.naive_absolute_error is not null), 0),
        sign * coalesce(sum(s.naive_absolute_error::numeric), 0),
        sign * count(*) filter (where s.inside_50), sign * count(*) filter (where s.inside_80),
        sign * count(*) filter (where s.inside_90), sign * sum(s.pit::numeric),
        array[
            sign * count(*) filter (where s.pit < 0.1), sign * count(*) filter (where s.pit >= 0.1 and s.pit < 0.2),
            sign * count(*) filter (where s.pit >= 0.2 and s.pit < 0.3),
            sign * count(*) filter (where s.pit >= 0.3 and s.pit < 0.4),
            sign * count(*) filter (where s.pit >= 0.4 and s.pit < 0.5),
            sign * count(*) filter (where s.pit >= 0.5 and s.pit < 0.6),
            sign * count(*) filter (where s.pit >= 0.6 and s.pit < 0.7),
            sign * count(*) filter (where s.pit >= 0.7 and s.pit < 0.8),
            sign * count(*) filter (where s.pit >= 0.8 and s.pit < 0.9), sign * count(*) filter (where s.pit >= 0.9)
        ]
    from changed s
    join forecast f on f.tenant_id = s.tenant_id and f.forecast_id = s.forecast_id
    group by 1, 2, 3, 4, 5
    -- In the order of the key, so that nobody waits in a circle.
    order by 1, 2, 3, 4, 5
    on conflict on constraint score_sum_pkey do update
    set n_values = kept.n_values + excluded.n_values, magnitude = kept.magnitude + excluded.magnitude,
        crps = kept.crps + excluded.crps, absolute_error = kept.absolute_error + excluded.absolute_error,
        naive_absolute_error = kept.naive_absolute_error + excluded.naive_absolute_error,
        n_inside_50 = kept.n_inside_50 + excluded.n_inside_50, n_inside_80 = kept.n_inside_80 + excluded.n_inside_80,
        n_inside_90 = kept.n_inside_90 + excluded.n_inside_90, pit = kept.pit + excluded.pit,
        pit_counts = array(select a + b from unnest(kept.pit_counts, excluded.pit_counts) as tenth (a, b));

    if sign < 0 then
        delete from score_sum kept
        using (select distinct tenant_id, panel_id, series_id, valid_time from changed) as c
        where kept.tenant_id = c.tenant_id and kept.panel_id = c.panel_id and kept.series_id = c.series_id
            and kept.valid_time = c.valid_time and kept.n_values = 0;
    end if;
    return null;
end
$$;

comment on function keep_score_sum is 'keeps score_sum by what a statement changes of score';

-- From here on nobody writes scores until this is committed: none is missed, none is counted twice.
create trigger score_sum_insert after insert on score
referencing new table as changed for each statement execute function keep_score_sum('1');

create trigger score_sum_delete after delete on score
referencing old table as changed for each statement execute function keep_score_sum('-1');

-- In the order of their names.
create trigger score_sum_update_1 after update on score
referencing old table as changed for each statement execute function keep_score_sum('-1');

create trigger score_sum_update_2 after update on score
referencing new table as changed for each statement execute function keep_score_sum('1');

insert into score_sum
select
    tenant_id, panel_id, series_id, valid_time, quarter, n_values, magnitude, crps, absolute_error, naive_absolute_error,
    n_inside_50, n_inside_80, n_inside_90, pit, pit_counts
from score_sum_recounted;

-- The scores of a forecast go before its row does, which says how far ahead they are.
create function delete_scores_of_forecast() returns trigger
language plpgsql
as $$
begin
    delete from score
    where tenant_id = old.tenant_id and forecast_id = old.forecast_id
        and valid_time between old.first_valid_time and old.last_valid_time;
    return old;
end
$$;

create trigger forecast_delete before delete on forecast
for each row execute function delete_scores_of_forecast();

-- As in 0018_retention, and with a partition of scores go the sums of its period.
create or replace function drop_partition(parent regclass, partition regclass)
returns void
language plpgsql
as $$
declare
    referenced text;
begin
    if not exists (select from pg_inherits where inhparent = parent and inhrelid = partition) then
        raise exception '% is no partition of %', partition, parent using errcode = 'invalid_parameter_value';
    end if;
    perform set_config('lock_timeout', '60s', true);
    for referenced in
        select distinct confrelid::regclass::text
        from pg_constraint
        where conrelid = parent and contype = 'f'
        order by 1
    loop
        execute format('lock table %s in share row exclusive mode', referenced);
    end loop;
    perform set_config('lock_timeout', '5s', true);
    if parent = 'score'::regclass then
        delete from score_sum kept
        using series s, partitions(parent) p
        where p.name = partition::text
            and kept.tenant_id = s.tenant_id and kept.panel_id = s.panel_id and kept.series_id = s.series_id
            and kept.valid_time >= p.lower_bound and kept.valid_time < p.upper_bound;
    end if;
    execute format('drop table %s', partition);
end
$$;


-- What dashboards read of scores, as in 0014_dashboard_accuracy, from sums but for what is by single steps ------------

create or replace function dashboard_accuracy_by_series(of_tenant text, of_panel text, since timestamptz, until timestamptz)
returns table (
    series text, n_values bigint, crps double precision, skill double precision,
    coverage_50 double precision, coverage_80 double precision, coverage_90 double precision
)
language sql stable security definer
begin atomic
    select
        n.name, sum(s.n_values)::bigint,
        (sum(s.crps) / nullif(sum(s.magnitude), 0))::double precision,
        (1 - sum(s.absolute_error) / nullif(sum(s.naive_absolute_error), 0))::double precision,
        (sum(s.n_inside_50) / sum(s.n_values))::double precision,
        (sum(s.n_inside_80) / sum(s.n_values))::double precision,
        (sum(s.n_inside_90) / sum(s.n_values))::double precision
    from series n
    join score_sum s on s.tenant_id = n.tenant_id and s.panel_id = n.panel_id and s.series_id = n.series_id
    where n.tenant_id = nullif(of_tenant, '')::integer and n.panel_id = nullif(of_panel, '')::integer
        and s.valid_time between since and until
    group by n.name
    order by 3 desc nulls last;
end;

create or replace function dashboard_accuracy_by_period(
    of_tenant text, of_panel text, of_series text[], since timestamptz, until timestamptz
)
returns table (
    period timestamptz, n_values bigint, crps double precision,
    coverage_50 double precision, coverage_80 double precision, coverage_90 double precision
)
language sql stable security definer
begin atomic
    select
        date_trunc(dashboard_period(p.frequency), s.valid_time, p.time_zone), sum(s.n_values)::bigint,
        (sum(s.crps) / nullif(sum(s.magnitude), 0))::double precision,
        (sum(s.n_inside_50) / sum(s.n_values))::double precision,
        (sum(s.n_inside_80) / sum(s.n_values))::double precision,
        (sum(s.n_inside_90) / sum(s.n_values))::double precision
    from score_sum s
    join panel p on p.tenant_id = s.tenant_id and p.panel_id = s.panel_id
    where s.tenant_id = nullif(of_tenant, '')::integer and s.panel_id = nullif(of_panel, '')::integer
        and s.series_id = any (array_remove(of_series, '')::integer[])
        and s.valid_time between since and until
    group by 1
    order by 1;
end;

create or replace function dashboard_pit(
    of_tenant text, of_panel text, of_series text[], since timestamptz, until timestamptz
)
returns table (tenth text, share double precision, uniform double precision)
language sql stable security definer
begin atomic
    select
        to_char((b.bin - 1) / 10.0, 'FM0.0') || '–' || to_char(b.bin / 10.0, 'FM0.0'),
        coalesce(sum(s.pit_counts[b.bin]) / nullif(sum(sum(s.pit_counts[b.bin])) over (), 0), 0)::double precision,
        0.1::double precision
    from generate_series(1, 10) as b (bin)
    left join score_sum s
        on s.tenant_id = nullif(of_tenant, '')::integer and s.panel_id = nullif(of_panel, '')::integer
        and s.series_id = any (array_remove(of_series, '')::integer[])
        and s.valid_time between since and until
    group by b.bin
    order by b.bin;
end;

-- Where forecasts lean, by hour of the panel's clock and quarter of the horizon: mean of the probability integral
-- transform, minus a half. Positive: values come out above the forecast.
create or replace function dashboard_lean(
    of_tenant text, of_panel text, of_series text[], since timestamptz, until timestamptz
)
returns table (
    hour integer, first_quarter double precision, second_quarter double precision, third_quarter double precision,
    last_quarter double precision
)
language sql stable security definer
begin atomic
    select
        extract(hour from s.valid_time at time zone p.time_zone)::integer,
        (sum(s.pit) filter (where s.quarter = 1) / sum(s.n_values) filter (where s.quarter = 1))::double precision - 0.5,
        (sum(s.pit) filter (where s.quarter = 2) / sum(s.n_values) filter (where s.quarter = 2))::double precision - 0.5,
        (sum(s.pit) filter (where s.quarter = 3) / sum(s.n_values) filter (where s.quarter = 3))::double precision - 0.5,
        (sum(s.pit) filter (where s.quarter = 4) / sum(s.n_values) filter (where s.quarter = 4))::double precision - 0.5
    from score_sum s
    join panel p on p.tenant_id = s.tenant_id and p.panel_id = s.panel_id
    where s.tenant_id = nullif(of_tenant, '')::integer and s.panel_id = nullif(of_panel, '')::integer
        and s.series_id = any (array_remove(of_series, '')::integer[])
        and s.valid_time between since and until
    group by 1
    order by 1;
end;

create or replace function dashboard_recent_coverage(within interval, least_values integer)
returns table (coverage_80 double precision)
language sql stable security definer
begin atomic
    select coalesce(min(c.coverage_80), 0.8)
    from (
        select (sum(s.n_inside_80) / sum(s.n_values))::double precision as coverage_80
        from series n
        join score_sum s on s.tenant_id = n.tenant_id and s.panel_id = n.panel_id and s.series_id = n.series_id
        where s.valid_time between now() - within and now()
        group by s.tenant_id, s.panel_id
        having sum(s.n_values) >= least_values
    ) c;
end;
