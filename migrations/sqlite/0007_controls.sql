-- What operators have paused, and who changed what. A control is a lane, an endpoint, a tenant, or a tenant at an endpoint
-- (a name that it does not have is ''); a row is written by whoever has read the version before it, in one transaction with
-- its line of the audit log.
--
-- paused_until: null = until it is resumed. Times are microseconds since 1970.
CREATE TABLE controls (
    version      INTEGER NOT NULL,
    set_at       INTEGER NOT NULL,
    paused_until INTEGER,
    lane         TEXT    NOT NULL,
    endpoint     TEXT    NOT NULL,
    tenant       TEXT    NOT NULL,
    author       TEXT    NOT NULL,
    note         TEXT    NOT NULL,
    PRIMARY KEY (lane, endpoint, tenant)
) STRICT;
CREATE TABLE audit (
    -- never used again, so that a place in the log stays what it was
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    at           INTEGER NOT NULL,
    actor        TEXT    NOT NULL,
    source       TEXT    NOT NULL,
    action       TEXT    NOT NULL,
    target       TEXT    NOT NULL,
    value_before TEXT    NOT NULL,
    value_after  TEXT    NOT NULL,
    note         TEXT    NOT NULL
) STRICT;
CREATE INDEX audit_at ON audit (at);
