//! The audit log: searched by page, exported as a stream.

pub(crate) mod export;
pub(crate) mod list;

pub(crate) use export::{export, export_all};
pub(crate) use list::{list, list_all};

use tidegate_model::{AuditFilter, Fields, FromFields};
use tidegate_service::{ExportFormat, Paging};

use super::{page::Page, valid::parsed};

/// Which page of which lines.
#[derive(Debug)]
pub(crate) struct Wanted {
    filter: AuditFilter,
    paging: Paging,
    org: Option<String>,
}

impl FromFields for Wanted {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let filter = AuditFilter::from_fields(fields);
        let page = Page::from_fields(fields);
        Some(Self { org: fields.optional("org"), filter: filter?, paging: page?.0 })
    }
}

/// Which lines are exported, and as what.
#[derive(Debug)]
pub(crate) struct Export {
    filter: AuditFilter,
    format: ExportFormat,
    org: Option<String>,
}

impl FromFields for Export {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let filter = AuditFilter::from_fields(fields);
        let format = parsed(fields, "format", "must be jsonl or csv").unwrap_or(ExportFormat::JsonLines);
        Some(Self { org: fields.optional("org"), filter: filter?, format })
    }
}
