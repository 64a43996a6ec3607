//! What the verbs about the audit log do.

use std::{
    fs::OpenOptions,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use anyhow::Context;
use serde_json::{Map, Value, json};
use tidegate_model::{AuditEntry, AuditFilter, FromFields};
use tidegate_service::{Caller, Export, ExportFormat, ExportWriter, Paging, Services};

use crate::{
    agents::time,
    args::{AuditVerb, Which},
    output,
};

pub(crate) async fn audit(services: &Services, verb: AuditVerb, as_json: bool) -> anyhow::Result<()> {
    match verb {
        AuditVerb::List { which, limit } => list(services, which, limit, as_json).await,
        AuditVerb::Export { which, format, output } => {
            let (org, filter) = split(which)?;
            let log = &services.audit;
            let export = log.export_all(Caller::console(), org.as_deref(), filter, format).await?;
            let Some(file) = output else {
                copy(export, format, &mut io::stdout().lock()).await?;
                return Ok(());
            };
            let lines = write(export, format, &file).await?;
            let sentence = format!("{lines} lines are in {}", file.display());
            output::said(as_json, &json!({"lines": lines, "file": file}), &sentence)
        }
    }
}

/// Whose log is meant, and which lines of it.
fn split(which: Which) -> anyhow::Result<(Option<String>, AuditFilter)> {
    let Which { actor, action, resource, since, until, organization } = which;
    let mut body = Map::new();
    for (name, text) in
        [("actor", actor), ("action", action), ("resource", resource), ("since", since), ("until", until)]
    {
        body.extend(text.map(|text| (name.to_owned(), Value::from(text))));
    }
    let filter = AuditFilter::from_json(body.into()).map_err(|errors| anyhow::anyhow!("{errors}"))?;
    Ok((organization, filter))
}

async fn list(services: &Services, which: Which, limit: usize, as_json: bool) -> anyhow::Result<()> {
    let (org, filter) = split(which)?;
    let (console, mut found) = (Caller::console(), Vec::new());
    let mut paging = Paging { limit: 100, cursor: None };
    let total = loop {
        let page = services.audit.list_all(&console, org.as_deref(), &filter, &paging).await?;
        found.extend(page.items);
        paging.cursor = page.next_cursor;
        if paging.cursor.is_none() || found.len() >= limit {
            break page.total;
        }
    };
    found.truncate(limit);
    let row = |line: &AuditEntry| {
        vec![
            time(line.at),
            line.actor_name.clone().unwrap_or_else(|| line.actor.clone()),
            line.action.clone(),
            line.resource.clone(),
            line.org_id.map_or_else(|| "platform".into(), |id| id.to_string()),
            line.address.clone().unwrap_or_default(),
            line.credential.clone().unwrap_or_default(),
        ]
    };
    let headings = ["AT", "ACTOR", "ACTION", "RESOURCE", "ORGANIZATION", "ADDRESS", "WITH"];
    let rows = found.iter().map(row).collect();
    output::list(as_json, &json!({"entries": found, "total": total}), &headings, rows)
}

/// Writes the whole of it to a file beside it first: half of a log looks like the whole of it.
async fn write(export: Export, format: ExportFormat, file: &Path) -> anyhow::Result<u64> {
    let part = beside(file);
    let cannot = || format!("{} cannot be written", part.display());
    // Who did what is nobody else's to read on this machine.
    let opened = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&part);
    let mut open = opened.with_context(cannot)?;
    let copied = copy(export, format, &mut open).await;
    let synced = copied.and_then(|lines| open.sync_all().map(|()| lines).with_context(cannot));
    if synced.is_err() {
        drop(std::fs::remove_file(&part));
    }
    let lines = synced?;
    std::fs::rename(&part, file).with_context(|| format!("{} cannot be written", file.display()))?;
    Ok(lines)
}

/// Writes all that comes; gives the number of lines of the log.
async fn copy(mut export: Export, format: ExportFormat, out: &mut impl Write) -> anyhow::Result<u64> {
    let (mut writer, mut lines) = (ExportWriter::new(format), 0);
    while let Some(part) = export.next().await? {
        lines += part.len() as u64;
        out.write_all(&writer.part(&part)?)?;
    }
    if let Some(end) = writer.end()? {
        out.write_all(&end)?;
    }
    out.flush()?;
    Ok(lines)
}

fn beside(file: &Path) -> PathBuf {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    file.with_file_name(name)
}
