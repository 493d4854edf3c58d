-- Slots for calls in flight that all workers share: what each holder (a lane of a worker) has of each key.
--
-- Invariants, kept by src/store/postgres/slots.rs:
--   1. The rows of a key are read and written under the key's lock ('lanes.slots.' || key, in the order of locks); only rows
--      of workers that are gone are removed without it.
--   2. in_use <= held, in_use <= wanted, and held never grows beyond what the other rows of the key leave of its slots; rows
--      of workers that are gone do not count.
--   3. A row is changed by its own holder, but for this: after kept_until others may cut held to in_use.
--
-- Times are microseconds since 1970.
CREATE TABLE slots (
    held       bigint NOT NULL,                        -- nobody else can have them
    in_use     bigint NOT NULL,                        -- calls in flight at the last renewal
    wanted     bigint NOT NULL,
    renewed_at bigint NOT NULL,
    kept_until bigint NOT NULL,                        -- calls of the last grant have ended by then
    worker     bigint NOT NULL,
    key        text   COLLATE "C" NOT NULL,
    lane       text   COLLATE "C" NOT NULL,
    PRIMARY KEY (key, worker, lane)
) WITH (fillfactor = 50);
