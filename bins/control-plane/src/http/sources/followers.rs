//! Who follows pipes here, so that nobody takes all the room: what a client does not take is kept for it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use actix_web::http::StatusCode;
use tidegate_model::UserId;

use crate::http::Problem;

/// Streams of messages that one user may have open at one control plane.
const MOST: usize = 32;
/// Seconds until it is worth another try.
const AGAIN: i64 = 5;

/// How many streams of messages each user has open.
#[derive(Debug, Clone, Default)]
pub(crate) struct Followers(Arc<Mutex<HashMap<UserId, usize>>>);

/// One of them, until it is dropped.
#[derive(Debug)]
pub(super) struct Counted {
    followers: Followers,
    who: UserId,
}

impl Followers {
    /// Counts one more, or says that there are too many.
    pub(super) fn one_more(&self, who: UserId) -> Result<Counted, Problem> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(who).or_default();
        if *count >= MOST {
            let message = format!(
                "you follow {MOST} pipes here already, which is the most: end one of these streams first"
            );
            return Err(
                Problem::new(StatusCode::TOO_MANY_REQUESTS, "E_TOO_MANY_FOLLOWED", message).with_retry(AGAIN)
            );
        }
        *count += 1;
        Ok(Counted { followers: self.clone(), who })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut counts = self.followers.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.who) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.who);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_user_has_so_many_at_once_and_those_that_ended_count_no_more() {
        let (followers, ada, bob) = (Followers::default(), UserId::new(), UserId::new());
        let mut open: Vec<Counted> = (0..MOST).map(|_| followers.one_more(ada).unwrap()).collect();
        let refused = followers.one_more(ada).unwrap_err();
        assert_eq!((refused.status.as_u16(), refused.retry_after()), (429, Some(AGAIN)), "{refused}");
        let other = followers.one_more(bob).unwrap();
        drop(open.pop());
        open.push(followers.one_more(ada).unwrap());
        drop((open, other));
        assert!(followers.0.lock().unwrap().is_empty());
    }
}
