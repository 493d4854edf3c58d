-- The embedded store's tables. Columns are named as in migrations/postgres/0001_store.sql, read side by side.
--
-- One table of jobs instead of two: there is one writer, so no lock per key and no HOT update are needed.
-- Invariants: at most one row of a key holds it (jobs_holder); resume_at is set exactly in state waiting, released_at
-- exactly in state queued. Times are microseconds since 1970. key, instance, token: 16 bytes.
-- state: 1 run, 2 waiting, 3 queued, 4 done, 5 dead, 6 cancelled.

CREATE TABLE jobs (
    published_at     INTEGER NOT NULL,
    resume_at        INTEGER,
    released_at      INTEGER,
    ended_at         INTEGER,
    worker           INTEGER,
    attempt          INTEGER NOT NULL,
    generation       INTEGER NOT NULL,
    takeovers        INTEGER NOT NULL,
    state            INTEGER NOT NULL,
    effect_possible  INTEGER NOT NULL,
    cancel_requested INTEGER NOT NULL,
    holds_key        INTEGER NOT NULL,
    key              BLOB    NOT NULL,
    instance         BLOB    NOT NULL,
    token            BLOB,
    lane             TEXT    NOT NULL,
    tenant           TEXT    NOT NULL,
    id               TEXT    NOT NULL,
    endpoint         TEXT    NOT NULL,
    reason           TEXT    NOT NULL,
    payload_sha256   BLOB    NOT NULL,
    meta             BLOB,                             -- null once the job has ended
    body             BLOB                              -- null once the job has ended
) STRICT;
CREATE UNIQUE INDEX jobs_instance ON jobs (instance);
CREATE INDEX jobs_key ON jobs (key);
CREATE UNIQUE INDEX jobs_holder ON jobs (key) WHERE holds_key = 1;
CREATE INDEX jobs_published ON jobs (lane, published_at);
CREATE INDEX jobs_waiting ON jobs (lane, resume_at) WHERE resume_at IS NOT NULL;
CREATE INDEX jobs_queued ON jobs (lane, released_at) WHERE released_at IS NOT NULL;
CREATE INDEX jobs_run ON jobs (worker) WHERE state = 1;

-- Dead letters, with their bytes. Of a job: its row stays in jobs (state dead, without payload) until it is forgotten.
-- raw: a message that never was a job.
CREATE TABLE letters (
    published_at    INTEGER,
    died_at         INTEGER NOT NULL,
    body_bytes      INTEGER NOT NULL,
    attempts        INTEGER NOT NULL,
    generation      INTEGER NOT NULL,
    takeovers       INTEGER NOT NULL,
    copies          INTEGER NOT NULL,
    raw             INTEGER NOT NULL,
    effect_possible INTEGER NOT NULL,
    instance        BLOB    NOT NULL,
    lane            TEXT    NOT NULL,
    tenant          TEXT,
    id              TEXT,
    endpoint        TEXT,
    reason          TEXT    NOT NULL,
    detail          TEXT    NOT NULL,
    payload_sha256  BLOB,
    meta            BLOB    NOT NULL,
    body            BLOB    NOT NULL
) STRICT;
CREATE UNIQUE INDEX letters_instance ON letters (instance);
CREATE INDEX letters_lane ON letters (lane, died_at);
CREATE INDEX letters_died ON letters (died_at);

-- The journal of calls: the failed ones, and the success after failures.
CREATE TABLE attempts (
    seq            INTEGER PRIMARY KEY,
    started_at     INTEGER NOT NULL,
    duration_us    INTEGER NOT NULL,
    retry_after_ms INTEGER,
    resume_at      INTEGER,
    generation     INTEGER NOT NULL,
    attempt        INTEGER NOT NULL,
    status         INTEGER,
    instance       BLOB    NOT NULL,
    class          TEXT    NOT NULL,
    detail         TEXT    NOT NULL,
    rate_headers   TEXT    NOT NULL,                   -- JSON: [[name, value], ..]
    next           TEXT    NOT NULL,
    reason         TEXT    NOT NULL
) STRICT;
CREATE INDEX attempts_instance ON attempts (instance, seq);

-- Living worker processes. Rows of jobs in state run point here. Ids are never used twice.
CREATE TABLE workers (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    started_at   INTEGER NOT NULL,
    heartbeat_at INTEGER NOT NULL,
    name         TEXT    NOT NULL,
    lanes        TEXT    NOT NULL
) STRICT;

-- The highest publish time claimed so far, per lane and consuming minute: what retention goes by.
CREATE TABLE marks (
    lane         TEXT    NOT NULL,
    minute       INTEGER NOT NULL,                     -- minutes since 1970
    published_at INTEGER NOT NULL,
    PRIMARY KEY (lane, minute)
) STRICT, WITHOUT ROWID;
