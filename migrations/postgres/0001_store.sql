-- The store's tables.
--
-- Invariants, kept by src/store/postgres:
--   1. A key has at most one row in `jobs`; a key that has any row has one there. That row is the key's lock: every
--      change of any row of the key is made while it is locked (or inserts it, which the primary key makes exclusive).
--   2. A row that holds its key is in `jobs`. The other rows of the key (followers, replays, ended rows displaced by a
--      publish out of their window) are in `jobs_side`; claiming one of them swaps it with the row in `jobs`, in place.
--   3. resume_at is set exactly in state waiting, released_at exactly in state queued.
--
-- Every job costs one INSERT into `jobs` and one UPDATE (run -> done). The UPDATE is HOT as long as no index names, in
-- its columns or its predicate, anything that a settlement changes: keep it that way (a test counts).
--
-- Times are microseconds since 1970. Every time comes from the caller: nothing here reads the server's clock.
-- state: 1 run, 2 waiting, 3 queued, 4 done, 5 dead, 6 cancelled.
-- Wide columns first, so that no byte is lost to alignment.

CREATE TABLE jobs (
    published_at     bigint   NOT NULL,
    resume_at        bigint,
    released_at      bigint,
    ended_at         bigint,
    worker           bigint,
    attempt          integer  NOT NULL,
    generation       integer  NOT NULL,
    takeovers        integer  NOT NULL,
    state            smallint NOT NULL,
    effect_possible  boolean  NOT NULL,
    cancel_requested boolean  NOT NULL,
    holds_key        boolean  NOT NULL,
    key              uuid     NOT NULL,                -- 16 bytes of SHA-256 over (lane, tenant, id)
    instance         uuid     NOT NULL,
    token            uuid,                             -- of the last claim; kept when it is settled
    lane             text     COLLATE "C" NOT NULL,
    tenant           text     COLLATE "C" NOT NULL,
    id               text     COLLATE "C" NOT NULL,
    endpoint         text     COLLATE "C" NOT NULL,
    reason           text     COLLATE "C" NOT NULL,
    payload_sha256   bytea    NOT NULL,
    meta             bytea,                            -- null once the job has ended
    body             bytea,                            -- null once the job has ended
    PRIMARY KEY (key)
) WITH (
    -- room for the settled version of every row on its own page, also where the payload that it drops is tiny
    fillfactor = 48,
    autovacuum_vacuum_scale_factor = 0.05,
    autovacuum_vacuum_insert_scale_factor = 0.2,
    autovacuum_analyze_scale_factor = 0.05,
    autovacuum_vacuum_cost_delay = 0
);
-- compressing a payload that lives for a second costs more than it saves
ALTER TABLE jobs ALTER COLUMN body SET STORAGE EXTERNAL, ALTER COLUMN meta SET STORAGE EXTERNAL;

CREATE INDEX jobs_instance ON jobs (instance);
CREATE INDEX jobs_published ON jobs (lane, published_at);
CREATE INDEX jobs_waiting ON jobs (lane, resume_at) WHERE resume_at IS NOT NULL;
CREATE INDEX jobs_queued ON jobs (lane, released_at) WHERE released_at IS NOT NULL;

CREATE TABLE jobs_side (
    LIKE jobs INCLUDING STORAGE,
    PRIMARY KEY (instance)
) WITH (
    autovacuum_vacuum_scale_factor = 0.05,
    autovacuum_analyze_scale_factor = 0.05,
    autovacuum_vacuum_cost_delay = 0
);
CREATE INDEX jobs_side_key ON jobs_side (key);
CREATE INDEX jobs_side_published ON jobs_side (lane, published_at);
CREATE INDEX jobs_side_waiting ON jobs_side (lane, resume_at) WHERE resume_at IS NOT NULL;
CREATE INDEX jobs_side_queued ON jobs_side (lane, released_at) WHERE released_at IS NOT NULL;

-- Every row of every key, for readers.
CREATE VIEW jobs_all AS SELECT * FROM jobs UNION ALL SELECT * FROM jobs_side;

-- Dead letters, with their bytes. Of a job: its row stays in jobs (state dead, without payload) until it is forgotten.
-- raw: a message that never was a job.
CREATE TABLE letters (
    published_at    bigint,
    died_at         bigint  NOT NULL,
    body_bytes      bigint  NOT NULL,
    attempts        integer NOT NULL,
    generation      integer NOT NULL,
    takeovers       integer NOT NULL,
    copies          integer NOT NULL,
    raw             boolean NOT NULL,
    effect_possible boolean NOT NULL,
    instance        uuid    NOT NULL,
    lane            text    COLLATE "C" NOT NULL,
    tenant          text    COLLATE "C",
    id              text    COLLATE "C",
    endpoint        text    COLLATE "C",
    reason          text    COLLATE "C" NOT NULL,
    detail          text    NOT NULL,
    payload_sha256  bytea,
    meta            bytea   NOT NULL,
    body            bytea   NOT NULL,
    PRIMARY KEY (instance)
);
CREATE INDEX letters_lane ON letters (lane, died_at);
CREATE INDEX letters_died ON letters (died_at);

-- The journal of calls: the failed ones, and the success after failures.
CREATE TABLE attempts (
    seq            bigint  GENERATED ALWAYS AS IDENTITY,
    started_at     bigint  NOT NULL,
    duration_us    bigint  NOT NULL,
    retry_after_ms bigint,
    resume_at      bigint,
    generation     integer NOT NULL,
    attempt        integer NOT NULL,
    status         integer,
    instance       uuid    NOT NULL,
    class          text    NOT NULL,
    detail         text    NOT NULL,
    rate_headers   text    NOT NULL,                   -- JSON: [[name, value], ..]
    next           text    NOT NULL,
    reason         text    NOT NULL,
    PRIMARY KEY (instance, seq)
);

-- Living worker processes. Rows of jobs in state run point here.
CREATE TABLE workers (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    started_at   bigint NOT NULL,
    heartbeat_at bigint NOT NULL,
    name         text   NOT NULL,
    lanes        text   NOT NULL
) WITH (fillfactor = 50);

-- The highest publish time claimed so far, per lane and consuming minute: what retention goes by.
CREATE TABLE marks (
    minute       bigint NOT NULL,                      -- minutes since 1970
    published_at bigint NOT NULL,
    lane         text   COLLATE "C" NOT NULL,
    PRIMARY KEY (lane, minute)
) WITH (fillfactor = 50);
