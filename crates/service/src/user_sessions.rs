//! The sessions of one member, for themselves and for those who manage sessions.

use tidegate_model::{Operation, Session, SessionFilter, UserId};
use tidegate_persistence::{
    OrgScope, membership,
    session::{self, Page, Whose},
};

use crate::{Error, Listed, Paging, Result, Sessions, error::Named, permissions::may, sessions::newest};

impl Sessions {
    /// A member's sessions in the organization, the newest first. To whoever may not see them nobody of this id is there.
    pub async fn list_of(&self, scope: &OrgScope, user: UserId, paging: &Paging) -> Result<Listed<Session>> {
        let what = format!("user {user}");
        if user != scope.user_id() && !may(scope, Operation::ManageSessions) {
            return Err(Error::not_found(what));
        }
        let (limit, before) = (paging.rows(), paging.after_moment()?);
        let page = Page { filter: SessionFilter::default(), whose: Whose::Of(user), limit, before };
        let (sessions, total) = self
            .0
            .db
            .in_org(scope, async |tx| {
                membership::find(tx, user).await.named(what)?;
                Ok::<_, Error>(session::list(tx, &page).await?)
            })
            .await?;
        Ok(paging.page(sessions, total, newest))
    }
}
