-- Operations on everything that matches a filter: what was asked for and how far it is. A step acts on some of them and moves
-- the operation on in one transaction, guarded by the claim's token. Words: src/job/operation.rs.
--
-- until_at: nothing that died, or was published, later is part of it. cursor_*: the last letter that was looked at.
-- claimed_until: whoever has the token works on it until then. Times are microseconds since 1970.
CREATE TABLE operations (
    started_at      INTEGER NOT NULL,
    until_at        INTEGER NOT NULL,
    interval_us     INTEGER NOT NULL,
    planned         INTEGER NOT NULL,
    done            INTEGER NOT NULL,
    skipped         INTEGER NOT NULL,
    failed          INTEGER NOT NULL,
    next_at         INTEGER NOT NULL,
    cursor_at       INTEGER,
    claimed_until   INTEGER,
    ended_at        INTEGER,
    id              BLOB    NOT NULL,
    cursor_instance BLOB,
    token           BLOB,
    action          TEXT    NOT NULL,
    phase           TEXT    NOT NULL,
    lane            TEXT,
    endpoint        TEXT,
    tenant          TEXT,
    reason          TEXT,
    not_lanes       TEXT    NOT NULL,                  -- JSON: [name, ..]
    not_endpoints   TEXT    NOT NULL,                  -- JSON: [name, ..]
    actor           TEXT    NOT NULL,
    source          TEXT    NOT NULL,
    note            TEXT    NOT NULL,
    problem         TEXT    NOT NULL
) STRICT;
CREATE UNIQUE INDEX operations_id ON operations (id);
CREATE INDEX operations_running ON operations (started_at) WHERE ended_at IS NULL;
CREATE INDEX operations_started ON operations (started_at);

-- operations go through letters in this order, and many die in one transaction, at one time
CREATE INDEX letters_place ON letters (died_at, instance);
DROP INDEX letters_died;
