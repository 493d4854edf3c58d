-- Budgets: one number per window, moved in one statement (src/store/postgres/budgets.rs).
--
-- due: when the token after the last one would be due at an even pace (the theoretical arrival time of GCRA), in
-- microseconds since 1970. A window without a row, or whose time is long past, is a rested one.
CREATE TABLE budgets (
    due bigint NOT NULL,
    key text   COLLATE "C" PRIMARY KEY
) WITH (fillfactor = 50);

-- Rows that wait for their turn in a budget: their resume_at is the word for that (IN_TURN in src/store/rows.rs), later
-- than any time that comes, so that no clock but the budget's brings them back.
CREATE INDEX jobs_turn ON jobs (lane, endpoint, tenant, published_at) WHERE resume_at = 253402214400000000;
