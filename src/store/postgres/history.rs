//! Counts by time, of all workers together.

use async_trait::async_trait;
use sqlx::PgPool;

use super::{PgStore, begin};
use crate::clock::Timestamp;
use crate::job::history::{Count, Measure, Pieces, Series, Step};
use crate::store::fault::{Answer, limit as rows_limit};
use crate::store::record::{PieceRecord, SumRecord, count_of, micros_of, seconds_of, step_of};
use crate::store::{HistoryStore, Piece, StoreResult};

// in the order of the key, so that two workers that write the same rows do not wait for each other in a circle
const ADD: &str = "\
    INSERT INTO history AS h (seconds, at, measure, bucket, subject, part, count, total)
    SELECT $1, $2, measure, bucket, subject, part, count, total
    FROM unnest($3::text[], $4::smallint[], $5::text[], $6::text[], $7::bigint[], $8::bigint[])
        AS new (measure, bucket, subject, part, count, total)
    ORDER BY measure COLLATE \"C\", bucket, subject COLLATE \"C\", part COLLATE \"C\"
    ON CONFLICT (seconds, at, measure, bucket, subject, part)
        DO UPDATE SET count = h.count + excluded.count, total = h.total + excluded.total";
const SUMS: &str = "\
    SELECT measure, bucket, subject, part, sum(count)::bigint AS count, sum(total)::bigint AS total FROM history
    WHERE seconds = $1 AND at >= $2 AND at < $3 AND measure = ANY($4)
    GROUP BY measure, bucket, subject, part";
const PIECES: &str = "\
    SELECT at - at % $5 AS start, measure, bucket, subject, '' AS part,
        sum(count)::bigint AS count, sum(total)::bigint AS total
    FROM history WHERE seconds = $1 AND at >= $2 AND at < $3 AND measure = ANY($4)
    GROUP BY start, measure, bucket, subject ORDER BY start DESC, measure, bucket, subject LIMIT $6";
const PURGE: &str = "\
    DELETE FROM history WHERE ctid = ANY(ARRAY(SELECT ctid FROM history WHERE seconds = $1 AND at < $2 LIMIT $3))";

#[async_trait]
impl HistoryStore for PgStore {
    async fn add_history(&self, at: Timestamp, counts: &[(Series, Count)]) -> StoreResult<()> {
        self.run("write history", add(&self.pool, at, counts)).await
    }

    async fn history(
        &self,
        step: Step,
        since: Timestamp,
        until: Timestamp,
        measures: &[Measure],
    ) -> StoreResult<Vec<(Series, Count)>> {
        self.run("read history", sums(&self.pool, step, since, until, measures)).await
    }

    async fn history_pieces(&self, wanted: Pieces, measures: &[Measure], limit: usize) -> StoreResult<Vec<Piece>> {
        self.run("read history", pieces(&self.pool, wanted, measures, limit)).await
    }

    async fn purge_history(&self, now: Timestamp, limit: usize) -> StoreResult<u64> {
        self.run("purge history", purge(&self.pool, now, limit)).await
    }
}

async fn add(pool: &PgPool, at: Timestamp, counts: &[(Series, Count)]) -> Answer<()> {
    let mut tx = begin(pool).await?;
    for step in Step::ALL {
        sqlx::query(ADD)
            .bind(seconds_of(step))
            .bind(step_of(step, at).as_micros())
            .bind(counts.iter().map(|(series, _)| series.measure.as_str()).collect::<Vec<_>>())
            .bind(counts.iter().map(|(series, _)| i16::from(series.bucket)).collect::<Vec<_>>())
            .bind(counts.iter().map(|(series, _)| series.subject.as_str()).collect::<Vec<_>>())
            .bind(counts.iter().map(|(series, _)| series.part.as_str()).collect::<Vec<_>>())
            .bind(counts.iter().map(|(_, count)| count_of(count.count)).collect::<Vec<_>>())
            .bind(counts.iter().map(|(_, count)| count_of(count.total)).collect::<Vec<_>>())
            .execute(&mut *tx)
            .await?;
    }
    tx.commit().await?;
    Ok(())
}

async fn sums(
    pool: &PgPool,
    step: Step,
    since: Timestamp,
    until: Timestamp,
    measures: &[Measure],
) -> Answer<Vec<(Series, Count)>> {
    let records: Vec<SumRecord> = sqlx::query_as(SUMS)
        .bind(seconds_of(step))
        .bind(step_of(step, since).as_micros())
        .bind(until.as_micros())
        .bind(measures.iter().map(|measure| measure.as_str()).collect::<Vec<_>>())
        .fetch_all(pool)
        .await?;
    Ok(records.into_iter().filter_map(SumRecord::counted).collect())
}

async fn pieces(pool: &PgPool, pieces: Pieces, measures: &[Measure], limit: usize) -> Answer<Vec<Piece>> {
    let records: Vec<PieceRecord> = sqlx::query_as(PIECES)
        .bind(seconds_of(pieces.step))
        .bind(step_of(pieces.step, pieces.since).as_micros())
        .bind(pieces.until.as_micros())
        .bind(measures.iter().map(|measure| measure.as_str()).collect::<Vec<_>>())
        .bind(micros_of(pieces.width))
        .bind(rows_limit(limit))
        .fetch_all(pool)
        .await?;
    Ok(records.into_iter().filter_map(PieceRecord::piece).collect())
}

async fn purge(pool: &PgPool, now: Timestamp, limit: usize) -> Answer<u64> {
    let mut purged = 0;
    for step in Step::ALL {
        let before = now.minus(step.kept()).as_micros();
        let done = sqlx::query(PURGE).bind(seconds_of(step)).bind(before).bind(rows_limit(limit)).execute(pool).await?;
        purged += done.rows_affected();
    }
    Ok(purged)
}
