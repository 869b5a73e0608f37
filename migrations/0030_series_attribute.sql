-- What else is known of a series and does not change with time: its site, its capacity.

alter table series add column attributes jsonb not null default '{}';

alter table series add constraint series_attributes_check check (jsonb_typeof(attributes) = 'object') not valid;
alter table series validate constraint series_attributes_check;
