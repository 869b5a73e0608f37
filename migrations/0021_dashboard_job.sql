-- What dashboards read about jobs, schedules, workers and loads: see 0012_dashboard.sql for the rules.

create view dashboard_job as
select
    j.tenant_id, j.job_id, j.kind, coalesce(p.name, '') as panel, j.asked_by, j.state,
    coalesce(j.failure, j.activity) as activity, j.attempts, coalesce(j.worker, '') as worker, j.created_at, j.started_at,
    j.finished_at, extract(epoch from coalesce(j.finished_at, now()) - j.started_at)::double precision as seconds
from job j
left join panel p on p.tenant_id = j.tenant_id and p.panel_id = j.panel_id;

comment on view dashboard_job is 'jobs, with what became of them';

create view dashboard_schedule as
select
    s.tenant_id, s.name as schedule, s.kind, coalesce(p.name, '') as panel, s.cron, s.time_zone, s.next_run, s.last_run,
    case when s.paused then 'paused' else coalesce(j.state, 'not yet') end as last_state,
    -- Negative while it is not due; nothing for one that is paused.
    extract(epoch from now() - s.next_run)::double precision as overdue_seconds
from schedule s
left join panel p on p.tenant_id = s.tenant_id and p.panel_id = s.panel_id
left join lateral (
    select job.state
    from job
    where job.tenant_id = s.tenant_id and job.schedule_id = s.schedule_id
    order by job.scheduled_for desc
    limit 1
) j on true;

comment on view dashboard_schedule is 'schedules, when they are due, and what became of their last job';

create view dashboard_worker as
select
    tenant_id, name as worker, started_at, seen_at, scheduled_at,
    extract(epoch from now() - seen_at)::double precision as silent_seconds
from worker;

comment on view dashboard_worker is 'workers, and how long ago each was last seen';

create view dashboard_load as
select
    l.tenant_id, l.load_id, p.panel_id, l.panel, coalesce(n.name, '') as pipeline, l.source, l.status, coalesce(l.failure, '') as failure,
    l.n_inserted, l.n_corrected, l.n_unchanged, l.n_rejected, coalesce(l.quarantine, '') as quarantine, l.started_at,
    l.finished_at
from load l
left join panel p on p.tenant_id = l.tenant_id and p.name = l.panel
left join pipeline n on n.tenant_id = l.tenant_id and n.pipeline_id = l.pipeline_id;

comment on view dashboard_load is 'what was loaded, and how much of it';

-- What was wrong with what was loaded in a time range, by code: rows that were not taken, and what was noticed in those that
-- were.
create function dashboard_finding(of_tenant text, of_panel text, since timestamptz, until timestamptz)
returns table (code text, what text, n bigint, n_loads bigint, newest timestamptz)
language sql stable security definer
begin atomic
    select counted.key, counted.what, sum(counted.value::bigint)::bigint, count(*), max(l.started_at)
    from load l
    join panel p on p.tenant_id = l.tenant_id and p.name = l.panel
    cross join lateral (
        select key, value, 'rejected' as what from jsonb_each_text(l.report -> 'n_rejected')
        union all
        select key, value, 'noticed' from jsonb_each_text(l.report -> 'n_findings')
    ) as counted
    where l.tenant_id = nullif(of_tenant, '')::integer and p.panel_id = nullif(of_panel, '')::integer
        and l.started_at between since and until
    group by counted.key, counted.what
    order by 2 desc, 3 desc, 1;
end;

revoke execute on function dashboard_finding from public;

comment on function dashboard_finding is 'what was wrong with loads, by code';
