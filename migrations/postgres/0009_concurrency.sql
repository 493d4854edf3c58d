-- How many calls a lane makes at a time in each worker, where an operator has said so instead of the configuration. A row is
-- written by whoever has read the version before it, in one transaction with its line of the audit log.
--
-- ends_at: null = until it is reset. Times are microseconds since 1970.
CREATE TABLE lane_concurrency (
    version bigint NOT NULL,
    set_at  bigint NOT NULL,
    ends_at bigint,
    calls   bigint NOT NULL,
    lane    text   COLLATE "C" NOT NULL PRIMARY KEY,
    author  text   NOT NULL,
    note    text   NOT NULL
);
