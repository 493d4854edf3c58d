//! Overhead: what budgets of others cost the jobs of an endpoint that has none.

use std::time::Duration;

use lanes::db::{self, PgPoolUse};
use lanes::governor::operator::{Wish, set_limits};
use lanes::job::budget::Account;
use lanes::job::control::{Source, Speaker};
use lanes::job::{EndpointName, Tenant};
use lanes::store::postgres::PgStore;

use super::child::Child;
use super::sink::{Mode, Sink};
use super::stage::{SHORT_RETRIES, Setup, Stage};
use super::{Bench, preload, to_f64};

/// Pairs of runs; the median of their ratios counts.
const PAIRS: usize = 11;
/// Jobs of one run.
const JOBS: usize = 25_000;
/// Jobs a second with budgets of others, of those without. The inverse of the CPU time that a job costs is told beside.
const RATIO_MIN: f64 = 0.95;
/// Another endpoint, its limits, and those of one tenant there.
const OTHER_BUDGETS: &str = "\
    [endpoints.other]\nurl = \"http://127.0.0.1:9/\"\n\
    [[endpoints.other.limits]]\nrequests = 100\nper = \"1m\"\n\
    [tenants.acme]\nlimits = { other = [{ requests = 500, per = \"1m\" }] }\n";

impl Bench {
    pub(super) async fn overhead(&self) {
        let (mut rates, mut costs) = (Vec::new(), Vec::new());
        for pair in 1..=PAIRS {
            let mut runs = [(0.0, 0.0); 2];
            // whoever is first in one pair is second in the next
            for governed in [pair % 2 == 0, pair % 2 != 0] {
                runs[usize::from(governed)] = self.overhead_round(pair, governed).await;
            }
            let [(rate, cpu), (rate_with, cpu_with)] = runs;
            println!(
                "overhead {pair}: {rate_with:.0} jobs/s and {cpu_with:.1} us of CPU a job with budgets of others, \
                 {rate:.0} and {cpu:.1} without any"
            );
            rates.push(rate_with / rate);
            costs.push(cpu / cpu_with);
        }
        let middle = |mut ratios: Vec<f64>| {
            ratios.sort_by(f64::total_cmp);
            (ratios[ratios.len() / 2], ratios.iter().sum::<f64>() / to_f64(ratios.len()))
        };
        let (median, mean) = middle(costs);
        println!("overhead, CPU time a job: median ratio {median:.3}, mean {mean:.3}");
        let (median, mean) = middle(rates);
        let figure = format!("median ratio {median:.3}, mean {mean:.3}");
        self.verdict.target("overhead, jobs a second", &figure, ">= 0.95", median >= RATIO_MIN);
    }

    /// Jobs a second, and CPU microseconds a job.
    async fn overhead_round(&self, pair: usize, governed: bool) -> (f64, f64) {
        let sink = Sink::start(Mode::Fast).await;
        let more = if governed { OTHER_BUDGETS } else { "" };
        let name = format!("overhead-{pair}-{governed}");
        let setup = Setup { name: &name, url: &sink.url, realtime: 8, bulk: 100, retry: SHORT_RETRIES, more };
        let stage = self.stage(&setup).await;
        if governed {
            self.know_an_account(&stage).await;
        }
        preload(&stage.publisher, "bulk", JOBS).await;
        let worker = Child::lanes(&stage.config);
        self.measure(&sink, &worker, JOBS).await
    }

    /// An operator has set something for another endpoint.
    async fn know_an_account(&self, stage: &Stage) {
        let pool = db::open_postgres(&stage.postgres, PgPoolUse { name: "bench", connections: 1 }).expect("a pool");
        db::migrate_postgres(&stage.postgres, &pool).await.expect("a schema");
        let endpoint = EndpointName::new("other").expect("a legal name");
        let account = Account { endpoint, tenant: Some(Tenant::new("acme").expect("a legal name")) };
        let wish = Wish { limits: vec![(50, Duration::from_secs(1))], ..Wish::default() };
        let store = PgStore::new(pool, &stage.postgres);
        let by = Speaker::new("bench", Source::Cli);
        set_limits(&store, &account, &wish, &by, self.clock.now(), None).await.expect("written");
    }
}
