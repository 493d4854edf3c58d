-- Counts by time, of all workers together: what happened in steps of ten seconds (kept for a day) and of a minute (kept
-- for a week). Words and their meaning: src/job/history.rs.
--
-- seconds: length of the step. at: its beginning, in microseconds since 1970, a whole number of steps.
CREATE TABLE history (
    at      INTEGER NOT NULL,
    count   INTEGER NOT NULL,
    total   INTEGER NOT NULL,
    seconds INTEGER NOT NULL,
    bucket  INTEGER NOT NULL,
    measure TEXT    NOT NULL,
    subject TEXT    NOT NULL,
    part    TEXT    NOT NULL,
    PRIMARY KEY (seconds, at, measure, bucket, subject, part)
) STRICT, WITHOUT ROWID;
