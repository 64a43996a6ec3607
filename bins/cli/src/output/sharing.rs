//! Shares, activity and policies for people.

use tidegate_model::{
    EffectivePolicy, LimitSource, OrganizationSessionPolicy, Session, SessionActivity, SessionShare,
    TimeLimit,
};

use super::{named, plain, table, time};

/// A limit for people.
pub(crate) fn limit(limit: TimeLimit) -> String {
    match limit {
        TimeLimit::Never => "never".to_owned(),
        TimeLimit::Seconds(_) => limit.to_string(),
    }
}

/// Whom a share is with.
fn whom(share: &SessionShare) -> String {
    match (&share.user, &share.group) {
        (Some(user), _) => plain(user),
        (None, Some(group)) => format!("group {}", plain(group)),
        (None, None) => "-".to_owned(),
    }
}

/// A share that was made.
pub(crate) fn share(session: &Session, share: &SessionShare) -> String {
    let until =
        share.expires_at.map_or_else(|| "as long as it lasts".to_owned(), |at| format!("until {}", time(at)));
    let (name, whom) = (plain(&session.name), whom(share));
    format!("{name} is shared with {whom} to {}, {until}", share.mode)
}

/// A table of shares.
pub(crate) fn shares(shares: &[SessionShare]) -> String {
    let mut table = table(["ID", "WITH", "MODE", "SINCE", "UNTIL"]);
    for share in shares {
        table.add_row([
            share.id.to_string(),
            whom(share),
            share.mode.to_string(),
            time(share.created_at),
            share.expires_at.map_or_else(|| "as long as it lasts".to_owned(), time),
        ]);
    }
    table.trim_fmt()
}

/// A table of reasons why a session stayed alive.
pub(crate) fn activity(activity: &[SessionActivity]) -> String {
    let mut table = table(["AT", "WHAT", "WHO"]);
    for reason in activity {
        table.add_row([time(reason.at), reason.kind.to_string(), plain(&reason.user)]);
    }
    table.trim_fmt()
}

/// When a session hibernates and ends by itself.
pub(crate) fn moments(session: &Session) -> String {
    let or_never = |at: Option<chrono::DateTime<chrono::Utc>>| at.map_or_else(|| "never".to_owned(), time);
    named(&[
        ("Session", format!("{} {}", session.id, session.name)),
        ("Hibernates", or_never(session.idle_at)),
        ("Ends", or_never(session.ends_at)),
        ("Warning", session.warning.as_ref().map_or_else(|| "-".to_owned(), |it| it.message.clone())),
    ])
}

/// What ends or hibernates a session by itself, and who says so.
pub(crate) fn policy(policy: &EffectivePolicy) -> String {
    let mut all = table(["LIMIT", "BOUND", "OWNER", "VALUE", ""]);
    let maximum = |source| matches!(source, LimitSource::OrganizationMaximum | LimitSource::PlatformMaximum);
    for (name, effective) in
        [("idle timeout", &policy.idle_timeout), ("longest duration", &policy.max_session_duration)]
    {
        for bound in &effective.bounds {
            let value = match bound.value {
                None => "-".to_owned(),
                Some(TimeLimit::Never) if maximum(bound.source) => "no maximum".to_owned(),
                Some(value) => limit(value),
            };
            let holds = if bound.source == effective.source {
                format!("holds: {}", limit(effective.value))
            } else {
                String::new()
            };
            all.add_row([
                name.to_owned(),
                bound.source.to_string().replace('_', " "),
                plain(&bound.owner),
                value,
                holds,
            ]);
        }
    }
    let or_never = |at: Option<chrono::DateTime<chrono::Utc>>| at.map_or_else(|| "never".to_owned(), time);
    let lines = named(&[
        ("Hibernates", or_never(policy.idle_timeout.at)),
        ("Ends", or_never(policy.max_session_duration.at)),
        (
            "Extended by",
            if policy.extended_by == TimeLimit::Never {
                "-".to_owned()
            } else {
                policy.extended_by.to_string()
            },
        ),
        ("Warning", policy.warning.as_ref().map_or_else(|| "-".to_owned(), |it| it.message.clone())),
    ]);
    format!("{lines}\n\n{}", all.trim_fmt())
}

/// What an organization says of its sessions' limits.
pub(crate) fn organization_policy(policy: &OrganizationSessionPolicy) -> String {
    let mut all =
        table(["LIMIT", "DEFAULT", "MAXIMUM", "PLATFORM'S DEFAULT", "PLATFORM'S MAXIMUM", "IN FORCE"]);
    for (name, of) in
        [("idle timeout", &policy.idle_timeout), ("longest duration", &policy.max_session_duration)]
    {
        let said = |value: Option<TimeLimit>| value.map_or_else(|| "-".to_owned(), limit);
        let most = |value: Option<TimeLimit>| match value {
            None => "-".to_owned(),
            Some(TimeLimit::Never) => "no maximum".to_owned(),
            Some(value) => limit(value),
        };
        let maximum = most(Some(of.effective_maximum));
        all.add_row([
            name.to_owned(),
            said(of.default),
            most(of.maximum),
            said(of.platform.default),
            most(of.platform.maximum),
            format!("{}, at most {maximum}", limit(of.effective_default)),
        ]);
    }
    all.trim_fmt()
}
