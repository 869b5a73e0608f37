-- Stores what is new among the given values: at most one value per series and valid_time in a call, by a transaction
-- that holds the rows of the series. See api/src/db/observation.rs for the rules.
--
-- $1 tenant_id, $2 load time, $3 publication delay of the panel, $4 … $9 the columns of the given values.
with given as (
    select series_id, valid_time, known_since, available_at, value, sd
    from unnest($4::integer[], $5::timestamptz[], $6::timestamptz[], $7::timestamptz[], $8::float8[], $9::float8[])
        as given (series_id, valid_time, known_since, available_at, value, sd)
),

-- What each is compared with: the value known at its available_at, or, if the source does not say, the latest one.
-- A source that states two values for the same instant has corrected itself since: again the latest one counts.
compared as (
    select
        given.series_id, given.valid_time, given.known_since, given.value, given.sd,
        case when given.available_at = known.available_at then null else given.available_at end as available_at,
        case when given.available_at = known.available_at then latest.available_at else known.available_at end
            as stored_available_at,
        case when given.available_at = known.available_at then latest.value else known.value end as stored_value,
        case when given.available_at = known.available_at then latest.sd else known.sd end as stored_sd,
        known.value is not distinct from given.value and known.sd is not distinct from given.sd as is_known
    from given
    left join lateral (
        select o.available_at, o.value, o.sd
        from observation o
        where o.tenant_id = $1 and o.series_id = given.series_id and o.valid_time = given.valid_time
          and o.available_at <= coalesce(given.available_at, 'infinity')
        order by o.available_at desc
        limit 1
    ) as known on true
    left join lateral (
        select o.available_at, o.value, o.sd
        from observation o
        where o.tenant_id = $1 and o.series_id = given.series_id and o.valid_time = given.valid_time
          and known.available_at = given.available_at
        order by o.available_at desc
        limit 1
    ) as latest on true
),

-- What is neither known nor stored as the latest is news.
news as (
    select
        series_id, valid_time, value, sd,
        case
            when available_at is not null then available_at
            -- Known since it was loaded, and after what it corrects even if clocks disagree.
            when stored_available_at is not null then greatest($2, stored_available_at + interval '1 microsecond')
            -- Nobody says when it became known. It cannot have been after it was loaded.
            else least(known_since + $3, $2)
        end as available_at,
        available_at is null and stored_available_at is null and known_since + $3 <= $2 as assumed,
        stored_available_at is not null as is_correction
    from compared
    where not is_known
      and (stored_available_at is null or (value, sd) is distinct from (stored_value, stored_sd))
),

stored as (
    insert into observation (tenant_id, series_id, valid_time, available_at, value, sd, assumed)
    select $1, series_id, valid_time, available_at, value, sd, assumed
    from news
)

select
    count(*) filter (where not is_correction) as n_inserted,
    count(*) filter (where is_correction) as n_corrected
from news
