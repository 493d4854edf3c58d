-- What people were told of incidents, and who tells them: read and written by all workers, each write by whoever has read the
-- version before it. One row.
--
-- state: JSON that the store does not read. Times are microseconds since 1970.
CREATE TABLE notices (
    name       TEXT    NOT NULL PRIMARY KEY,
    version    INTEGER NOT NULL,
    changed_at INTEGER NOT NULL,
    state      TEXT    NOT NULL
) STRICT;
