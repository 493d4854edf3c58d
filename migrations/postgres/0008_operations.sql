-- Operations on everything that matches a filter: what was asked for and how far it is. A step acts on some of them and moves
-- the operation on in one transaction, guarded by the claim's token. Words: src/job/operation.rs.
--
-- until_at: nothing that died, or was published, later is part of it. cursor_*: the last letter that was looked at.
-- claimed_until: whoever has the token works on it until then. Times are microseconds since 1970.
CREATE TABLE operations (
    started_at      bigint  NOT NULL,
    until_at        bigint  NOT NULL,
    interval_us     bigint  NOT NULL,
    planned         bigint  NOT NULL,
    done            bigint  NOT NULL,
    skipped         bigint  NOT NULL,
    failed          bigint  NOT NULL,
    next_at         bigint  NOT NULL,
    cursor_at       bigint,
    claimed_until   bigint,
    ended_at        bigint,
    id              uuid    NOT NULL,
    cursor_instance uuid,
    token           uuid,
    action          text    NOT NULL,
    phase           text    NOT NULL,
    lane            text    COLLATE "C",
    endpoint        text    COLLATE "C",
    tenant          text    COLLATE "C",
    reason          text    COLLATE "C",
    not_lanes       text    NOT NULL,                  -- JSON: [name, ..]
    not_endpoints   text    NOT NULL,                  -- JSON: [name, ..]
    actor           text    NOT NULL,
    source          text    NOT NULL,
    note            text    NOT NULL,
    problem         text    NOT NULL,
    PRIMARY KEY (id)
) WITH (fillfactor = 50);
CREATE INDEX operations_running ON operations (started_at) WHERE ended_at IS NULL;
CREATE INDEX operations_started ON operations (started_at);

-- operations go through letters in this order, and many die in one transaction, at one time
CREATE INDEX letters_place ON letters (died_at, instance);
DROP INDEX letters_died;
