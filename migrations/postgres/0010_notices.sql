-- What people were told of incidents, and who tells them: read and written by all workers, each write by whoever has read the
-- version before it. One row.
--
-- state: JSON that the store does not read. Times are microseconds since 1970.
CREATE TABLE notices (
    name       text   COLLATE "C" PRIMARY KEY,
    version    bigint NOT NULL,
    changed_at bigint NOT NULL,
    state      text   NOT NULL
) WITH (fillfactor = 50);
