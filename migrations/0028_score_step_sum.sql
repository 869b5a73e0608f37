-- Sums of scores by step and model, beside those by value (0023_score_sum.sql): what is said of leads, series and models
-- over weeks and months then reads a row per step and day, not one per value.
--
-- Of the days at the ends of a time range, which it cuts, scores are read one by one (score_part); so the sums are as exact
-- as scores for any range.
--
-- What was said of score_sum holds here: triggers keep the sums, exactly, in the transaction that changes scores.
create table score_step_sum (
    tenant_id            integer     not null,
    panel_id             integer     not null,
    series_id            integer     not null,

    -- Start of the period of UTC that the values lie in, see score_period.
    period               timestamptz not null,

    -- Of the forecast, as in score.
    step                 integer     not null,
    model_id             integer     not null,

    -- As in score_sum.
    n_values             bigint      not null,
    magnitude            numeric     not null,
    crps                 numeric     not null,
    absolute_error       numeric     not null,
    naive_absolute_error numeric     not null,
    n_inside_50          bigint      not null,
    n_inside_80          bigint      not null,
    n_inside_90          bigint      not null,
    pit                  numeric     not null,
    pit_counts           bigint[]    not null,

    -- What a row refers to is there as long as the scores are that it sums up.
    constraint score_step_sum_pkey primary key (tenant_id, panel_id, series_id, period, step, model_id)
)
-- Rows are updated in place, as value after value is scored.
with (fillfactor = 70);

-- The period by which scores of a panel are summed up: a day of UTC holds many values, or else a month does. Partitions of
-- score are months of UTC, so that no period lies in two.
create function score_period(frequency text) returns text
language sql immutable parallel safe
return case when dashboard_interval(frequency) < interval '1 day' then 'day' else 'month' end;

-- What score_step_sum should hold: a full count, to fill and to check it.
create view score_step_sum_recounted as
select
    s.tenant_id, s.panel_id, s.series_id, date_trunc(score_period(p.frequency), s.valid_time, 'UTC') as period, s.step,
    s.model_id,
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
join panel p on p.tenant_id = s.tenant_id and p.panel_id = s.panel_id
group by 1, 2, 3, 4, 5, 6;

comment on view score_step_sum_recounted is 'what score_step_sum should hold, by a full count';

-- Adds the rows that a statement has written (argument 1), or takes away those that were there before (-1).
create function keep_score_step_sum() returns trigger
language plpgsql
as $$
declare
    sign constant integer not null := tg_argv[0];
begin
    insert into score_step_sum as kept (
        tenant_id, panel_id, series_id, period, step, model_id, n_values, magnitude, crps, absolute_error,
        naive_absolute_error, n_inside_50, n_inside_80, n_inside_90, pit, pit_counts
    )
    select
        s.tenant_id, s.panel_id, s.series_id, date_trunc(score_period(p.frequency), s.valid_time, 'UTC'), s.step, s.model_id,
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
    join panel p on p.tenant_id = s.tenant_id and p.panel_id = s.panel_id
    group by 1, 2, 3, 4, 5, 6
    -- In the order of the key, so that nobody waits in a circle.
    order by 1, 2, 3, 4, 5, 6
    on conflict on constraint score_step_sum_pkey do update
    set n_values = kept.n_values + excluded.n_values, magnitude = kept.magnitude + excluded.magnitude,
        crps = kept.crps + excluded.crps, absolute_error = kept.absolute_error + excluded.absolute_error,
        naive_absolute_error = kept.naive_absolute_error + excluded.naive_absolute_error,
        n_inside_50 = kept.n_inside_50 + excluded.n_inside_50, n_inside_80 = kept.n_inside_80 + excluded.n_inside_80,
        n_inside_90 = kept.n_inside_90 + excluded.n_inside_90, pit = kept.pit + excluded.pit,
        pit_counts = array(select a + b from unnest(kept.pit_counts, excluded.pit_counts) as tenth (a, b));

    if sign < 0 then
        delete from score_step_sum kept
        using (
            select distinct s.tenant_id, s.panel_id, s.series_id,
                date_trunc(score_period(p.frequency), s.valid_time, 'UTC') as period
            from changed s
            join panel p on p.tenant_id = s.tenant_id and p.panel_id = s.panel_id
        ) as c
        where kept.tenant_id = c.tenant_id and kept.panel_id = c.panel_id and kept.series_id = c.series_id
            and kept.period = c.period and kept.n_values = 0;
    end if;
    return null;
end
$$;

comment on function keep_score_step_sum is 'keeps score_step_sum by what a statement changes of score';

-- From here on nobody writes scores until this is committed: none is missed, none is counted twice.
create trigger score_step_sum_insert after insert on score
referencing new table as changed for each statement execute function keep_score_step_sum('1');

create trigger score_step_sum_delete after delete on score
referencing old table as changed for each statement execute function keep_score_step_sum('-1');

-- In the order of their names.
create trigger score_step_sum_update_1 after update on score
referencing old table as changed for each statement execute function keep_score_step_sum('-1');

create trigger score_step_sum_update_2 after update on score
referencing new table as changed for each statement execute function keep_score_step_sum('1');

insert into score_step_sum
select
    tenant_id, panel_id, series_id, period, step, model_id, n_values, magnitude, crps, absolute_error, naive_absolute_error,
    n_inside_50, n_inside_80, n_inside_90, pit, pit_counts
from score_step_sum_recounted;

-- As in 0023_score_sum, and with a partition of scores go both sums of its period.
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
        delete from score_step_sum kept
        using series s, partitions(parent) p
        where p.name = partition::text
            and kept.tenant_id = s.tenant_id and kept.panel_id = s.panel_id and kept.series_id = s.series_id
            and kept.period >= p.lower_bound and kept.period < p.upper_bound;
    end if;
    execute format('drop table %s', partition);
end
$$;


-- Reading -------------------------------------------------------------------------------------------------------------

-- Scores of some series over the values from `since` to `until`, both included, by series, step and model: from the sums
-- of the periods that lie in between, and from the scores of what is left at the ends.
create function score_part(
    of_tenant integer, of_panel integer, of_series integer[], since timestamptz, until timestamptz
)
returns table (
    series_id integer, step integer, model_id integer, n_values bigint, magnitude double precision, crps double precision,
    absolute_error double precision, naive_absolute_error double precision, n_inside_50 bigint, n_inside_80 bigint,
    n_inside_90 bigint, pit double precision, pit_counts bigint[]
)
language sql stable
begin atomic
    with whole as materialized (
        -- Whole periods are those from `first` on and before `last`; there may be none.
        select w.first, greatest(w.first, date_trunc(w.unit, until + interval '1 microsecond', 'UTC')) as last
        from (
            select
                score_period(p.frequency) as unit,
                (
                    date_trunc(score_period(p.frequency), (since - interval '1 microsecond') at time zone 'UTC')
                    + ('1 ' || score_period(p.frequency))::interval
                ) at time zone 'UTC' as first
            from panel p
            where p.tenant_id = of_tenant and p.panel_id = of_panel
        ) as w
    )
    select
        s.series_id, s.step, s.model_id, sum(s.n_values)::bigint, sum(s.magnitude)::double precision,
        sum(s.crps)::double precision, sum(s.absolute_error)::double precision,
        sum(s.naive_absolute_error)::double precision, sum(s.n_inside_50)::bigint, sum(s.n_inside_80)::bigint,
        sum(s.n_inside_90)::bigint, sum(s.pit)::double precision,
        array[
            sum(s.pit_counts[1]), sum(s.pit_counts[2]), sum(s.pit_counts[3]), sum(s.pit_counts[4]), sum(s.pit_counts[5]),
            sum(s.pit_counts[6]), sum(s.pit_counts[7]), sum(s.pit_counts[8]), sum(s.pit_counts[9]), sum(s.pit_counts[10])
        ]::bigint[]
    from score_step_sum s
    where s.tenant_id = of_tenant and s.panel_id = of_panel and s.series_id = any (of_series)
        and s.period >= (select first from whole) and s.period < (select last from whole)
    group by 1, 2, 3
    union all
    select
        e.series_id, e.step, e.model_id, count(*), sum(abs(e.value)), sum(e.crps),
        coalesce(sum(e.absolute_error) filter (where e.naive_absolute_error is not null), 0),
        coalesce(sum(e.naive_absolute_error), 0),
        count(*) filter (where e.inside_50), count(*) filter (where e.inside_80), count(*) filter (where e.inside_90),
        sum(e.pit),
        array[
            count(*) filter (where e.pit < 0.1), count(*) filter (where e.pit >= 0.1 and e.pit < 0.2),
            count(*) filter (where e.pit >= 0.2 and e.pit < 0.3), count(*) filter (where e.pit >= 0.3 and e.pit < 0.4),
            count(*) filter (where e.pit >= 0.4 and e.pit < 0.5), count(*) filter (where e.pit >= 0.5 and e.pit < 0.6),
            count(*) filter (where e.pit >= 0.6 and e.pit < 0.7), count(*) filter (where e.pit >= 0.7 and e.pit < 0.8),
            count(*) filter (where e.pit >= 0.8 and e.pit < 0.9), count(*) filter (where e.pit >= 0.9)
        ]
    from (
        select s.* from score s
        where s.tenant_id = of_tenant and s.panel_id = of_panel and s.series_id = any (of_series)
            and s.valid_time >= since and s.valid_time < (select first from whole) and s.valid_time <= until
        union all
        select s.* from score s
        where s.tenant_id = of_tenant and s.panel_id = of_panel and s.series_id = any (of_series)
            and s.valid_time >= (select last from whole) and s.valid_time <= until
    ) as e
    group by 1, 2, 3;
end;

comment on function score_part is 'scores over a time range by series, step and model, from sums but for its ends';

-- As in 0014_dashboard_accuracy.
create or replace function dashboard_accuracy_by_step(
    of_tenant text, of_panel text, of_series text[], since timestamptz, until timestamptz
)
returns table (
    step integer, n_values bigint, crps double precision, skill double precision,
    coverage_50 double precision, coverage_80 double precision, coverage_90 double precision
)
language sql stable security definer
begin atomic
    select
        s.step, sum(s.n_values)::bigint,
        sum(s.crps) / nullif(sum(s.magnitude), 0),
        1 - sum(s.absolute_error) / nullif(sum(s.naive_absolute_error), 0),
        (sum(s.n_inside_50) / sum(s.n_values))::double precision,
        (sum(s.n_inside_80) / sum(s.n_values))::double precision,
        (sum(s.n_inside_90) / sum(s.n_values))::double precision
    from score_part(
        nullif(of_tenant, '')::integer, nullif(of_panel, '')::integer, array_remove(of_series, '')::integer[], since, until
    ) s
    group by s.step
    order by s.step;
end;
