//! The audit log for those who may read it: searched in pages, and exported whole, a bounded part at a time.

mod write;

use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde_json::json;
use tidegate_model::{AuditEntry, AuditFilter, Operation, OrgId};
use tidegate_persistence::{
    Error as DbError, Operator, OrgScope, PlatformTx,
    audit::{self, Place},
    organization,
};

use crate::{
    Caller, Core, Error, Listed, Logins, Paging, Result,
    error::Named,
    page,
    permissions::{require, require_platform, standing},
};

pub use self::write::ExportWriter;

/// Lines of one part of an export: what is in memory of it at a time.
const PART: i64 = 500;
/// Lines are counted up to here.
const COUNTED: i64 = 10_000;

/// Searching and exporting the audit log.
#[derive(Debug, Clone)]
pub struct Audit(pub(crate) Arc<Core>);

/// What an export is written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExportFormat {
    /// A JSON object a line.
    JsonLines,
    /// Comma-separated values under a line of names.
    Csv,
}

impl ExportFormat {
    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::JsonLines => "jsonl",
            Self::Csv => "csv",
        }
    }
}

impl std::str::FromStr for ExportFormat {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "jsonl" => Ok(Self::JsonLines),
            "csv" => Ok(Self::Csv),
            _ => Err("must be jsonl or csv"),
        }
    }
}

/// Whose log is read.
#[derive(Debug)]
pub enum Whole {
    /// That of the caller's organization.
    Organization(OrgScope),
    /// The platform's own and every organization's, or one organization's alone.
    Platform(Operator, Option<OrgId>),
}

/// An export under way. Each part is read when it is asked for.
#[derive(Debug)]
pub struct Export {
    core: Arc<Core>,
    caller: Caller,
    whole: Whole,
    filter: AuditFilter,
    before: Option<Place>,
    ended: bool,
    total: i64,
}

impl Audit {
    /// The organization's log, the newest first.
    pub async fn list(
        &self,
        scope: &OrgScope,
        filter: &AuditFilter,
        paging: &Paging,
    ) -> Result<Listed<AuditEntry>> {
        require(Operation::ReadAudit, standing(scope, scope.role()))?;
        let (before, rows) = (paging.after_moment()?, paging.rows());
        let (items, total) = self
            .0
            .db
            .in_org(scope, async |tx| {
                let items = audit::list(tx, filter, before, rows).await?;
                Ok::<_, DbError>((items, audit::count(tx, filter).await?))
            })
            .await?;
        Ok(paging.page(items, total, |line| page::moment(line.at, line.id)))
    }

    /// The platform's log and every organization's, or that of the organization of this id or name, the newest first.
    pub async fn list_all(
        &self,
        caller: &Caller,
        org: Option<&str>,
        filter: &AuditFilter,
        paging: &Paging,
    ) -> Result<Listed<AuditEntry>> {
        let operator = require_platform(Operation::ReadAllAudit, caller)?;
        let (before, rows) = (paging.after_moment()?, paging.rows());
        let (items, total) = self
            .0
            .db
            .in_platform(&operator, async |tx| {
                let org = find_in(tx, org).await?;
                let items = audit::list_all(tx, org, filter, before, rows).await?;
                Ok::<_, Error>((items, audit::count_all(tx, org, filter).await?))
            })
            .await?;
        Ok(paging.page(items, total, |line| page::moment(line.at, line.id)))
    }

    /// Begins an export of the organization's log, which is a line of that log itself.
    pub async fn export(&self, caller: Caller, filter: AuditFilter, format: ExportFormat) -> Result<Export> {
        let scope = caller.org()?.clone();
        require(Operation::ReadAudit, standing(&scope, scope.role()))?;
        let (filter, now) = self.until_now(filter);
        let total = self
            .0
            .db
            .in_org(&scope, async |tx| {
                audit::insert_org(tx, entry(&filter, format, now)).await?;
                audit::count(tx, &filter).await
            })
            .await?;
        Ok(self.begun(caller, Whole::Organization(scope), filter, total))
    }

    /// The same of the platform's log and every organization's, or one organization's, which finds it in its log, too.
    pub async fn export_all(
        &self,
        caller: Caller,
        org: Option<&str>,
        filter: AuditFilter,
        format: ExportFormat,
    ) -> Result<Export> {
        let operator = require_platform(Operation::ReadAllAudit, &caller)?;
        let (filter, now) = self.until_now(filter);
        let (org, total) = self
            .0
            .db
            .in_platform(&operator, async |tx| {
                let org = find_in(tx, org).await?;
                audit::insert_platform(tx, entry(&filter, format, now)).await?;
                if let Some(org) = org {
                    audit::insert_platform_about(tx, org, entry(&filter, format, now)).await?;
                }
                Ok::<_, Error>((org, audit::count_all(tx, org, &filter).await?))
            })
            .await?;
        Ok(self.begun(caller, Whole::Platform(operator, org), filter, total))
    }

    /// An export ends where it began: what is written meanwhile is not part of it.
    fn until_now(&self, filter: AuditFilter) -> (AuditFilter, DateTime<Utc>) {
        let now = self.0.clock.now();
        let until = Some(filter.until.map_or(now, |until| until.min(now)));
        (AuditFilter { until, ..filter }, now)
    }

    fn begun(&self, caller: Caller, whole: Whole, filter: AuditFilter, total: i64) -> Export {
        Export { core: Arc::clone(&self.0), caller, whole, filter, before: None, ended: false, total }
    }
}

impl Export {
    /// How many lines there are, unless they are more than anybody counts.
    pub fn total(&self) -> Option<i64> {
        (self.total <= COUNTED).then_some(self.total)
    }

    /// The next part; none after the last one. Whoever lost the right to read meanwhile gets no more.
    pub async fn next(&mut self) -> Result<Option<Vec<AuditEntry>>> {
        if self.ended {
            return Ok(None);
        }
        if self.before.is_some() && !Logins(Arc::clone(&self.core)).still_stands(&self.caller).await? {
            return Err(Error::Unauthenticated("the credential has ended while the log was read"));
        }
        let (filter, before) = (&self.filter, self.before);
        let lines = match &self.whole {
            Whole::Organization(scope) => {
                self.core.db.in_org(scope, async |tx| audit::list(tx, filter, before, PART).await).await?
            }
            Whole::Platform(operator, org) => {
                let read = async |tx: &mut PlatformTx| audit::list_all(tx, *org, filter, before, PART).await;
                self.core.db.in_platform(operator, read).await?
            }
        };
        self.ended = i64::try_from(lines.len()).unwrap_or(PART) < PART;
        self.before = lines.last().map(|line| (line.at, line.id)).or(self.before);
        Ok((!lines.is_empty()).then_some(lines))
    }
}

/// The organization of an id or a name.
async fn find_in(tx: &mut PlatformTx, wanted: Option<&str>) -> Result<Option<OrgId>> {
    let Some(wanted) = wanted else { return Ok(None) };
    let shown: String = wanted.chars().filter(|c| !c.is_control()).take(64).collect();
    let found = match wanted.parse() {
        Ok(id) => organization::find_any(tx, id).await,
        Err(_) => organization::find_by_name(tx, &shown).await,
    };
    Ok(Some(found.named(format_args!("organization {shown}"))?.id))
}

fn entry(filter: &AuditFilter, format: ExportFormat, at: DateTime<Utc>) -> audit::Entry {
    let detail = json!({
        "format": format.as_str(), "actor": filter.actor, "action": filter.action, "resource": filter.resource,
        "since": filter.since, "until": filter.until,
    });
    audit::Entry { action: "audit.export", resource: "audit".to_owned(), address: None, detail, at }
}
