//! `lanes dead groups` and `lanes dead export`: what letters died of, and all of them with their bytes.

use futures_util::StreamExt as _;
use serde_json::{Value, json};

use super::context::Context;
use super::dead::FilterArgs;
use super::error::{CliError, Exit};
use super::out::note;
use super::text::{Table, ago, counted};
use super::view;
use crate::job::Tenant;
use crate::store::{LIST_MAX, Letter, LetterFilter, LetterGroup, Payload, RawLetter};

/// Letters that are read at a time.
const CONCURRENT: usize = 4;

/// A letter with its bytes.
pub fn document(letter: &Letter, payload: &Payload) -> Value {
    let meta = serde_json::from_slice(&payload.meta).unwrap_or_else(|_| view::body(&payload.meta));
    let mut document = view::letter(letter);
    document["schema"] = 1.into();
    document["meta"] = meta;
    document["body"] = view::body(&payload.body);
    document
}

/// Lists what letters died of.
pub async fn groups(mut ctx: Context, limit: u64) -> Result<Exit, CliError> {
    let store = ctx.store().await?;
    let groups = store.letter_groups(usize::try_from(limit).unwrap_or(LIST_MAX)).await?;
    let now = store.time().await?;
    if ctx.out.is_json() {
        ctx.out.document(&groups.iter().map(group_document).collect())?;
    } else if groups.is_empty() {
        note("there are no dead letters");
    } else {
        let mut table = Table::new(&["ENDPOINT", "REASON", "TENANT", ">LETTERS", "FIRST", "LAST"]);
        for group in &groups {
            table.row([
                group.endpoint.clone().unwrap_or_default(),
                group.reason.to_string(),
                group.tenant.as_ref().map_or_else(String::new, Tenant::to_string),
                group.letters.to_string(),
                ago(group.first_at, now),
                ago(group.last_at, now),
            ]);
        }
        ctx.out.table(&table)?;
        if groups.len() as u64 == limit {
            note(format_args!("only the {limit} largest groups are shown; raise --limit"));
        }
    }
    ctx.out.flush()?;
    Ok(Exit::Ok)
}

fn group_document(group: &LetterGroup) -> Value {
    json!({
        "endpoint": group.endpoint, "reason": group.reason, "tenant": group.tenant, "letters": group.letters,
        "first_at": view::time(Some(group.first_at)), "last_at": view::time(Some(group.last_at)),
    })
}

/// Writes them out, page by page. One that is put back to work meanwhile is left out.
pub async fn run(mut ctx: Context, filter: &FilterArgs) -> Result<Exit, CliError> {
    let store = ctx.store().await?;
    let mut page = filter.filter(LIST_MAX);
    let mut written = 0;
    loop {
        let letters = store.letters(&page).await?;
        let mut whole = futures_util::stream::iter(letters.iter().map(|letter| letter.instance))
            .map(|handle| store.letter(handle))
            .buffered(CONCURRENT);
        while let Some(found) = whole.next().await {
            if let Some(RawLetter { letter, payload }) = found? {
                // never over several lines, also on a terminal
                ctx.out.line(document(&letter, &payload))?;
                written += 1;
            }
        }
        ctx.out.flush()?;
        let Some(last) = letters.last().filter(|_| letters.len() == LIST_MAX) else { break };
        page = LetterFilter { after: Some((last.died_at, last.instance)), ..page };
    }
    note(format_args!("{} written", counted(written, "dead letter")));
    Ok(Exit::Ok)
}
