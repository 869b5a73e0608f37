-- The forecasts that a value may belong to: those of its panel that do not end before it. Of a new value, these are the
-- newest.
--
-- A forecast is one row here, its values lie elsewhere: the index is made in a moment.
create index forecast_last_valid_time_idx on forecast (tenant_id, panel_version_id, last_valid_time);
