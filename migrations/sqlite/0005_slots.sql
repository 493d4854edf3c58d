-- Slots for calls in flight that all workers share: what each holder (a lane of a worker) has of each key.
--
-- Invariants, kept by src/store/sqlite/slots.rs under the file's one write lock:
--   1. in_use <= held, in_use <= wanted, and held never grows beyond what the other rows of the key leave of its slots; rows
--      of workers that are gone do not count.
--   2. A row is changed by its own holder, but for this: after kept_until others may cut held to in_use.
--
-- Times are microseconds since 1970.
CREATE TABLE slots (
    held       INTEGER NOT NULL,                       -- nobody else can have them
    in_use     INTEGER NOT NULL,                       -- calls in flight at the last renewal
    wanted     INTEGER NOT NULL,
    renewed_at INTEGER NOT NULL,
    kept_until INTEGER NOT NULL,                       -- calls of the last grant have ended by then
    worker     INTEGER NOT NULL,
    key        TEXT    NOT NULL,
    lane       TEXT    NOT NULL,
    PRIMARY KEY (key, worker, lane)
) STRICT, WITHOUT ROWID;
