-- Folders of files of models that are being written. The note is committed before the first file; the transaction that stores the
-- model takes it away, and holds an advisory lock on the folder for as long as it goes on. A note without a lock is left of
-- somebody who was ended in between: the files are removed, and then the note.
create table artefact_folder (
    tenant_id  integer     not null,

    -- As in model.artefact_path.
    folder     text        not null,

    created_at timestamptz not null default now(),

    constraint artefact_folder_pkey primary key (tenant_id, folder),
    constraint artefact_folder_tenant_fkey foreign key (tenant_id) references tenant,
    constraint artefact_folder_check check (folder <> '')
);
