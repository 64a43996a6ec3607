//! Lines of the audit log as JSON lines, or as CSV that no spreadsheet takes for a formula.

use std::{borrow::Cow, io};

use serde_json::Value;
use tidegate_model::AuditEntry;

use super::ExportFormat;

const NAMES: [&str; 14] = [
    "at",
    "id",
    "orgId",
    "actor",
    "actorUserId",
    "actorName",
    "credential",
    "action",
    "resource",
    "address",
    "requestId",
    "before",
    "after",
    "detail",
];

/// Writes the parts of one export.
#[derive(Debug)]
pub struct ExportWriter {
    format: ExportFormat,
    /// Whether the line of names was written.
    begun: bool,
}

impl ExportWriter {
    /// One that has written nothing yet.
    pub fn new(format: ExportFormat) -> Self {
        Self { format, begun: false }
    }

    /// Some lines.
    pub fn part(&mut self, lines: &[AuditEntry]) -> io::Result<Vec<u8>> {
        match self.format {
            ExportFormat::JsonLines => {
                let mut bytes = Vec::new();
                for line in lines {
                    serde_json::to_writer(&mut bytes, line)?;
                    bytes.push(b'\n');
                }
                Ok(bytes)
            }
            ExportFormat::Csv => self.csv(lines),
        }
    }

    /// What is left when there are no more lines: the names alone, where there was no line at all.
    pub fn end(&mut self) -> io::Result<Option<Vec<u8>>> {
        match self.format {
            ExportFormat::Csv if !self.begun => self.csv(&[]).map(Some),
            ExportFormat::Csv | ExportFormat::JsonLines => Ok(None),
        }
    }

    fn csv(&mut self, lines: &[AuditEntry]) -> io::Result<Vec<u8>> {
        let mut writer = csv::Writer::from_writer(Vec::new());
        if !self.begun {
            writer.write_record(NAMES)?;
            self.begun = true;
        }
        for line in lines {
            writer.write_record(cells(line).iter().map(|cell| harmless(cell).into_owned()))?;
        }
        writer.into_inner().map_err(csv::IntoInnerError::into_error)
    }
}

fn cells(line: &AuditEntry) -> [String; 14] {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let json = |value: &Option<Value>| value.as_ref().map(ToString::to_string).unwrap_or_default();
    [
        line.at.to_rfc3339_opts(chrono::SecondsFormat::Micros, true),
        line.id.to_string(),
        line.org_id.map(|id| id.to_string()).unwrap_or_default(),
        line.actor.clone(),
        line.actor_user_id.map(|id| id.to_string()).unwrap_or_default(),
        text(&line.actor_name),
        text(&line.credential),
        line.action.clone(),
        line.resource.clone(),
        text(&line.address),
        text(&line.request_id),
        json(&line.before),
        json(&line.after),
        line.detail.to_string(),
    ]
}

/// A cell that begins like a formula gets an apostrophe before it: programs that open the file compute nothing.
fn harmless(cell: &str) -> Cow<'_, str> {
    match cell.trim_start_matches(' ').chars().next() {
        Some('=' | '+' | '-' | '@' | '\t' | '\r' | '\n' | '|' | '%' | '＝' | '＋' | '－' | '＠') => {
            Cow::Owned(format!("'{cell}"))
        }
        _ => Cow::Borrowed(cell),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_cell_is_a_formula() {
        for evil in ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\r=1", " =1", "＝1", "|calc", "%x"] {
            assert_eq!(harmless(evil), format!("'{evil}"));
        }
        for plain in ["", "alice", "user:1", "{\"a\":\"=1\"}", "2026-01-01T00:00:00Z"] {
            assert_eq!(harmless(plain), plain);
        }
    }

    #[test]
    fn an_export_of_nothing_is_a_line_of_names_or_nothing() {
        let mut csv = ExportWriter::new(ExportFormat::Csv);
        let names = csv.end().unwrap().unwrap();
        assert!(names.starts_with(b"at,id,orgId,"), "{names:?}");
        assert_eq!(csv.end().unwrap(), None);
        assert_eq!(ExportWriter::new(ExportFormat::JsonLines).end().unwrap(), None);
    }
}
