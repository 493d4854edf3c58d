//! Overhead: what budgets of others cost the jobs of an endpoint that has none.

use std::time::Duration;

use lanes::db::{self, PgPoolUse};
use lanes::governor::operator::{Wish, set_limits};
use lanes::job::budget::Account;
use lanes::job::{EndpointName, Tenant};
use lanes::store::postgres::PgStore;

use super::child::Child;
use super::sink::{Mode, Sink};
use super::stage::{SHORT_RETRIES, Setup, Stage};
use super::{Bench, TINY_JOBS, preload};

/// Pairs of runs; the median of their ratios counts.
const PAIRS: usize = 7;
const RATIO_MIN: f64 = 0.95;
/// Another endpoint, its limits, and those of one tenant there.
const OTHER_BUDGETS: &str = "\
    [endpoints.other]\nurl = \"http://127.0.0.1:9/\"\n\
    [[endpoints.other.limits]]\nrequests = 100\nper = \"1m\"\n\
    [tenants.acme]\nlimits = { other = [{ requests = 500, per = \"1m\" }] }\n";

impl Bench {
    pub(super) async fn overhead(&self) {
        let mut ratios = Vec::new();
        for pair in 1..=PAIRS {
            let (mut with, mut without) = (0.0, 0.0);
            // whoever is first in one pair is second in the next
            for governed in [pair % 2 == 0, pair % 2 != 0] {
                let rate = self.overhead_round(pair, governed).await;
                *(if governed { &mut with } else { &mut without }) = rate;
            }
            println!("overhead {pair}: {with:.0} jobs/s with budgets of others, {without:.0} without any");
            ratios.push(with / without);
        }
        ratios.sort_by(f64::total_cmp);
        let median = ratios[ratios.len() / 2];
        self.verdict.target("overhead", &format!("median ratio {median:.3}"), ">= 0.95", median >= RATIO_MIN);
    }

    async fn overhead_round(&self, pair: usize, governed: bool) -> f64 {
        let sink = Sink::start(Mode::Fast).await;
        let more = if governed { OTHER_BUDGETS } else { "" };
        let name = format!("overhead-{pair}-{governed}");
        let setup = Setup { name: &name, url: &sink.url, realtime: 8, bulk: 100, retry: SHORT_RETRIES, more };
        let stage = self.stage(&setup).await;
        if governed {
            self.know_an_account(&stage).await;
        }
        preload(&stage.publisher, "bulk", TINY_JOBS).await;
        let worker = Child::lanes(&stage.config);
        self.measure(&sink, &worker, TINY_JOBS).await.0
    }

    /// An operator has set something for another endpoint.
    async fn know_an_account(&self, stage: &Stage) {
        let pool = db::open_postgres(&stage.postgres, PgPoolUse { name: "bench", connections: 1 }).expect("a pool");
        db::migrate_postgres(&stage.postgres, &pool).await.expect("a schema");
        let endpoint = EndpointName::new("other").expect("a legal name");
        let account = Account { endpoint, tenant: Some(Tenant::new("acme").expect("a legal name")) };
        let wish = Wish { limits: vec![(50, Duration::from_secs(1))], ..Wish::default() };
        let store = PgStore::new(pool, &stage.postgres);
        set_limits(&store, &account, &wish, "bench", self.clock.now(), None).await.expect("written");
    }
}
