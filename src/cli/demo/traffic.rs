//! The demo's traffic: webhooks that come all the time, and one large import with the flaws that real ones have.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::book::{Contact, IN_MAINTENANCE};
use crate::clock::{self, SharedClock, Timestamp};
use crate::job::{EndpointName, JobId, JobMeta, LaneName, Tenant};
use crate::publish::{NewJob, Publisher};

/// The lane of webhooks.
pub const REALTIME: &str = "realtime";
/// The lane of the import.
pub const BULK: &str = "bulk";
/// Whose webhooks come.
pub const WEBHOOK_TENANT: &str = "acme";
/// Whose import runs.
pub const IMPORT_TENANT: &str = "globex";
/// What all of them call.
pub const ENDPOINT: &str = "crm";
/// An endpoint that nobody configured.
const ENDPOINT_UNKNOWN: &str = "crm-typo";

/// A webhook comes in this often.
pub const WEBHOOK_EVERY: Duration = Duration::from_millis(50);
/// One webhook in so many is sent twice by its sender.
const WEBHOOK_TWICE_EVERY: u64 = 20;
/// One record in so many is published twice.
const RECORD_TWICE_EVERY: u32 = 20;
/// So many records later the second copy comes.
const COPY_AFTER: usize = 7;
/// Records whose e-mail address the API refuses.
const INVALID_RECORDS: u32 = 5;
/// Records of an account that the API never serves.
const UNAVAILABLE_RECORDS: u32 = 2;
/// Calls of such a record.
const UNAVAILABLE_ATTEMPTS: u32 = 3;
/// Records published at a time.
const IMPORT_CHUNK: usize = 200;
/// Jobs of the import beside its records: one with a wrong endpoint.
pub const IMPORT_EXTRA: u64 = 1;

/// A publish that the broker confirmed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its lane.
    pub lane: LaneName,
    /// Its tenant.
    pub tenant: Tenant,
    /// Its deduplication id.
    pub id: JobId,
    /// Its handle.
    pub instance: Uuid,
}

/// Everything that the demo has published.
#[derive(Debug, Default)]
pub struct Ledger {
    entries: Vec<Entry>,
    by_lane: BTreeMap<LaneName, u64>,
    /// Publishes that were not confirmed; the demo does not count on them.
    pub unconfirmed: u64,
    /// When the import began.
    pub import_began: Option<Timestamp>,
    /// When the broker had all of it.
    pub import_published: Option<Timestamp>,
}

impl Ledger {
    /// Publishes to a lane.
    pub fn published(&self, lane: &LaneName) -> u64 {
        self.by_lane.get(lane).copied().unwrap_or_default()
    }

    /// All publishes, oldest first.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }
}

/// Publishes, and keeps the ledger.
#[derive(Debug, Clone)]
pub struct Traffic {
    publisher: Publisher,
    clock: SharedClock,
    ledger: Arc<Mutex<Ledger>>,
}

impl Traffic {
    /// Nothing published yet.
    pub fn new(publisher: Publisher, clock: SharedClock) -> Self {
        Self { publisher, clock, ledger: Arc::default() }
    }

    /// Looks into the ledger.
    pub fn read<T>(&self, look: impl FnOnce(&Ledger) -> T) -> T {
        look(&self.ledger.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn write(&self, change: impl FnOnce(&mut Ledger)) {
        change(&mut self.ledger.lock().unwrap_or_else(PoisonError::into_inner));
    }

    async fn publish(&self, jobs: Vec<NewJob>) {
        let places: Vec<(LaneName, Tenant)> = jobs.iter().map(|job| (job.lane.clone(), job.tenant.clone())).collect();
        let answers = self.publisher.publish(jobs).await;
        self.write(|ledger| {
            for ((lane, tenant), answer) in places.into_iter().zip(answers) {
                match answer {
                    Ok(done) => {
                        *ledger.by_lane.entry(lane.clone()).or_default() += 1;
                        ledger.entries.push(Entry { lane, tenant, id: done.id, instance: done.instance });
                    }
                    Err(error) => {
                        ledger.unconfirmed += 1;
                        tracing::error!(%lane, %error, "the demo could not publish");
                    }
                }
            }
        });
    }

    /// A webhook every [`WEBHOOK_EVERY`], until `stop`. A publish that has begun is finished.
    pub async fn webhooks(self, stop: CancellationToken) {
        let mut next = self.clock.now();
        for number in 0_u64.. {
            next = next.plus(WEBHOOK_EVERY);
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.clock.sleep_until(next) => {}
            }
            let job = webhook(number, self.clock.now());
            let copies = if number % WEBHOOK_TWICE_EVERY == WEBHOOK_TWICE_EVERY - 1 { 2 } else { 1 };
            self.publish(vec![job; copies]).await;
        }
    }

    /// The whole import, chunk by chunk, after `delay`; ends early at `stop`.
    pub async fn import(self, records: u32, delay: Duration, stop: CancellationToken) {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = clock::sleep(&*self.clock, delay) => {}
        }
        let began = self.clock.now();
        self.write(|ledger| ledger.import_began = Some(began));
        let mut jobs = import_jobs(records);
        while !jobs.is_empty() && !stop.is_cancelled() {
            let rest = jobs.split_off(jobs.len().min(IMPORT_CHUNK));
            self.publish(std::mem::replace(&mut jobs, rest)).await;
        }
        let published = self.clock.now();
        self.write(|ledger| ledger.import_published = Some(published));
    }
}

/// A lane of the demo by its name.
pub fn lane(name: &str) -> LaneName {
    LaneName::new(name).expect("the demo's lane names are legal")
}

fn job(lane_name: &str, tenant: &str, endpoint: &str, id: &str, contact: &Contact) -> NewJob {
    NewJob {
        lane: lane(lane_name),
        endpoint: EndpointName::new(endpoint).expect("the demo's endpoint names are legal"),
        tenant: Tenant::new(tenant).expect("the demo's tenants are legal"),
        id: Some(JobId::new(id).expect("the demo's ids are legal")),
        meta: JobMeta { content_type: Some("application/json".to_owned()), ..JobMeta::default() },
        body: Bytes::from(serde_json::to_vec(contact).expect("a contact is plain data")),
    }
}

fn webhook(number: u64, now: Timestamp) -> NewJob {
    let contact = Contact {
        email: format!("visitor-{number}@example.com"),
        account: "open".to_owned(),
        sent_at_us: Some(now.as_micros()),
    };
    job(REALTIME, WEBHOOK_TENANT, ENDPOINT, &format!("webhook-{number}"), &contact)
}

/// The records of the import, in order: most are fine, some are broken, some come twice, one goes nowhere.
fn import_jobs(records: u32) -> Vec<NewJob> {
    let mut jobs = Vec::with_capacity(records as usize + records as usize / 16 + 1);
    let mut copies: Vec<(usize, NewJob)> = Vec::new();
    for number in 0..records {
        let record = record(number, records);
        if number % RECORD_TWICE_EVERY == RECORD_TWICE_EVERY / 2 {
            copies.push((jobs.len() + COPY_AFTER, record.clone()));
        }
        jobs.push(record);
        let due = copies.iter().position(|(at, _)| *at <= jobs.len());
        jobs.extend(due.map(|at| copies.swap_remove(at).1));
    }
    jobs.extend(copies.into_iter().map(|(_, copy)| copy));
    let lost = Contact { email: "lost@example.com".to_owned(), account: "open".to_owned(), sent_at_us: None };
    jobs.insert(jobs.len() / 3, job(BULK, IMPORT_TENANT, ENDPOINT_UNKNOWN, "contact-with-a-typo", &lost));
    jobs
}

fn record(number: u32, records: u32) -> NewJob {
    let chosen =
        |count: u32, from: u32| number % (records / count).max(1) == from && number / (records / count).max(1) < count;
    let mut contact =
        Contact { email: format!("contact-{number}@example.com"), account: "open".to_owned(), sent_at_us: None };
    let mut attempts = None;
    if chosen(INVALID_RECORDS, 3) {
        "not an address".clone_into(&mut contact.email);
    } else if chosen(UNAVAILABLE_RECORDS, 1) {
        IN_MAINTENANCE.clone_into(&mut contact.account);
        attempts = Some(UNAVAILABLE_ATTEMPTS);
    }
    let mut job = job(BULK, IMPORT_TENANT, ENDPOINT, &format!("contact-{number}"), &contact);
    job.meta.max_attempts = attempts;
    job
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn contact(job: &NewJob) -> Contact {
        serde_json::from_slice(&job.body).expect("a contact")
    }

    #[test]
    fn an_import_has_its_records_and_its_flaws() {
        for records in [100, 600, 3_000] {
            let jobs = import_jobs(records);
            let ids: HashSet<_> = jobs.iter().map(|job| job.id.clone()).collect();
            assert_eq!(ids.len() as u64, u64::from(records) + IMPORT_EXTRA);
            assert_eq!(jobs.len(), ids.len() + (records / RECORD_TWICE_EVERY) as usize, "of {records}");
            let count = |what: &dyn Fn(&NewJob) -> bool| jobs.iter().filter(|job| what(job)).count();
            assert_eq!(count(&|job| !contact(job).email.contains('@')), INVALID_RECORDS as usize);
            assert_eq!(count(&|job| contact(job).account == IN_MAINTENANCE), UNAVAILABLE_RECORDS as usize);
            assert_eq!(count(&|job| job.endpoint.as_str() == ENDPOINT_UNKNOWN), 1);
        }
    }

    #[test]
    fn a_copy_is_the_same_job_and_comes_after_the_first() {
        let jobs = import_jobs(600);
        let mut seen: Vec<&NewJob> = Vec::new();
        let mut copies = 0;
        for job in &jobs {
            if let Some(first) = seen.iter().find(|first| first.id == job.id) {
                assert_eq!(first.body, job.body);
                copies += 1;
            }
            seen.push(job);
        }
        assert_eq!(copies, 30);
    }
}
