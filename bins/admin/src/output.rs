//! Tables for people, JSON for programs.

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

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
        println!("none");
        return Ok(());
    }
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(headings);
    table.add_rows(rows.into_iter().map(|row| row.iter().map(|cell| plain(cell)).collect::<Vec<_>>()));
    println!("{table}");
    Ok(())
}

/// Text of others as a terminal may have it: without what would move its cursor or change its colours.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// Prints JSON.
pub(crate) fn one(json: &impl Serialize) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string_pretty(json)?);
    Ok(())
}

/// A sentence for people, JSON for programs.
pub(crate) fn said(as_json: bool, json: &impl Serialize, sentence: &str) -> anyhow::Result<()> {
    if as_json {
        return one(json);
    }
    println!("{sentence}");
    Ok(())
}
