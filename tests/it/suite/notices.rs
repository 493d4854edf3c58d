//! What people were told: what every store has to do with it.

use lanes::store::NoticesRow;

use super::store::{Bench, at, on_every_store};

on_every_store! {
    whoever_has_read_the_last_version_tells_the_next,
    of_many_who_want_to_tell_one_does,
}

async fn whoever_has_read_the_last_version_tells_the_next(bench: Bench) {
    let put = async |seen, state: &str| bench.store.put_notices(seen, state, at(seen)).await.expect("answered");
    assert_eq!(bench.store.notices().await.expect("read"), None);
    assert!(!put(1, "{}").await, "there is no first version");
    assert!(put(0, "{\"a\":1}").await);
    assert!(!put(0, "{\"b\":1}").await, "somebody was quicker");
    assert!(put(1, "{\"a\":2}").await);
    assert!(!put(1, "{\"a\":3}").await, "of an old version");
    let expected = NoticesRow { version: 2, state: "{\"a\":2}".to_owned() };
    assert_eq!(bench.store.notices().await.expect("read"), Some(expected));
}

async fn of_many_who_want_to_tell_one_does(bench: Bench) {
    for seen in 0..3 {
        let mut tellers = tokio::task::JoinSet::new();
        for nth in 0..8 {
            let store = std::sync::Arc::clone(&bench.store);
            let state = format!("{{\"n\":{nth}}}");
            tellers.spawn(async move { store.put_notices(seen, &state, at(1)).await.expect("answered") });
        }
        let told = tellers.join_all().await.into_iter().filter(|told| *told).count();
        assert_eq!(told, 1, "version {}", seen + 1);
    }
}
