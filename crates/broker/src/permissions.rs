//! What one principal may do on NATS: of constant size however many handles there are, plus explicit write grants.
//! Never who has which grant: that is the caller's.

use uuid::Uuid;

use crate::jwt::{Permissions, SubjectRules};
use crate::listened;
use crate::name::token;
use crate::{Error, Result};

/// How many explicit write grants one token carries.
pub const MAX_GRANTS: usize = 256;
/// How many bytes of its claims they may take, which is what [`crate::MAX_TOKEN_BYTES`] leave for them in base64: all of them
/// fit where handle and pipe have 23 characters together.
const GRANT_BYTES: usize = 16_900;
/// What a subject takes in a list beside itself: quotes and a comma.
const PUNCTUATION: usize = 3;

/// A user in an organization's account, as NATS sees them: `<me>` is the user's id in simple form. The organization is the
/// account, whichever signs the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Principal {
    user: Uuid,
}

/// The right to publish to one pipe, besides what everybody may.
///
/// It names handle and pipe alone, which are unique in an organization and its account, because 256 subjects with all
/// five tokens are longer than a token may be. Who loses a grant, or whose handle was deleted, is to be revoked: their
/// client comes back with a new token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriteGrant(String);

impl WriteGrant {
    /// The right to publish to `pipe` of the source `handle`.
    pub fn new(handle: &str, pipe: &str) -> Result<Self> {
        Ok(Self(listened::below(&format!("*.{}.{}", token("handle", handle)?, token("pipe", pipe)?))))
    }
}

impl Principal {
    /// The user of this id.
    pub const fn new(user: Uuid) -> Self {
        Self { user }
    }

    /// The name of every reader of this principal, `<me>`.
    pub fn reader(&self) -> String {
        self.user.simple().to_string()
    }

    /// The prefix its client must use for inboxes; the default one belongs to nobody.
    pub fn inbox_prefix(&self) -> String {
        format!("_INBOX_{}", self.user.simple())
    }

    /// How many of these grants fit on a token of this principal, from the first on.
    pub fn fitting(&self, grants: &[WriteGrant]) -> usize {
        let mut room = GRANT_BYTES;
        let fits = |grant: &&WriteGrant| {
            let left = room.checked_sub(self.written(grant).len() + PUNCTUATION);
            room = left.unwrap_or(0);
            left.is_some()
        };
        grants.iter().take(MAX_GRANTS).take_while(fits).count()
    }

    /// The subject of a grant.
    fn written(&self, grant: &WriteGrant) -> String {
        format!("{}.{}", grant.0, self.user.simple())
    }

    /// What a token of this principal allows: its own pipes, open inboxes, `grants`, and reading through the readers
    /// that were made for it. More than [`MAX_GRANTS`] are refused.
    ///
    /// `CONSUMER.INFO` is not among it: its answer, unlike all others here, comes from the system account, and NATS maps
    /// the reply subject of such an answer as if a client had published to it, so that it could be stored in anybody's
    /// pipe under anybody's name. What it tells stands in each delivery too, and in [`crate::OrgBroker::reader`].
    pub fn permissions(&self, grants: &[WriteGrant]) -> Result<Permissions> {
        if grants.len() > MAX_GRANTS {
            return Err(Error::TooManyGrants { count: grants.len(), limit: MAX_GRANTS });
        }
        let me = self.user.simple();
        let mut publish = vec![
            listened::below(&format!("{me}.*.*.{me}")),
            listened::below(&format!("*.*.inbox.{me}")),
            format!("$JS.API.CONSUMER.MSG.NEXT.*.{me}"),
            format!("$JS.ACK.*.{me}.>"),
        ];
        publish.extend(grants.iter().map(|grant| self.written(grant)));
        let subscribe = vec![format!("{}.>", self.inbox_prefix())];
        Ok(Permissions { publish: SubjectRules::only(publish), subscribe: SubjectRules::only(subscribe) })
    }
}
