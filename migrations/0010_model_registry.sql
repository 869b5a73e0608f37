-- What the life of a model needs to be told: why it is where it is, where it came from, and how it compared.

-- A 'rejected' model was trained to replace the champion and was not better; its reason says in what. Releases before
-- this one cannot read the word, so it is written only once all processes run this one.
alter table model drop constraint model_stage_check;
alter table model add constraint model_stage_check
    check (stage in ('champion', 'candidate', 'archived', 'rejected'));

alter table model
    -- Why it is at its stage, in words.
    add column reason            text,

    -- The champion of the time at which it was trained.
    add column parent_model_id   integer,

    -- The champion that it replaced when it was promoted: what a roll-back goes to. A roll-back does not change it, so
    -- that the next one goes further back.
    add column replaced_model_id integer,

    -- Bytes of its files.
    add column artefact_bytes    bigint,

    add constraint model_parent_fkey
        foreign key (tenant_id, parent_model_id) references model (tenant_id, model_id)
        on delete set null (parent_model_id),
    add constraint model_replaced_fkey
        foreign key (tenant_id, replaced_model_id) references model (tenant_id, model_id)
        on delete set null (replaced_model_id),
    add constraint model_reason_check check (stage <> 'rejected' or reason is not null),
    add constraint model_artefact_bytes_check check (artefact_bytes >= 0);

-- How a candidate did on the same windows as what it was to replace, and what was decided. The arrays have an element
-- for each window, in the order of their issue times; a window of which nothing was observed is not listed.
create table model_comparison (
    tenant_id             integer            not null,

    -- The candidate.
    model_id              integer            not null,

    -- What it was compared with: the champion, or seasonal naive where no champion could be used.
    reference             text               not null,
    champion_model_id     integer,

    compared_at           timestamptz        not null,
    horizon               integer            not null,
    num_samples           integer            not null,
    seed                  bigint             not null,

    issue_times           timestamptz[]      not null,

    -- Whether the window lies after all that the champion had learned from. Only such windows decide.
    is_fair               boolean[]          not null,

    candidate_crps        double precision[] not null,
    reference_crps        double precision[] not null,
    candidate_coverage_80 double precision[] not null,
    reference_coverage_80 double precision[] not null,

    -- Mean over the fair windows of (candidate - reference) / mean of the reference, and its confidence interval; null
    -- where there are too few windows for one.
    difference            double precision,
    difference_lower      double precision,
    difference_upper      double precision,

    decision              text               not null,

    -- A person should look at it: the candidate serves although it has beaten nothing.
    is_flagged            boolean            not null default false,

    reason                text               not null,

    -- The rules that decided, defaults filled in.
    policy                jsonb              not null,

    constraint model_comparison_pkey primary key (tenant_id, model_id),
    constraint model_comparison_model_fkey
        foreign key (tenant_id, model_id) references model (tenant_id, model_id) on delete cascade,
    constraint model_comparison_champion_fkey
        foreign key (tenant_id, champion_model_id) references model (tenant_id, model_id)
        on delete set null (champion_model_id),
    constraint model_comparison_reference_check check (reference in ('champion', 'seasonal_naive')),
    constraint model_comparison_decision_check check (decision in ('promoted', 'rejected', 'undecided')),
    constraint model_comparison_lengths_check check (
        cardinality(issue_times) = cardinality(is_fair)
        and cardinality(issue_times) = cardinality(candidate_crps)
        and cardinality(issue_times) = cardinality(reference_crps)
        and cardinality(issue_times) = cardinality(candidate_coverage_80)
        and cardinality(issue_times) = cardinality(reference_coverage_80)
    )
);
