//! Gauges by tenant: the first that matter have a series of their own, the rest share one.

use std::sync::OnceLock;

use ::metrics::Gauge;

use super::metrics::Metric;
use super::series::{Cache, Maker, OTHER, TENANT_LABELS_MAX};
use crate::job::Tenant;

/// One gauge by tenant. None exists before it is told: at 0 it would say that nothing is left.
pub(super) struct BudgetSeries {
    metric: &'static Metric,
    tenants: Cache<Tenant, Gauge>,
    other: OnceLock<Gauge>,
}

impl BudgetSeries {
    pub fn new(metric: &'static Metric) -> Self {
        Self { metric, tenants: Cache::new(TENANT_LABELS_MAX), other: OnceLock::new() }
    }

    /// Sets the gauge of `tenant`, or of all the others when it has none of its own.
    pub fn set(&self, maker: &Maker, endpoint: &str, tenant: Option<&Tenant>, value: f64) {
        let make = |tenant: &str| maker.gauge(self.metric, &[endpoint, tenant]);
        let own = tenant.and_then(|tenant| self.tenants.get(tenant, || make(tenant.as_str())));
        own.unwrap_or_else(|| self.other.get_or_init(|| make(OTHER)).clone()).set(value);
    }
}
