//! Conformance suites: one per seam, run against every backend.

mod broker;
mod budgets;
mod store;
mod store_random;
