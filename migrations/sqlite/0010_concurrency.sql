-- How many calls a lane makes at a time in each worker, where an operator has said so instead of the configuration. A row is
-- written by whoever has read the version before it, in one transaction with its line of the audit log.
--
-- ends_at: null = until it is reset. Times are microseconds since 1970.
CREATE TABLE lane_concurrency (
    version INTEGER NOT NULL,
    set_at  INTEGER NOT NULL,
    ends_at INTEGER,
    calls   INTEGER NOT NULL,
    lane    TEXT    NOT NULL PRIMARY KEY,
    author  TEXT    NOT NULL,
    note    TEXT    NOT NULL
) STRICT;
