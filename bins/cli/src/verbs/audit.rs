//! `audit`.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use serde_json::json;
use tidegate_client::AuditExport;

use crate::{
    args::{AuditExportArgs, AuditListArgs, AuditVerb},
    context::Context,
    output, progress,
};

pub(super) async fn audit(context: &Context, verb: AuditVerb) -> anyhow::Result<ExitCode> {
    match verb {
        AuditVerb::Ls(words) => list(context, words).await?,
        AuditVerb::Export(words) => export(context, words).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(context: &Context, words: AuditListArgs) -> anyhow::Result<()> {
    let (of, query) = words.which.split();
    let page = context.client.audit(&of, &query, words.limit, None).await?;
    context.output.answer(&page, || output::audit(&page.entries))?;
    if page.next_cursor.is_some() {
        let shown = page.entries.len();
        context.output.note(&format!("{shown} of {}; `tidegate audit export` writes all", page.total));
    }
    Ok(())
}

async fn export(context: &Context, words: AuditExportArgs) -> anyhow::Result<()> {
    let (of, query) = words.which.split();
    let export = context.client.export_audit(&of, &query, words.format.as_str()).await?;
    let Some(file) = words.output else {
        let mut out = io::stdout().lock();
        copy(context, export, &mut out).await?;
        return Ok(());
    };
    let part = beside(&file);
    let lines = match write_to(context, export, &part).await {
        Ok(lines) => lines,
        Err(error) => {
            // Half of a log looks like the whole of it: it does not stay.
            drop(std::fs::remove_file(&part));
            return Err(error);
        }
    };
    std::fs::rename(&part, &file).with_context(|| format!("{} cannot be written", file.display()))?;
    let text = || format!("{lines} lines are in {}", output::plain(&file.display().to_string()));
    context.output.answer(&json!({"lines": lines, "file": file}), text)
}

async fn write_to(context: &Context, export: AuditExport, part: &Path) -> anyhow::Result<u64> {
    let cannot = || format!("{} cannot be written", part.display());
    // Who did what is nobody else's to read on this machine.
    let opened = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(part);
    let mut file: File = opened.with_context(cannot)?;
    let lines = copy(context, export, &mut file).await?;
    file.sync_all().with_context(cannot)?;
    Ok(lines)
}

/// Writes all that comes; gives the number of lines.
async fn copy(context: &Context, mut export: AuditExport, out: &mut impl Write) -> anyhow::Result<u64> {
    let bar = progress::of_lines(context.output, export.total());
    let mut lines = 0;
    while let Some(bytes) = export.next().await? {
        out.write_all(&bytes)?;
        lines += bytes.split(|byte| *byte == b'\n').count() as u64 - 1;
        bar.set_position(lines);
    }
    out.flush()?;
    bar.finish_and_clear();
    Ok(lines)
}

fn beside(file: &Path) -> PathBuf {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    file.with_file_name(name)
}
