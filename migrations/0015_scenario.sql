-- What a forecast supposes of the future: values, and conditions on the path, as they were asked for. Null for a plain
-- forecast.
--
-- A scenario is no forecast of its issue time: whoever looks for the latest forecast of a panel leaves scenarios out. How
-- likely its conditions are, and how well they were met, is in params.
alter table forecast add column scenario jsonb;

alter table forecast
    add constraint forecast_scenario_check check (jsonb_typeof(scenario) = 'object') not valid;

alter table forecast validate constraint forecast_scenario_check;
