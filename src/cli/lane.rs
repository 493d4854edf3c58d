//! `lanes lane`: which lanes work and which are paused; pausing and resuming them.

use std::collections::BTreeMap;

use clap::Subcommand;
use serde_json::json;

use super::context::Context;
use super::error::{CliError, Exit};
use super::names;
use super::pause::{self, ByArgs, PauseArgs, ends};
use super::text::{Table, ago, shorten};
use super::view;
use crate::job::LaneName;
use crate::job::control::{Pause, Target};
use crate::store::ControlRow;

/// Most characters of a free text in a table.
const CELL_MAX: usize = 60;

/// Subcommands of `lanes lane`.
#[derive(Debug, Subcommand)]
pub enum LaneCommand {
    /// List lanes: which are paused, until when, by whom and why
    List,
    /// Hold a lane back, on all workers: nothing new is called, calls in flight finish, nothing is lost, no attempt is spent
    Pause {
        /// The lane
        #[arg(value_parser = LaneName::new)]
        lane: LaneName,
        #[command(flatten)]
        args: PauseArgs,
    },
    /// Let a paused lane go on
    Resume {
        /// The lane
        #[arg(value_parser = LaneName::new)]
        lane: LaneName,
        #[command(flatten)]
        by: ByArgs,
    },
}

/// Runs it.
pub async fn run(ctx: Context, command: LaneCommand) -> Result<Exit, CliError> {
    match command {
        LaneCommand::List => list(ctx).await,
        LaneCommand::Pause { lane, args } => {
            names::lane(&ctx.specs, &lane, Exit::NotFound)?;
            let resume = format!("lanes lane resume {lane}");
            pause::pause(ctx, &Target::Lane(lane), args, &resume).await
        }
        LaneCommand::Resume { lane, by } => {
            // one that is not configured any more may be paused still
            let unknown = names::lane(&ctx.specs, &lane, Exit::NotFound).err();
            let resumed = pause::resume(ctx, &Target::Lane(lane), by).await;
            match (resumed, unknown) {
                (Err(error), Some(unknown)) if error.exit() == Exit::NotFound => Err(unknown),
                (resumed, _) => resumed,
            }
        }
    }
}

async fn list(mut ctx: Context) -> Result<Exit, CliError> {
    let store = ctx.store().await?;
    let now = store.time().await?;
    let rows = store.controls().await?.into_iter();
    let of_lane = |row: ControlRow| match row.target {
        Target::Lane(lane) => Some((lane, row.pause)),
        _ => None,
    };
    let mut paused: BTreeMap<LaneName, Pause> = rows.filter(|row| row.pause.lasts(now)).filter_map(of_lane).collect();
    let configured = ctx.specs.lanes.iter().map(|lane| lane.name.clone());
    let mut lanes: Vec<_> = configured.map(|lane| (paused.remove(&lane), lane, true)).collect();
    lanes.extend(paused.into_iter().map(|(lane, pause)| (Some(pause), lane, false)));
    if ctx.out.is_json() {
        let document = |(pause, lane, configured): &(Option<Pause>, LaneName, bool)| {
            json!({
                "name": lane, "configured": configured, "state": if pause.is_some() { "paused" } else { "running" },
                "pause": pause.as_ref().map(view::pause),
            })
        };
        ctx.out.document(&lanes.iter().map(document).collect())?;
    } else {
        let mut table = Table::new(&["LANE", "STATE", "ENDS", "BY", "SINCE", "NOTE"]);
        for (pause, lane, configured) in &lanes {
            let name = if *configured { lane.to_string() } else { format!("{lane} (not configured)") };
            table.row(match pause {
                None => {
                    [name, "running".to_owned()].into_iter().chain([const { String::new() }; 4]).collect::<Vec<_>>()
                }
                Some(pause) => vec![
                    name,
                    "paused".to_owned(),
                    ends(pause, now),
                    shorten(&pause.author, CELL_MAX),
                    ago(pause.set_at, now),
                    shorten(&pause.note, CELL_MAX),
                ],
            });
        }
        ctx.out.table(&table)?;
    }
    ctx.out.flush()?;
    Ok(Exit::Ok)
}
