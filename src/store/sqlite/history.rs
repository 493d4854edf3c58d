//! Counts by time, of all workers together.

use async_trait::async_trait;
use sqlx::QueryBuilder;

use super::{SqliteStore, begin};
use crate::clock::Timestamp;
use crate::db::Sqlite;
use crate::job::history::{Count, Measure, Pieces, Series, Step};
use crate::store::fault::{Answer, limit as rows_limit};
use crate::store::record::{PieceRecord, SumRecord, count_of, micros_of, seconds_of, step_of};
use crate::store::{HistoryStore, Piece, StoreResult};

const ADD: &str = "\
    INSERT INTO history (seconds, at, measure, bucket, subject, part, count, total) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
    ON CONFLICT DO UPDATE SET count = count + excluded.count, total = total + excluded.total";
const PURGE: &str = "\
    DELETE FROM history WHERE (seconds, at, measure, bucket, subject, part) IN (
        SELECT seconds, at, measure, bucket, subject, part FROM history WHERE seconds = ?1 AND at < ?2 LIMIT ?3)";

#[async_trait]
impl HistoryStore for SqliteStore {
    async fn add_history(&self, at: Timestamp, counts: &[(Series, Count)]) -> StoreResult<()> {
        self.run("write history", add(&self.db, at, counts)).await
    }

    async fn history(
        &self,
        step: Step,
        since: Timestamp,
        until: Timestamp,
        measures: &[Measure],
    ) -> StoreResult<Vec<(Series, Count)>> {
        self.run("read history", sums(&self.db, step, since, until, measures)).await
    }

    async fn history_pieces(&self, wanted: Pieces, measures: &[Measure], limit: usize) -> StoreResult<Vec<Piece>> {
        self.run("read history", pieces(&self.db, wanted, measures, limit)).await
    }

    async fn purge_history(&self, now: Timestamp, limit: usize) -> StoreResult<u64> {
        self.run("purge history", purge(&self.db, now, limit)).await
    }
}

async fn add(db: &Sqlite, at: Timestamp, counts: &[(Series, Count)]) -> Answer<()> {
    let mut tx = begin(db).await?;
    for step in Step::ALL {
        for (series, count) in counts {
            sqlx::query(ADD)
                .bind(seconds_of(step))
                .bind(step_of(step, at).as_micros())
                .bind(series.measure.as_str())
                .bind(i16::from(series.bucket))
                .bind(&series.subject)
                .bind(&series.part)
                .bind(count_of(count.count))
                .bind(count_of(count.total))
                .execute(&mut *tx)
                .await?;
        }
    }
    tx.commit().await?;
    Ok(())
}

async fn sums(
    db: &Sqlite,
    step: Step,
    since: Timestamp,
    until: Timestamp,
    measures: &[Measure],
) -> Answer<Vec<(Series, Count)>> {
    let mut query = QueryBuilder::new(
        "SELECT measure, bucket, subject, part, sum(count) AS count, sum(total) AS total FROM history WHERE seconds = ",
    );
    query.push_bind(seconds_of(step));
    query.push(" AND at >= ").push_bind(step_of(step, since).as_micros());
    query.push(" AND at < ").push_bind(until.as_micros()).push(" AND measure IN (");
    let mut list = query.separated(", ");
    for measure in measures {
        list.push_bind(measure.as_str());
    }
    query.push(") GROUP BY measure, bucket, subject, part");
    let records: Vec<SumRecord> = query.build_query_as().fetch_all(&db.read).await?;
    Ok(records.into_iter().filter_map(SumRecord::counted).collect())
}

async fn pieces(db: &Sqlite, pieces: Pieces, measures: &[Measure], limit: usize) -> Answer<Vec<Piece>> {
    let mut query = QueryBuilder::new("SELECT at - at % ");
    query.push_bind(micros_of(pieces.width));
    query.push(
        " AS start, measure, bucket, subject, '' AS part, sum(count) AS count, sum(total) AS total FROM history \
         WHERE seconds = ",
    );
    query.push_bind(seconds_of(pieces.step));
    query.push(" AND at >= ").push_bind(step_of(pieces.step, pieces.since).as_micros());
    query.push(" AND at < ").push_bind(pieces.until.as_micros()).push(" AND measure IN (");
    let mut list = query.separated(", ");
    for measure in measures {
        list.push_bind(measure.as_str());
    }
    query.push(") GROUP BY start, measure, bucket, subject ORDER BY start DESC, measure, bucket, subject LIMIT ");
    query.push_bind(rows_limit(limit));
    let records: Vec<PieceRecord> = query.build_query_as().fetch_all(&db.read).await?;
    Ok(records.into_iter().filter_map(PieceRecord::piece).collect())
}

async fn purge(db: &Sqlite, now: Timestamp, limit: usize) -> Answer<u64> {
    let mut purged = 0;
    for step in Step::ALL {
        let before = now.minus(step.kept()).as_micros();
        let done =
            sqlx::query(PURGE).bind(seconds_of(step)).bind(before).bind(rows_limit(limit)).execute(&db.write).await?;
        purged += done.rows_affected();
    }
    Ok(purged)
}
