//! What all workers know of accounts: what every store has to do with it.

use lanes::clock::Timestamp;
use lanes::job::budget::Account;
use lanes::job::{EndpointName, Tenant};
use lanes::store::{AccountRow, AccountWrite};

use super::store::{Bench, on_every_store};

on_every_store! {
    whoever_has_read_the_last_version_writes_the_next,
    what_was_written_lately_is_read,
    what_is_not_kept_is_forgotten,
    of_many_writers_one_is_first,
}

const fn at(seconds: i64) -> Timestamp {
    Timestamp::from_secs(1_800_000_000 + seconds)
}

fn account(tenant: &str) -> Account {
    let tenant = (!tenant.is_empty()).then(|| Tenant::new(tenant).expect("a tenant"));
    Account { endpoint: EndpointName::new("crm").expect("an endpoint"), tenant }
}

fn write(tenant: &str, seen: i64, knowledge: &str) -> AccountWrite {
    AccountWrite {
        account: account(tenant),
        seen,
        version: seen + 1,
        kept_until: at(1_000),
        knowledge: knowledge.to_owned(),
    }
}

async fn put(bench: &Bench, write: &AccountWrite, seconds: i64) -> bool {
    bench.store.put_account(write, at(seconds)).await.expect("answered")
}

async fn whoever_has_read_the_last_version_writes_the_next(bench: Bench) {
    assert_eq!(bench.store.account(&account("acme")).await.expect("read"), None);
    assert!(!put(&bench, &write("acme", 1, "{}"), 1).await, "there is no first version");
    assert!(put(&bench, &write("acme", 0, "{\"a\":1}"), 1).await);
    assert!(!put(&bench, &write("acme", 0, "{\"b\":1}"), 2).await, "somebody was quicker");
    assert!(put(&bench, &write("acme", 1, "{\"a\":2}"), 3).await);
    assert!(!put(&bench, &write("acme", 1, "{\"a\":3}"), 3).await, "of an old version");
    let row = bench.store.account(&account("acme")).await.expect("read");
    let expected =
        AccountRow { account: account("acme"), version: 2, changed_at: at(3), knowledge: "{\"a\":2}".to_owned() };
    assert_eq!(row, Some(expected));
    assert_eq!(bench.store.account(&account("")).await.expect("read"), None, "all tenants together are another one");
}

async fn what_was_written_lately_is_read(bench: Bench) {
    for (nth, tenant) in ["", "acme", "globex"].into_iter().enumerate() {
        assert!(put(&bench, &write(tenant, 0, "{}"), i64::try_from(nth).expect("small")).await);
    }
    let read = async |since, limit| {
        let rows = bench.store.accounts(at(since), limit).await.expect("read");
        rows.into_iter().map(|row| row.account).collect::<Vec<_>>()
    };
    assert_eq!(read(0, 10).await, [account("globex"), account("acme"), account("")]);
    assert_eq!(read(1, 10).await, [account("globex"), account("acme")]);
    assert_eq!(read(0, 1).await, [account("globex")], "the latest");
    assert_eq!(read(3, 10).await, []);
}

async fn what_is_not_kept_is_forgotten(bench: Bench) {
    assert!(put(&bench, &write("acme", 0, "{}"), 0).await);
    let for_ever = AccountWrite { kept_until: Timestamp::MAX, ..write("globex", 0, "{}") };
    assert!(put(&bench, &for_ever, 0).await);
    assert_eq!(bench.store.purge_accounts(at(1_000)).await.expect("purged"), 0);
    assert_eq!(bench.store.purge_accounts(at(1_001)).await.expect("purged"), 1);
    assert_eq!(bench.store.account(&account("acme")).await.expect("read"), None);
    assert!(!put(&bench, &write("acme", 1, "{}"), 2_000).await, "the row that was read is gone");
    assert!(put(&bench, &write("acme", 0, "{}"), 2_000).await);
}

async fn of_many_writers_one_is_first(bench: Bench) {
    for seen in 0..3 {
        let mut writers = tokio::task::JoinSet::new();
        for nth in 0..8 {
            let store = std::sync::Arc::clone(&bench.store);
            let write = write("acme", seen, &format!("{{\"n\":{nth}}}"));
            writers.spawn(async move { store.put_account(&write, at(1)).await.expect("answered") });
        }
        let written = writers.join_all().await.into_iter().filter(|written| *written).count();
        assert_eq!(written, 1, "version {}", seen + 1);
    }
}
