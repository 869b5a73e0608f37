-- Makes the role of the setting plumecast.reader_role, or brings it up to date: it may read the views and call the
-- functions whose names begin with dashboard_, and nothing else. Roles belong to the whole server, so it may exist, made
-- by another database or by an administrator; what a later migration adds is granted by running this again.
--
-- Names and password come as settings of the transaction, because a `do` block takes no parameters and the password
-- must not become part of a statement that is logged.
do $$
declare
    reader   constant name := current_setting('plumecast.reader_role');
    password constant text := current_setting('plumecast.reader_password');
    granted  record;
begin
    -- Two that grant on the same view at once would fail.
    perform pg_advisory_xact_lock(hashtext('plumecast.reader_role'));

    if not exists (select from pg_roles where rolname = reader) then
        begin
            execute format('create role %I login', reader);
        exception when duplicate_object or unique_violation then
            null; -- Another database of this server has made it in the meantime.
        end;
    end if;
    if exists (
        select from pg_roles r
        where r.rolname = reader and (
            r.rolsuper or r.rolcreaterole or r.rolcreatedb or r.rolbypassrls or r.rolreplication
            or pg_has_role(r.oid, (select datdba from pg_database where datname = current_database()), 'member')
        )
    ) then
        raise exception 'role % may do more than read', reader using errcode = 'invalid_role_specification';
    end if;
    if password <> '' then
        execute format('alter role %I password %L', reader, password);
    end if;

    execute format('alter role %I in database %I set default_transaction_read_only = on', reader, current_database());
    execute format('alter role %I in database %I set statement_timeout = %L', reader, current_database(), '30s');
    execute format('alter role %I in database %I set timezone = %L', reader, current_database(), 'UTC');
    execute format('revoke all on all tables in schema %I from %I', current_schema(), reader);
    execute format('grant connect on database %I to %I', current_database(), reader);
    execute format('grant usage on schema %I to %I', current_schema(), reader);
    for granted in
        select c.oid::regclass::text as object from pg_class c
        where c.relnamespace = current_schema()::regnamespace and c.relkind = 'v' and c.relname like 'dashboard\_%'
    loop
        execute format('grant select on %s to %I', granted.object, reader);
    end loop;
    for granted in
        select p.oid::regprocedure::text as object from pg_proc p
        where p.pronamespace = current_schema()::regnamespace and p.proname like 'dashboard\_%'
    loop
        execute format('grant execute on function %s to %I', granted.object, reader);
    end loop;
end
$$
