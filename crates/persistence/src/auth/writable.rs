//! Whether somebody may write to a pipe whose stream is there: asked for every message, of the rows at that moment.

use diesel::sql_types::{Array, Integer, Nullable, Text, Uuid};
use diesel_async::RunQueryDsl;
use futures_util::FutureExt;
use tidegate_model::{OrgId, SourceId, UserId, Writers};

use super::put;
use crate::{Db, OrgScope, Result, statement::statement, together::Together};

/// A pipe, and who wants to write to it.
#[derive(Clone)]
pub(crate) struct Wanted {
    org: OrgId,
    user: UserId,
    handle: String,
    pipe: String,
    /// What writing needs of anybody but the creator; none where it is theirs alone.
    needed: Option<String>,
}

/// A pipe that may be written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WritablePipe {
    /// Its source.
    pub source: SourceId,
    /// Who made the source.
    pub creator: UserId,
}

/// Where those meet who write at one time.
pub(crate) type PipeLookups = Together<Wanted, Option<WritablePipe>>;

pub(crate) fn pipe_lookups() -> PipeLookups {
    Together::new(|db, wanted| read(db, wanted).boxed())
}

/// The pipe of this name of the scope's organization where the scope's user may write to it at this moment, its stream is
/// there as far as the rows say, and nothing is to be done with it before; none where anything of it is not so.
/// `writers` is who may write beside the source's creator.
///
/// Those who write at one time share the round trip.
pub async fn writable_pipe(
    db: &Db,
    scope: &OrgScope,
    (handle, pipe): (&str, &str),
    writers: Writers,
) -> Result<Option<WritablePipe>> {
    // The database refuses to look for NUL; nothing is called so.
    if handle.contains('\0') || pipe.contains('\0') {
        return Ok(None);
    }
    let needed = match writers {
        Writers::Members => Some("members".to_owned()),
        Writers::Granted(right) => Some(right.to_string()),
        Writers::Creator => None,
    };
    let (org, user) = (scope.org_id(), scope.user_id());
    let wanted = Wanted { org, user, handle: handle.to_owned(), pipe: pipe.to_owned(), needed };
    db.pipes.ask(db, wanted).await
}

async fn read(db: Db, wanted: Vec<Wanted>) -> Result<Vec<Option<WritablePipe>>> {
    let mut found: Vec<Option<WritablePipe>> = wanted.iter().map(|_| None).collect();
    let (mut orgs, mut users, mut handles, mut pipes, mut needs) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for Wanted { org, user, handle, pipe, needed } in wanted {
        orgs.push(org);
        users.push(user);
        handles.push(handle);
        pipes.push(pipe);
        needs.push(needed);
    }
    let mut connection = db.connection().await?;
    let rows: Vec<(i32, SourceId, UserId)> = statement::<(Integer, Uuid, Uuid)>(
        "SELECT place, source_id, created_by FROM auth_writable_pipes(?, ?, ?, ?, ?)",
    )
    .bind::<Array<Uuid>, _>(orgs)
    .bind::<Array<Uuid>, _>(users)
    .bind::<Array<Text>, _>(handles)
    .bind::<Array<Text>, _>(pipes)
    .bind::<Array<Nullable<Text>>, _>(needs)
    .load(&mut connection)
    .await?;
    for (place, source, creator) in rows {
        put(&mut found, place, WritablePipe { source, creator });
    }
    Ok(found)
}
