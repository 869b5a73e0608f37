-- Scores that a correction has replaced, so that what was known of forecasts at a past instant can still be read.

-- A score as it stood from scored_at until replaced_at, when the value was scored anew. Few values are corrected, so this
-- table has no partitions; its rows go with their forecast, and with the partition that their score lies in.
create table score_replaced (
    like score,
    replaced_at timestamptz not null,

    constraint score_replaced_pkey
        primary key (tenant_id, panel_id, series_id, step, valid_time, forecast_id, replaced_at),
    constraint score_replaced_forecast_fkey foreign key (tenant_id, forecast_id) references forecast on delete cascade,
    constraint score_replaced_model_fkey foreign key (tenant_id, model_id) references model (tenant_id, model_id),
    constraint score_replaced_times_check check (scored_at < replaced_at)
);

create index score_replaced_forecast_idx on score_replaced (tenant_id, forecast_id);
create index score_replaced_valid_time_idx on score_replaced (tenant_id, panel_id, valid_time);

create function keep_score_replaced() returns trigger
language plpgsql
as $$
begin
    insert into score_replaced
    select b.*, a.scored_at
    from before b
    join after a using (tenant_id, panel_id, series_id, step, valid_time, forecast_id)
    where b.value is distinct from a.value and b.scored_at < a.scored_at;
    return null;
end
$$;

comment on function keep_score_replaced is 'keeps in score_replaced what a statement replaces in score';

create trigger score_replaced_update after update on score
referencing old table as before new table as after for each statement execute function keep_score_replaced();

-- Scores of a panel as they stood at an instant.
create function score_as_of(of_tenant integer, of_panel integer, as_of timestamptz) returns setof score
language sql stable
begin atomic
    select s.*
    from score s
    where s.tenant_id = of_tenant and s.panel_id = of_panel and s.scored_at <= as_of
    union all
    select
        r.tenant_id, r.panel_id, r.series_id, r.step, r.valid_time, r.forecast_id, r.model_id, r.issue_time, r.value, r.crps,
        r.pinball, r.absolute_error, r.naive_absolute_error, r.inside_50, r.inside_80, r.inside_90, r.pit, r.scored_at
    from score_replaced r
    where r.tenant_id = of_tenant and r.panel_id = of_panel and r.scored_at <= as_of and r.replaced_at > as_of;
end;

comment on function score_as_of is 'scores of a panel as they stood at an instant';

-- Deletes what is kept of the scores of a period beside them. What is kept more one day is added here, not in drop_partition.
create function delete_kept_of_scores(since timestamptz, until timestamptz)
returns void
language sql
begin atomic
    delete from score_sum kept
    using series s
    where kept.tenant_id = s.tenant_id and kept.panel_id = s.panel_id and kept.series_id = s.series_id
        and kept.valid_time >= since and kept.valid_time < until;
    delete from score_step_sum kept
    using series s
    where kept.tenant_id = s.tenant_id and kept.panel_id = s.panel_id and kept.series_id = s.series_id
        and kept.period >= since and kept.period < until;
    delete from score_replaced kept
    using panel p
    where kept.tenant_id = p.tenant_id and kept.panel_id = p.panel_id
        and kept.valid_time >= since and kept.valid_time < until;
end;

comment on function delete_kept_of_scores is 'deletes what is kept of the scores of a period beside them';

-- As in 0018_retention, and with a partition of scores goes what is kept of its period.
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
        perform delete_kept_of_scores(p.lower_bound, p.upper_bound) from partitions(parent) p where p.name = partition::text;
    end if;
    execute format('drop table %s', partition);
end
$$;
