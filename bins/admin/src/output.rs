//! Tables for people, JSON for programs.

use std::io::{self, Write};

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

/// Exit code of a program that nobody reads any more, as shells write SIGPIPE's.
pub(crate) const BROKEN_PIPE: u8 = 141;

/// Whether somebody stopped reading, such as `head`: they have what they wanted.
pub(crate) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// Prints text as it is. `print!` would panic where nobody reads any more.
pub(crate) fn text(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Prints a line.
pub(crate) fn line(line: &str) -> io::Result<()> {
    text(&format!("{line}\n"))
}

/// Prints rows under their headings, or `json`.
pub(crate) fn list(
    as_json: bool,
    json: &impl Serialize,
    headings: &[&str],
    rows: Vec<Vec<String>>,
) -> anyhow::Result<()> {
    if as_json {
        return one(json);
    }
    if rows.is_empty() {
        return Ok(line("none")?);
    }
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(headings);
    table.add_rows(rows.into_iter().map(|row| row.iter().map(|cell| plain(cell)).collect::<Vec<_>>()));
    Ok(line(&table.to_string())?)
}

/// Text of others as a terminal may have it: without what would move its cursor or change its colours.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// Prints JSON.
pub(crate) fn one(json: &impl Serialize) -> anyhow::Result<()> {
    Ok(line(&serde_json::to_string_pretty(json)?)?)
}

/// A sentence for people, JSON for programs.
pub(crate) fn said(as_json: bool, json: &impl Serialize, sentence: &str) -> anyhow::Result<()> {
    if as_json {
        return one(json);
    }
    Ok(line(sentence)?)
}
