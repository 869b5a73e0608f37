-- A panel may declare that models are told of no holidays: where it has no country, a training finds the one whose holidays the values show.
-- A program from before this cannot read `none`: declare it when none of these runs any more.

alter table panel drop constraint panel_holidays_check;
alter table panel add constraint panel_holidays_check check (holidays ~ '^([A-Z]{2}|none)$') not valid;
alter table panel validate constraint panel_holidays_check;

-- Models say themselves what they were told of. One that was trained before its panel had a country reads none of it.
update model set config = model.config || jsonb_build_object('holidays', panel.holidays)
from panel
where (panel.tenant_id, panel.panel_id) = (model.tenant_id, model.panel_id) and panel.holidays is not null;
