//! What all workers know of accounts: written by whoever has read the version before.

use sqlx::{PgExecutor, PgPool};

use crate::clock::Timestamp;
use crate::job::budget::Account;
use crate::store::fault::{Answer, limit as rows_limit};
use crate::store::record::{AccountRecord, tenant_text};
use crate::store::{AccountRow, AccountWrite};

const CHANGED: &str = "\
    SELECT version, changed_at, endpoint, tenant, knowledge FROM accounts
    WHERE changed_at >= $1 ORDER BY changed_at DESC LIMIT $2";
const ONE: &str =
    "SELECT version, changed_at, endpoint, tenant, knowledge FROM accounts WHERE endpoint = $1 AND tenant = $2";
const INSERT: &str = "\
    INSERT INTO accounts (version, changed_at, kept_until, endpoint, tenant, knowledge)
    SELECT $7, $3, $4, $1, $2, $5 WHERE $6 = 0 ON CONFLICT DO NOTHING";
const UPDATE: &str = "\
    UPDATE accounts SET version = $7, changed_at = $3, kept_until = $4, knowledge = $5
    WHERE endpoint = $1 AND tenant = $2 AND version = $6";
const PURGE: &str = "DELETE FROM accounts WHERE kept_until < $1";

pub async fn changed(pool: &PgPool, since: Timestamp, limit: usize) -> Answer<Vec<AccountRow>> {
    let rows: Vec<AccountRecord> =
        sqlx::query_as(CHANGED).bind(since.as_micros()).bind(rows_limit(limit)).fetch_all(pool).await?;
    rows.into_iter().map(AccountRecord::row).collect()
}

pub async fn one(pool: &PgPool, account: &Account) -> Answer<Option<AccountRow>> {
    let row: Option<AccountRecord> =
        sqlx::query_as(ONE).bind(account.endpoint.as_str()).bind(tenant_text(account)).fetch_optional(pool).await?;
    row.map(AccountRecord::row).transpose()
}

pub async fn put(db: impl PgExecutor<'_>, write: &AccountWrite, now: Timestamp) -> Answer<bool> {
    let statement = if write.seen == 0 { INSERT } else { UPDATE };
    let written = sqlx::query(statement)
        .bind(write.account.endpoint.as_str())
        .bind(tenant_text(&write.account))
        .bind(now.as_micros())
        .bind(write.kept_until.as_micros())
        .bind(&write.knowledge)
        .bind(write.seen)
        .bind(write.version)
        .execute(db)
        .await?;
    Ok(written.rows_affected() == 1)
}

pub async fn purge(pool: &PgPool, before: Timestamp) -> Answer<u64> {
    Ok(sqlx::query(PURGE).bind(before.as_micros()).execute(pool).await?.rows_affected())
}
