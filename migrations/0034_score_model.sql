-- Scores have no foreign key to models. A score goes with its forecast, which refers to the same model: a model that a
-- score names has a forecast, and cannot be deleted.
--
-- Such a key says nothing more, and would make each deletion of a model look for its scores, by an index that takes
-- room and time with each score, or by reading all of them.
alter table score drop constraint score_model_fkey;
alter table forecast_score drop constraint forecast_score_model_fkey;
alter table score_replaced drop constraint score_replaced_model_fkey;
