//! The sessions of one member, for themselves and for those who manage sessions.

use tidegate_model::{Operation, SessionFilter, UserId};
use tidegate_persistence::{
    OrgScope, membership,
    session::{self, Page},
};

use crate::{
    Error, Result, SessionPage, Sessions,
    error::Named,
    permissions::may,
    sessions::{read_cursor, write_cursor},
};

impl Sessions {
    /// A member's sessions in the organization, the newest first. To whoever may not see them nobody of this id is there.
    pub async fn list_of(
        &self,
        scope: &OrgScope,
        user: UserId,
        limit: u32,
        cursor: Option<&str>,
    ) -> Result<SessionPage> {
        let what = format!("user {user}");
        if user != scope.user_id() && !may(scope, Operation::ManageSessions) {
            return Err(Error::not_found(what));
        }
        let limit = limit.clamp(1, 100) as usize;
        let before = cursor.map(read_cursor).transpose()?;
        // One more than asked for says whether there is a next page.
        let rows = i64::try_from(limit + 1).unwrap_or(101);
        let page =
            Page { filter: SessionFilter::default(), owner: Some(user), shared: None, limit: rows, before };
        let (mut sessions, total) = self
            .0
            .db
            .in_org(scope, async |tx| {
                membership::find(tx, user).await.named(what)?;
                Ok::<_, Error>(session::list(tx, &page).await?)
            })
            .await?;
        let more = sessions.len() > limit;
        sessions.truncate(limit);
        let next_cursor = more.then(|| sessions.last().map(write_cursor)).flatten();
        let total_is_exact = total <= session::EXACT_TOTAL;
        Ok(SessionPage { sessions, total: total.min(session::EXACT_TOTAL), total_is_exact, next_cursor })
    }
}
