-- Since when a job is held back by budgets or blocks, before its next call: set when it is parked in its turn, cleared once
-- it has been called.
ALTER TABLE jobs ADD COLUMN held_since INTEGER;
