-- Counts by time, of all workers together: what happened in steps of ten seconds (kept for a day) and of a minute (kept
-- for a week). Words and their meaning: src/job/history.rs.
--
-- seconds: length of the step. at: its beginning, in microseconds since 1970, a whole number of steps.
CREATE TABLE history (
    at      bigint   NOT NULL,
    count   bigint   NOT NULL,
    total   bigint   NOT NULL,
    seconds smallint NOT NULL,
    bucket  smallint NOT NULL,
    measure text     COLLATE "C" NOT NULL,
    subject text     COLLATE "C" NOT NULL,
    part    text     COLLATE "C" NOT NULL,
    PRIMARY KEY (seconds, at, measure, bucket, subject, part)
) WITH (fillfactor = 70);
