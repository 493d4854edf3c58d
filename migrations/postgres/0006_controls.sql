-- What operators have paused, and who changed what. A control is a lane, an endpoint, a tenant, or a tenant at an endpoint
-- (a name that it does not have is ''); a row is written by whoever has read the version before it, in one transaction with
-- its line of the audit log.
--
-- paused_until: null = until it is resumed. Times are microseconds since 1970.
CREATE TABLE controls (
    version      bigint NOT NULL,
    set_at       bigint NOT NULL,
    paused_until bigint,
    lane         text   COLLATE "C" NOT NULL,
    endpoint     text   COLLATE "C" NOT NULL,
    tenant       text   COLLATE "C" NOT NULL,
    author       text   NOT NULL,
    note         text   NOT NULL,
    PRIMARY KEY (lane, endpoint, tenant)
);
CREATE TABLE audit (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at           bigint NOT NULL,
    actor        text   NOT NULL,
    source       text   NOT NULL,
    action       text   NOT NULL,
    target       text   NOT NULL,
    value_before text   NOT NULL,
    value_after  text   NOT NULL,
    note         text   NOT NULL
);
CREATE INDEX audit_at ON audit (at);
