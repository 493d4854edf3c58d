-- The embedded broker's queues.

CREATE TABLE broker_queues (
    name  TEXT PRIMARY KEY,
    route TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX broker_queues_route ON broker_queues (route);

-- A consumer's session. Its messages come back when it ends, or when nobody has renewed its lease.
CREATE TABLE broker_sessions (
    id          INTEGER PRIMARY KEY AUTOINCREMENT, -- never used twice, so a late ack cannot hit another session
    lease_until INTEGER NOT NULL                   -- microseconds since the epoch
) STRICT;

CREATE TABLE broker_consumers (
    session  INTEGER NOT NULL,
    queue    TEXT NOT NULL,
    consumer INTEGER NOT NULL,                     -- the subscription's position within the session
    PRIMARY KEY (session, consumer)
) STRICT, WITHOUT ROWID;

CREATE TABLE broker_messages (
    id          INTEGER PRIMARY KEY AUTOINCREMENT, -- publish order; a returned message keeps its place
    queue       TEXT NOT NULL,
    session     INTEGER,                           -- who has it in hand; NULL: ready
    redelivered INTEGER NOT NULL DEFAULT 0,
    fields      TEXT NOT NULL,                     -- properties and headers, JSON
    body        BLOB NOT NULL
) STRICT;

CREATE INDEX broker_messages_ready ON broker_messages (queue, id) WHERE session IS NULL;
CREATE INDEX broker_messages_in_hand ON broker_messages (session, queue) WHERE session IS NOT NULL;
