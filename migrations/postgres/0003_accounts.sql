-- What all workers know of the accounts at APIs: limits learnt from answers, blocks, what an operator has set. One row for
-- each endpoint (tenant '') and each tenant there; a row is written by whoever has read the version before it.
--
-- knowledge: JSON that the store does not read. Times are microseconds since 1970.
CREATE TABLE accounts (
    version    bigint NOT NULL,
    changed_at bigint NOT NULL,
    kept_until bigint NOT NULL,
    endpoint   text   COLLATE "C" NOT NULL,
    tenant     text   COLLATE "C" NOT NULL,
    knowledge  text   NOT NULL,
    PRIMARY KEY (endpoint, tenant)
) WITH (fillfactor = 50);
CREATE INDEX accounts_changed ON accounts (changed_at);
