-- What all workers know of the accounts at APIs: limits learnt from answers, blocks, what an operator has set. One row for
-- each endpoint (tenant '') and each tenant there; a row is written by whoever has read the version before it.
--
-- knowledge: JSON that the store does not read. Times are microseconds since 1970.
CREATE TABLE accounts (
    version    INTEGER NOT NULL,
    changed_at INTEGER NOT NULL,
    kept_until INTEGER NOT NULL,
    endpoint   TEXT    NOT NULL,
    tenant     TEXT    NOT NULL,
    knowledge  TEXT    NOT NULL,
    PRIMARY KEY (endpoint, tenant)
) STRICT;
CREATE INDEX accounts_changed ON accounts (changed_at);
