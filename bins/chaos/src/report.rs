//! What a run came to: counts and violations, as a table or as JSON.

use comfy_table::{Table, presets};
use serde::Serialize;
use serde_json::{Map, Value};

/// Counts in the order they were made, and everything that must not be.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    counts: Map<String, Value>,
    #[serde(skip)]
    rows: Vec<(String, String)>,
    pub(crate) violations: Vec<String>,
}

impl Report {
    /// Adds a count.
    pub(crate) fn count(&mut self, name: &str, value: impl Into<Value>) {
        let value = value.into();
        let shown = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        self.rows.push((name.to_owned(), shown));
        self.counts.insert(name.to_owned(), value);
    }

    /// Adds the number of violations of one kind, and each of them.
    pub(crate) fn must_be_none(&mut self, name: &str, found: Vec<String>) {
        self.count(name, found.len());
        self.violations.extend(found.into_iter().map(|found| format!("{name}: {found}")));
    }

    /// Prints everything; whether it held.
    pub(crate) fn print(&self, as_json: bool) -> anyhow::Result<bool> {
        let held = self.violations.is_empty();
        if as_json {
            println!("{}", serde_json::to_string_pretty(self)?);
            return Ok(held);
        }
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.add_rows(self.rows.iter().map(|(name, value)| [name, value]));
        println!("{table}");
        for violation in &self.violations {
            println!("VIOLATION {violation}");
        }
        println!("{}", if held { "everything held" } else { "NOT everything held" });
        Ok(held)
    }
}
