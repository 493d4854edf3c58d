//! How far a file was published, kept beside it so that an interrupted run can go on.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::batch::Mark;
use super::line;
use super::reader::Lines;
use crate::cli::error::CliError;
use crate::cli::view::hex;
use crate::job::LaneName;

/// Version of the progress file.
const VERSION: u32 = 1;
/// Bytes read at a time.
const READ_BUFFER: usize = 1 << 20;

/// What a progress file says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    version: u32,
    lane: LaneName,
    offset: u64,
    line: u64,
    last_start: u64,
    last_sha256: String,
    /// Jobs confirmed by all runs so far.
    pub published: u64,
    /// Bad lines met by all runs so far.
    pub bad_lines: u64,
}

/// The progress file of one file and lane.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    lane: LaneName,
}

impl Checkpoint {
    /// The progress file beside `file`.
    pub fn beside(file: &Path, lane: &LaneName) -> Self {
        let mut path = file.as_os_str().to_owned();
        path.push(".lanes-progress");
        Self { path: path.into(), lane: lane.clone() }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it says; `None` when there is none.
    ///
    /// # Errors
    /// It cannot be read, or is of a run to another lane.
    pub fn read(&self) -> Result<Option<Progress>, CliError> {
        let path = self.path.display();
        let text = match fs::read(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(CliError::failed(format!("cannot read {path}: {error}"))),
        };
        let broken = |why: String| {
            CliError::usage(format!("the progress file {path} {why}"))
                .help("--restart publishes the file from its start")
        };
        let said: Progress =
            serde_json::from_slice(&text).map_err(|error| broken(format!("cannot be understood: {error}")))?;
        if said.version != VERSION {
            return Err(broken(format!("has version {}, this program writes {VERSION}", said.version)));
        }
        if said.lane != self.lane {
            return Err(broken(format!("is of a run to lane {}", said.lane)));
        }
        Ok(Some(said))
    }

    /// Says that everything before `mark` is confirmed: written whole or not at all.
    pub fn write(&self, mark: Mark, published: u64, bad_lines: u64) -> io::Result<()> {
        let said = Progress {
            version: VERSION,
            lane: self.lane.clone(),
            offset: mark.offset,
            line: mark.line,
            last_start: mark.last_start,
            last_sha256: hex(&mark.last_hash),
            published,
            bad_lines,
        };
        let mut new = self.path.as_os_str().to_owned();
        new.push(".new");
        let mut file = File::create(&new)?;
        file.write_all(&serde_json::to_vec(&said)?)?;
        drop(file);
        fs::rename(&new, &self.path)
    }

    /// Removes it: nothing is left to go on with.
    pub fn remove(&self) -> io::Result<()> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// Opens `file` and puts it where `progress` ended.
///
/// # Errors
/// It cannot be read, or what it holds before that place is not what was published.
pub fn open(file: &Path, progress: Option<&Progress>) -> Result<(Box<dyn BufRead + Send>, Mark), CliError> {
    let path = file.display();
    let unreadable = |error: io::Error| CliError::failed(format!("cannot read {path}: {error}"));
    let mut input = BufReader::with_capacity(READ_BUFFER, File::open(file).map_err(unreadable)?);
    let Some(said) = progress else { return Ok((Box::new(input), Mark::default())) };
    input.seek(SeekFrom::Start(said.last_start)).map_err(unreadable)?;
    let length = usize::try_from(said.offset.saturating_sub(said.last_start)).unwrap_or(usize::MAX);
    let mut lines = Lines::new(&mut input, length, said.line.saturating_sub(1), said.last_start);
    let found = lines.advance().map_err(unreadable)?;
    let last_hash = line::hash(lines.text());
    if found.is_none_or(|line| line.end != said.offset) || hex(&last_hash) != said.last_sha256 {
        return Err(CliError::usage(format!("{path} is not the file that was interrupted at line {}", said.line))
            .help("--restart publishes it from its start; ids that were published within the deduplication window are called once"));
    }
    let mark = Mark { offset: said.offset, line: said.line, last_start: said.last_start, last_hash };
    Ok((Box::new(input), mark))
}
