//! Conformance suites: one per seam, run against every backend.

mod accounts;
mod broker;
mod budgets;
mod notices;
mod rollups;
mod controls;
mod operations;
mod slots;
mod store;
mod store_random;
mod telling;
