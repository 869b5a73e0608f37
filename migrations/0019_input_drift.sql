-- Alarms of inputs that are not like those that a model has learned from. Releases before this one cannot read these kinds,
-- so they are written only once all processes run this one.
alter table drift_event drop constraint drift_event_kind_check;
alter table drift_event add constraint drift_event_kind_check check (
    kind in ('crps-high', 'coverage-low', 'coverage-high', 'input-level', 'input-variance', 'input-missing')
);

-- Inputs are tested apart from scores, and may raise an alarm of the same instant: for them, issue_time is the end of the
-- season at which it was raised, and n_forecasts the number of seasons.
alter table drift_event drop constraint drift_event_issue_time_key;
alter table drift_event add constraint drift_event_issue_time_key unique (tenant_id, model_id, issue_time, kind);
