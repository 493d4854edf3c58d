//! Decisions: how many tokens a second the store gives away, beside a limiter that writes one row for each call.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lanes::clock::Timestamp;
use lanes::db::{self, PgPoolUse};
use lanes::job::budget::{Take, Window};
use lanes::store::BudgetStore;
use lanes::store::postgres::PgStore;
use lanes::store::sqlite::SqliteStore;

use super::{Bench, to_f64};

/// Clients that decide at a time: lanes of workers, or callers of the naive limiter.
const CLIENTS: usize = 8;
/// Tokens that a lane of concurrency 100 asks for at a time, when it has as many jobs of one tenant.
const BLOCK: u32 = 100;
/// How far ahead a lane asks.
const AHEAD: Duration = Duration::from_millis(500);
/// How long each is measured.
const MEASURED: Duration = Duration::from_secs(4);
/// Keys of the runs with many.
const MANY_KEYS: usize = 1_000;
/// Decisions of the governor for one of the naive limiter, on one hot key.
const RATIO_MIN: f64 = 10.0;
/// A pace that never refuses.
const INTERVAL: Duration = Duration::from_micros(1);

const NAIVE_TABLE: &str = "CREATE TABLE naive (key text PRIMARY KEY, due bigint NOT NULL)";
const NAIVE_PG: &str = "\
    INSERT INTO naive AS n (key, due) VALUES ($1, $2) ON CONFLICT (key)
    DO UPDATE SET due = greatest(n.due, excluded.due) + 1 RETURNING due";
const NAIVE_SQLITE: &str = "\
    INSERT INTO naive AS n (key, due) VALUES (?1, ?2) ON CONFLICT (key)
    DO UPDATE SET due = max(n.due, excluded.due) + 1 RETURNING due";

impl Bench {
    pub(super) async fn decisions(&self) {
        self.decisions_postgres().await;
        self.decisions_sqlite().await;
    }

    async fn decisions_postgres(&self) {
        let url = self.postgres.fresh_database().await;
        let purpose = PgPoolUse { name: "bench", connections: u32::try_from(CLIENTS).expect("small") };
        let pool = db::open_postgres(&url, purpose).expect("a pool");
        db::migrate_postgres(&url, &pool).await.expect("a schema");
        sqlx::query(NAIVE_TABLE).execute(&pool).await.expect("a table");
        let store: Arc<dyn BudgetStore> = Arc::new(PgStore::new(pool.clone(), &url));
        let naive = move |key: String, now: Timestamp| {
            let pool = pool.clone();
            async move {
                let due = sqlx::query_scalar::<_, i64>(NAIVE_PG).bind(key).bind(now.as_micros());
                due.fetch_one(&pool).await.expect("decided");
            }
        };
        self.compare("PostgreSQL", &store, naive).await;
    }

    async fn decisions_sqlite(&self) {
        let url = format!("sqlite:{}", self.dir.path().join("decisions.db").display());
        let file = db::open_sqlite(&url).await.expect("a file");
        sqlx::query(NAIVE_TABLE).execute(&file.write).await.expect("a table");
        let store: Arc<dyn BudgetStore> = Arc::new(SqliteStore::new(file.clone()));
        let naive = move |key: String, now: Timestamp| {
            let pool = file.write.clone();
            async move {
                let due = sqlx::query_scalar::<_, i64>(NAIVE_SQLITE).bind(key).bind(now.as_micros());
                due.fetch_one(&pool).await.expect("decided");
            }
        };
        self.compare("SQLite", &store, naive).await;
    }

    async fn compare<F>(&self, backend: &str, store: &Arc<dyn BudgetStore>, naive: impl Fn(String, Timestamp) -> F)
    where
        F: Future<Output = ()> + Send,
    {
        for (name, keys, blocks) in [("one hot key", 1, &[BLOCK][..]), ("1,000 keys", MANY_KEYS, &[BLOCK, 1])] {
            let naive_rate = self.rate_of(keys, 1, &naive).await;
            for tokens in blocks {
                let take = |key: String, now: Timestamp| {
                    let window = Window::new(key, INTERVAL, AHEAD);
                    let wish = Take { windows: vec![window], tokens: *tokens, now, until: now.plus(AHEAD) };
                    async move {
                        let taken = store.take(&wish).await.expect("decided");
                        assert_eq!(taken.granted, wish.tokens, "the pace is far above this");
                    }
                };
                let rate = self.rate_of(keys, *tokens, take).await;
                let ratio = rate / naive_rate;
                let what = format!("decisions {backend}, {name}, {tokens} tokens a statement");
                let figure = format!("{rate:.0}/s, one row a call {naive_rate:.0}/s, ratio {ratio:.1}");
                if keys == 1 {
                    let target = format!("ratio >= {RATIO_MIN}");
                    self.verdict.target(&what, &figure, &target, ratio >= RATIO_MIN);
                } else {
                    println!("{what}: {figure}");
                }
            }
        }
    }

    /// Decisions a second of all clients together.
    async fn rate_of<F>(&self, keys: usize, tokens: u32, decide: impl Fn(String, Timestamp) -> F) -> f64
    where
        F: Future<Output = ()> + Send,
    {
        let (started, statements) = (self.clock.now(), AtomicUsize::new(0));
        let (decide, statements, clock) = (&decide, &statements, &self.clock);
        let clients = (0..CLIENTS).map(|client| async move {
            let mut key = client * keys / CLIENTS;
            while clock.now().since(started) < MEASURED {
                decide(format!("key-{key}"), clock.now()).await;
                statements.fetch_add(1, Ordering::Relaxed);
                key = (key + 1) % keys;
            }
        });
        futures_util::future::join_all(clients).await;
        let took = self.clock.now().since(started).as_secs_f64();
        to_f64(statements.load(Ordering::Relaxed)) * f64::from(tokens) / took
    }
}
