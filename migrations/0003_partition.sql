-- Partitions on demand.
--
-- The large tables are partitioned by time, so that a query reads only the periods that it asks for, and old data can
-- be detached and dropped instead of deleted. Nobody should have to run a job for that: whoever writes rows calls
-- ensure_partitions with their times first.
--
-- Each large table also has a default partition, as a safety net: a row that somebody inserts by hand is kept,
-- whatever its time. Postgres refuses to create a partition while the default one holds rows of its period, so such
-- rows are moved first. Times before 1800 or after 2199 always stay in the default partition, which bounds the number
-- of partitions whatever a file holds.
--
-- Call it in a short transaction of its own, before the one that writes, and never in one that has written to a table
-- that the partitioned one refers to. Attaching a partition locks those tables against writes, and the default
-- partition exclusively, until the end of the transaction. A partition that stays empty because the load that wanted
-- it failed costs nothing.
create function ensure_partitions(parent regclass, unit text, times timestamptz[])
returns integer
language plpgsql
-- Whoever waits for a lock makes others wait behind it.
set lock_timeout = '5s'
-- Periods are those of UTC and their bounds are written as text, whatever the session's settings.
set timezone = 'UTC'
set datestyle = 'ISO'
as $$
declare
    schema_name    text;
    parent_name    text;
    referenced     text;
    time_column    text;
    default_name   text;
    partition_name text;
    period_format  text;
    period_start   timestamptz;
    period_end     timestamptz;
    n_created      integer := 0;
begin
    period_format := case unit when 'year' then '"_y"YYYY' when 'month' then '"_y"YYYY"m"MM' end;
    if period_format is null then
        raise exception 'the unit of partitions is year or month, not %', unit
            using errcode = 'invalid_parameter_value';
    end if;

    select n.nspname, c.relname, a.attname
    into strict schema_name, parent_name, time_column
    from pg_partitioned_table p
    join pg_class c on c.oid = p.partrelid
    join pg_namespace n on n.oid = c.relnamespace
    join pg_attribute a on a.attrelid = p.partrelid and a.attnum = p.partattrs[0]
    where p.partrelid = parent;
    default_name := format('%I.%I', schema_name, parent_name || '_default');

    for period_start in
        select distinct date_trunc(unit, t)
        from unnest(times) as t
        where t >= '1800-01-01 00:00:00+00' and t < '2200-01-01 00:00:00+00'
        order by 1
    loop
        period_end := period_start + ('1 ' || unit)::interval;
        partition_name := format('%I.%I', schema_name, parent_name || to_char(period_start, period_format));
        continue when to_regclass(partition_name) is not null;

        -- The usual call finds everything in place and locks nothing. Where something is missing, wait first for those
        -- who write, in a way that readers do not notice: a long load holds both locks. Only then close the default
        -- partition, for a moment. Then look again, since one creator at a time gets here.
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
        execute format('lock table %s in access exclusive mode', default_name);
        continue when to_regclass(partition_name) is not null;

        execute format('create table %s (like %s including all)', partition_name, parent);
        execute format(
            'with moved as (delete from %s where %I >= %L and %2$I < %4$L returning *) '
            'insert into %5$s select * from moved',
            default_name, time_column, period_start, period_end, partition_name
        );
        execute format(
            'alter table %s attach partition %s for values from (%L) to (%L)',
            parent, partition_name, period_start, period_end
        );
        n_created := n_created + 1;
    end loop;

    return n_created;
end
$$;

comment on function ensure_partitions is
    'creates the missing partitions of a table for the given times and returns how many it created';
