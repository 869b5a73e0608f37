-- How old data go: whole partitions where nothing in them is to be kept. What is to be kept is the code's to say
-- (api/src/db/retention/).

-- The partitions of a table with their bounds, the earliest first, without the default one.
create function partitions(parent regclass)
returns table (name text, lower_bound timestamptz, upper_bound timestamptz, bytes bigint)
language sql
stable
-- Bounds are written as text, by the session's settings.
set timezone = 'UTC'
set datestyle = 'ISO'
as $$
    select
        c.oid::regclass::text, (bounds.texts)[1]::timestamptz, (bounds.texts)[2]::timestamptz,
        pg_total_relation_size(c.oid)
    from pg_inherits i
    join pg_class c on c.oid = i.inhrelid
    cross join lateral (
        select regexp_match(pg_get_expr(c.relpartbound, c.oid), 'FROM \(''([^'']+)''\) TO \(''([^'']+)''\)')
    ) as bounds (texts)
    where i.inhparent = parent and bounds.texts is not null
    order by 2
$$;

comment on function partitions is 'the partitions of a table with their bounds, without the default one';

-- Drops one. The caller has seen, under a lock that keeps writers out of it, that nothing in it is to be kept.
--
-- Dropping needs the table, and those that it refers to, for a moment alone. As in ensure_partitions, writers are waited
-- for first, in a way that readers do not notice.
create function drop_partition(parent regclass, partition regclass)
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
    execute format('drop table %s', partition);
end
$$;

comment on function drop_partition is 'drops a partition of a table; waits for writers, but not long for readers';
