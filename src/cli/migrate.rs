//! `lanes migrate`: bring the schema up to date before workers of a new version start.

use serde_json::json;

use super::context::Context;
use super::error::{CliError, Exit};
use crate::app;

/// Runs it. Workers do the same at their start; several at once are safe.
pub async fn run(mut ctx: Context) -> Result<Exit, CliError> {
    app::migrate(&ctx.specs).await?;
    if ctx.out.is_json() {
        ctx.out.document(&json!({ "schema": 1, "migrated": true }))?;
    } else {
        ctx.out.line("the schema is up to date")?;
    }
    ctx.out.flush()?;
    Ok(Exit::Ok)
}
