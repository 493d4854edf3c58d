//! No batch for the store is larger than it may be, whatever the size of the jobs. The lane bounds them, so one backend says all.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use lanes::broker::Outgoing;
use lanes::engine::settings::WorkerSettings;
use lanes::job::wire;
use lanes::message::{Message, Properties};
use lanes::store::{BATCH_BYTES_MAX, State};

use super::rig::{Backend, Reply, Rig, lane, new_job, settings};
use super::weather::{self, Asked, Weather};

const MIB: usize = 1024 * 1024;

/// The bodies' bytes of each batch.
#[derive(Clone, Default)]
struct Batches(Arc<Mutex<Vec<Vec<usize>>>>);

impl Batches {
    fn note(&self, bodies: impl Iterator<Item = usize>) {
        self.0.lock().expect("not poisoned").push(bodies.collect());
    }

    fn check(&self, entries: usize) {
        let batches = self.0.lock().expect("not poisoned");
        for batch in batches.iter() {
            assert!(batch.len() == 1 || batch.iter().sum::<usize>() <= BATCH_BYTES_MAX, "{batches:?}");
        }
        assert!(batches.iter().any(|batch| batch.len() > 1), "some are batches: {batches:?}");
        assert_eq!(batches.iter().map(Vec::len).sum::<usize>(), entries, "{batches:?}");
    }
}

fn body(mebibytes: usize) -> Bytes {
    vec![b'x'; mebibytes * MIB].into()
}

fn accepting(body_bytes_max: usize) -> WorkerSettings {
    let mut settings = settings();
    for lane in &mut settings.lanes {
        lane.decode.body_bytes_max = body_bytes_max;
    }
    settings
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claims_are_bounded_by_bytes() {
    let rig = Rig::new(Backend::Sqlite, |_, _| Reply::status(200)).await;
    let (store, batches) = (Weather::before(&rig.backing.store), Batches::default());
    let noted = batches.clone();
    store.turns(Arc::new(move |asked| {
        if let Asked::ClaimFresh(claims) = asked {
            noted.note(claims.iter().map(|claim| claim.payload.body.len()));
        }
        weather::ready(Ok(()))
    }));
    let mut jobs = Vec::new();
    for (n, mebibytes) in [3, 3, 3, 9, 3, 3, 3].into_iter().enumerate() {
        let mut job = new_job("realtime", &format!("job-{n}"));
        job.body = body(mebibytes);
        jobs.push(rig.publisher.publish_one(job).await.expect("confirmed"));
    }
    let worker = rig.start_before(accepting(16 * MIB), &store);
    for job in &jobs {
        rig.until_state(job, State::Done).await;
    }
    worker.stop().await;
    batches.check(jobs.len());
}

/// The first statement is held up until all the others have arrived, so that they could be one batch.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn letters_are_bounded_by_bytes() {
    let rig = Rig::new(Backend::Sqlite, |_, _| Reply::status(200)).await;
    let (store, batches) = (Weather::before(&rig.backing.store), Batches::default());
    let (open, gate) = tokio::sync::watch::channel(false);
    let noted = batches.clone();
    store.turns(Arc::new(move |asked| match asked {
        Asked::BuryLetters(letters) => {
            noted.note(letters.iter().map(|letter| letter.payload.body.len()));
            weather::once(&gate)
        }
        _ => weather::ready(Ok(())),
    }));
    for n in 0..7 {
        let properties = Properties { message_id: Some(format!("bad-{n}")), ..Properties::default() };
        let message = Message { properties, body: body(3), ..Message::default() };
        let outgoing = Outgoing { route: wire::route(&lane("realtime")), message };
        for answer in rig.backing.broker.publish(vec![outgoing]).await {
            answer.expect("confirmed");
        }
    }
    let worker = rig.start_before(rig.settings.clone(), &store);
    rig.barrier("realtime").await;
    open.send(true).expect("the store waits");
    rig.until_letters(7).await;
    worker.stop().await;
    batches.check(7);
}
