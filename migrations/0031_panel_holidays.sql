-- The country whose public holidays models of a panel are told of: an ISO 3166 code of two letters.

alter table panel add column holidays text;

alter table panel add constraint panel_holidays_check check (holidays ~ '^[A-Z]{2}$') not valid;
alter table panel validate constraint panel_holidays_check;
