-- Since when a job is held back by budgets or blocks, before its next call: set when it is parked in its turn, cleared once
-- it has been called. Null for nearly every row, which costs nothing; no index names it.
ALTER TABLE jobs ADD COLUMN held_since bigint;
ALTER TABLE jobs_side ADD COLUMN held_since bigint;
DROP VIEW jobs_all;
CREATE VIEW jobs_all AS SELECT * FROM jobs UNION ALL SELECT * FROM jobs_side;
