//! What is written: tables and sentences for people, JSON for programs. Words that come from a server never carry
//! control characters to a terminal.

mod applications;
pub(crate) mod catalog;
pub(crate) mod plugins;
mod sharing;
mod sources;

use std::io::{self, Write};

use chrono::{DateTime, TimeDelta, Utc};
use comfy_table::{Table, presets};
use serde::Serialize;
use tidegate_client::{MyOrganization, Permissions};
use tidegate_model::{
    ApiKey, AuditEntry, BearerToken, Clock, Group, GroupMembership, Home, Invite, LoginSession, Member,
    Organization, OrganizationUsage, QuotaNumbers, Session, SessionEvent, SystemClock, User,
};

pub(crate) use applications::{application, application_groups, applications};
pub(crate) use sharing::{activity, moments, organization_policy, policy, share, shares};
pub(crate) use sources::{
    grant, grants, message, pipe, pipes, receipts, seen, source, sources, subscriptions, users_of, whom,
};

/// For people or for programs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    pub(crate) json: bool,
}

impl Output {
    pub(crate) const fn new(json: bool) -> Self {
        Self { json }
    }

    /// Writes `value` as JSON, or the text for people.
    pub(crate) fn answer(self, value: &impl Serialize, text: impl FnOnce() -> String) -> anyhow::Result<()> {
        let text = if self.json { serde_json::to_string_pretty(value)? } else { text() };
        let mut out = io::stdout().lock();
        if text.is_empty() { Ok(()) } else { Ok(writeln!(out, "{text}")?) }
    }

    /// Tells people something beside the answer.
    pub(crate) fn note(self, text: &str) {
        if !self.json {
            // Nobody may be there to be told.
            drop(writeln!(io::stderr(), "{}", plain(text)));
        }
    }
}

/// Writes one line of JSON at once.
pub(crate) fn json_line(value: &impl Serialize) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string(value)?)?;
    Ok(out.flush()?)
}

/// The text without anything that a terminal would obey.
pub(crate) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect()
}

/// A table of sessions.
pub(crate) fn sessions(sessions: &[Session]) -> String {
    let now = SystemClock::new().now();
    let mut table = table(["ID", "NAME", "STATE", "TEMPLATE", "AGENT", "AGE", "SHARED", "TAGS"]);
    for session in sessions {
        table.add_row([
            session.id.to_string(),
            plain(&session.name),
            session.state.to_string(),
            plain(&session.template),
            session.agent_id.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string),
            age(now - session.created_at),
            session
                .shared
                .map_or_else(String::new, |shared| format!("{} by {}", shared.mode, plain(&session.user))),
            plain(&session.tags.join(",")),
        ]);
    }
    table.trim_fmt()
}

/// A table of API keys.
pub(crate) fn keys(keys: &[ApiKey]) -> String {
    let now = SystemClock::new().now();
    let mut table = table(["ID", "KEY", "LABEL", "SCOPES", "STATE", "LAST USED", "AGE"]);
    for key in keys {
        let state = match (key.revoked_at, key.expires_at) {
            (Some(_), _) => "revoked".to_owned(),
            (None, Some(end)) if end <= now => "expired".to_owned(),
            (None, Some(end)) => format!("until {}", time(end)),
            (None, None) => "active".to_owned(),
        };
        table.add_row([
            key.id.to_string(),
            format!("ppz_{}\u{2026}", plain(&key.key_prefix)),
            plain(&key.label),
            key.scopes.to_string(),
            state,
            key.last_used_at.map_or_else(|| "never".to_owned(), |at| format!("{} ago", age(now - at))),
            age(now - key.created_at),
        ]);
    }
    table.trim_fmt()
}

/// A table of the audit log.
pub(crate) fn audit(entries: &[AuditEntry]) -> String {
    let mut table = table(["AT", "ACTOR", "ACTION", "RESOURCE", "ADDRESS", "WITH"]);
    for entry in entries {
        table.add_row([
            time(entry.at),
            plain(entry.actor_name.as_ref().unwrap_or(&entry.actor)),
            plain(&entry.action),
            plain(&entry.resource),
            plain(entry.address.as_deref().unwrap_or("-")),
            plain(entry.credential.as_deref().unwrap_or("-")),
        ]);
    }
    table.trim_fmt()
}

/// A table of bearer tokens.
pub(crate) fn tokens(tokens: &[BearerToken]) -> String {
    let now = SystemClock::new().now();
    let mut table = table(["ID", "TOKEN", "DEVICE", "STATE", "LAST USED", "AGE"]);
    for token in tokens {
        let state = match token.revoked_at {
            Some(_) => "revoked".to_owned(),
            None if token.expires_at <= now => "expired".to_owned(),
            None => format!("until {}", time(token.expires_at)),
        };
        table.add_row([
            token.id.to_string(),
            format!("ppz_oauth_{}\u{2026}", plain(&token.prefix)),
            plain(&token.client_name),
            state,
            token.last_used_at.map_or_else(|| "never".to_owned(), |at| format!("{} ago", age(now - at))),
            age(now - token.created_at),
        ]);
    }
    table.trim_fmt()
}

/// A table of persistent homes.
pub(crate) fn homes(homes: &[Home]) -> String {
    let now = SystemClock::new().now();
    let mut table = table(["ID", "OWNER", "AGENT", "STORAGE", "STATE", "AGE"]);
    for home in homes {
        let state = match (&home.deleting_at, &home.delete_error) {
            (Some(_), _) => "being deleted".to_owned(),
            (None, Some(why)) => format!("not deleted: {}", plain(why)),
            (None, None) => "kept".to_owned(),
        };
        table.add_row([
            home.id.to_string(),
            home.username.as_deref().map_or_else(|| home.user_id.to_string(), plain),
            home.agent_id.as_ref().map_or_else(|| "gone".to_owned(), |agent| plain(agent.as_str())),
            home.storage.to_string(),
            state,
            age(now - home.created_at),
        ]);
    }
    table.trim_fmt()
}

/// A table of a session's states.
pub(crate) fn states(events: &[SessionEvent]) -> String {
    let mut table = table(["AT", "FROM", "TO", "START", "REASON"]);
    for event in events {
        table.add_row([
            time(event.at),
            event.from_state.map_or_else(|| "-".to_owned(), |state| state.to_string()),
            event.to_state.to_string(),
            event.generation.to_string(),
            plain(event.reason.as_deref().unwrap_or("")),
        ]);
    }
    table.trim_fmt()
}

/// Everything that people want to know of a session.
pub(crate) fn session(session: &Session) -> String {
    let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let resources = session.resources;
    let home =
        if session.persistent_home { format!("kept, {}", resources.storage) } else { "not kept".to_owned() };
    let lines = [
        ("Id", session.id.to_string()),
        ("Name", session.name.clone()),
        ("State", session.state.to_string()),
        ("Reason", or_none(session.state_reason.clone())),
        ("Owner", session.user.clone()),
        ("Template", session.template.clone()),
        ("Agent", or_none(session.agent_id.as_ref().map(ToString::to_string))),
        ("Resources", format!("cpu {}, memory {}", resources.cpu.to_cpu_string(), resources.memory)),
        ("Home", home),
        ("Shared", or_none(session.shared.map(|shared| format!("with you to {}", shared.mode)))),
        ("Idle timeout", sharing::limit(session.idle_timeout)),
        ("Hibernates", or_none(session.idle_at.map(time))),
        ("Ends after", sharing::limit(session.max_session_duration)),
        ("Ends", or_none(session.ends_at.map(time))),
        ("Warning", or_none(session.warning.as_ref().map(|warning| warning.message.clone()))),
        ("Tags", or_none((!session.tags.is_empty()).then(|| session.tags.join(", ")))),
        ("Created", time(session.created_at)),
        ("Started", or_none(session.started_at.map(time))),
        ("Ended", or_none(session.ended_at.map(time))),
        ("Exit code", or_none(session.exit_code().map(|code| code.to_string()))),
    ];
    named(&lines)
}

/// Who somebody is, where, and what they may do.
pub(crate) fn who(user: &User, may: &Permissions) -> String {
    let owner = if may.owner { ", its owner" } else { "" };
    let permissions: Vec<&str> = may.permissions.iter().map(|operation| operation.as_str()).collect();
    named(&[
        ("User", user.username.clone()),
        ("Name", user.full_name.clone()),
        ("Role", may.role.to_string()),
        ("Organization", may.organization.clone().unwrap_or_else(|| "-".to_owned())),
        ("Role in it", may.org_role.map_or_else(|| "-".to_owned(), |role| format!("{role}{owner}"))),
        ("May", permissions.join(", ")),
    ])
}

/// A table of the caller's organizations.
pub(crate) fn organizations(all: &[MyOrganization]) -> String {
    let mut table = table(["NAME", "DISPLAY NAME", "STATUS", "ROLE", "ID"]);
    for MyOrganization { organization, org_role } in all {
        table.add_row([
            plain(&organization.name),
            plain(&organization.display_name),
            organization.status.to_string(),
            org_role.to_string(),
            organization.id.to_string(),
        ]);
    }
    table.trim_fmt()
}

/// Everything that people want to know of an organization.
pub(crate) fn organization(organization: &Organization) -> String {
    named(&[
        ("Id", organization.id.to_string()),
        ("Name", organization.name.clone()),
        ("Display name", organization.display_name.clone()),
        ("Description", organization.description.clone()),
        ("Namespace", organization.k8s_namespace.clone()),
        ("Status", organization.status.to_string()),
        ("Owner", organization.owner_user_id.map_or_else(|| "-".to_owned(), |id| id.to_string())),
        ("Created", time(organization.created_at)),
    ])
}

/// A table of members.
pub(crate) fn members(members: &[Member]) -> String {
    let mut table = table(["USER", "NAME", "ROLE", "OWNER", "ACTIVE", "SINCE"]);
    let yes = |is: bool| if is { "yes" } else { "no" }.to_owned();
    for member in members {
        table.add_row([
            plain(&member.username),
            plain(&member.full_name),
            member.role.to_string(),
            yes(member.owner),
            yes(member.active),
            time(member.joined_at),
        ]);
    }
    table.trim_fmt()
}

/// A table of users.
pub(crate) fn users(users: &[User]) -> String {
    let mut table = table(["USER", "NAME", "E-MAIL", "ROLE", "ROLE HERE", "ACTIVE", "LAST LOGIN"]);
    for user in users {
        table.add_row([
            plain(&user.username),
            plain(&user.full_name),
            plain(user.email.as_deref().unwrap_or("-")),
            user.role.to_string(),
            user.org_role.to_string(),
            if user.active { "yes" } else { "no" }.to_owned(),
            user.last_login.map_or_else(|| "never".to_owned(), time),
        ]);
    }
    table.trim_fmt()
}

/// Everything that people want to know of a user.
pub(crate) fn user(user: &User) -> String {
    let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    named(&[
        ("Id", user.id.to_string()),
        ("User", user.username.clone()),
        ("Name", user.full_name.clone()),
        ("E-mail", or_none(user.email.clone())),
        ("Role", user.role.to_string()),
        ("Role here", user.org_role.to_string()),
        ("Signs in", user.provider.to_string()),
        ("Active", if user.active { "yes" } else { "no" }.to_owned()),
        ("Home", or_none(user.home_org_id.map(|id| id.to_string()))),
        ("Created", time(user.created_at)),
        ("Last login", user.last_login.map_or_else(|| "never".to_owned(), time)),
    ])
}

/// A table of logins.
pub(crate) fn logins(logins: &[LoginSession]) -> String {
    let mut table = table(["ID", "FROM", "SINCE", "LAST RENEWED", "UNTIL", "THIS ONE"]);
    for login in logins {
        table.add_row([
            login.id.to_string(),
            plain(login.address.as_deref().unwrap_or("-")),
            time(login.created_at),
            time(login.refreshed_at),
            time(login.expires_at),
            if login.current { "yes" } else { "" }.to_owned(),
        ]);
    }
    table.trim_fmt()
}

/// A table of invites.
pub(crate) fn invites(invites: &[Invite]) -> String {
    let mut table = table(["ID", "ORGANIZATION", "FOR", "ROLE", "BY", "STATUS", "UNTIL"]);
    for invite in invites {
        table.add_row([
            invite.id.to_string(),
            plain(&invite.org_name),
            plain(&invite.invitee_username),
            invite.role.to_string(),
            plain(&invite.inviter_username),
            invite.status.to_string(),
            time(invite.expires_at),
        ]);
    }
    table.trim_fmt()
}

/// A table of groups.
pub(crate) fn groups(groups: &[Group]) -> String {
    let mut table = table(["NAME", "DISPLAY NAME", "TYPE", "MEMBERS", "PARENT", "ID"]);
    for group in groups {
        let parent = groups.iter().find(|other| Some(other.id) == group.parent_id);
        table.add_row([
            plain(&group.name),
            plain(&group.display_name),
            group.kind.to_string(),
            group.member_count.to_string(),
            parent.map_or_else(|| "-".to_owned(), |parent| plain(&parent.name)),
            group.id.to_string(),
        ]);
    }
    table.trim_fmt()
}

/// Everything that people want to know of a group.
pub(crate) fn group(group: &Group) -> String {
    let lines = named(&[
        ("Id", group.id.to_string()),
        ("Name", group.name.clone()),
        ("Display name", group.display_name.clone()),
        ("Description", group.description.clone()),
        ("Type", group.kind.to_string()),
        ("Parent", group.parent_id.map_or_else(|| "-".to_owned(), |id| id.to_string())),
        ("Members", group.member_count.to_string()),
        ("Created", time(group.created_at)),
    ]);
    match &group.quota {
        Some(quota_of) => format!("{lines}\n\n{}", quota(&quota_of.numbers)),
        None => lines,
    }
}

/// A table of who is in a group.
pub(crate) fn group_members(members: &[GroupMembership]) -> String {
    let mut table = table(["USER", "ROLE", "SINCE"]);
    for member in members {
        table.add_row([plain(&member.username), member.role.to_string(), time(member.created_at)]);
    }
    table.trim_fmt()
}

/// A table of what may be used and is.
pub(crate) fn quota(numbers: &QuotaNumbers) -> String {
    let mut table = table(["OF", "USED", "ALLOWED"]);
    let unlimited = |bound: Option<String>| bound.map_or_else(|| "unlimited".to_owned(), |text| plain(&text));
    let sessions = numbers.max_sessions.map(|most| most.to_string());
    for (of, used, allowed) in [
        ("sessions", numbers.used_sessions.to_string(), sessions),
        ("cpu", numbers.used_cpu.clone(), numbers.max_cpu.clone()),
        ("memory", numbers.used_memory.clone(), numbers.max_memory.clone()),
        ("storage", numbers.used_storage.clone(), numbers.max_storage.clone()),
    ] {
        table.add_row([of.to_owned(), plain(&used), unlimited(allowed)]);
    }
    table.trim_fmt()
}

/// What there is of an organization, and what it uses.
pub(crate) fn usage(usage: &OrganizationUsage) -> String {
    let states: Vec<String> =
        usage.sessions.iter().map(|(state, count)| format!("{count} {state}")).collect();
    let states = if states.is_empty() { "none".to_owned() } else { states.join(", ") };
    let lines = named(&[
        ("Members", usage.members.to_string()),
        ("Groups", usage.groups.to_string()),
        ("Sessions", states),
    ]);
    format!("{lines}\n\n{}", quota(&usage.numbers))
}

fn named(lines: &[(&str, String)]) -> String {
    let lines: Vec<String> =
        lines.iter().map(|(name, value)| format!("{name:<13} {}", plain(value))).collect();
    lines.join("\n")
}

fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
}

pub(crate) fn time(at: DateTime<Utc>) -> String {
    at.format("%Y-%m-%d %H:%M:%S UTC").to_string()
}

fn age(age: TimeDelta) -> String {
    match age.num_seconds().max(0) {
        seconds @ 0..120 => format!("{seconds}s"),
        seconds @ 120..7_200 => format!("{}m", seconds / 60),
        seconds @ 7_200..172_800 => format!("{}h", seconds / 3_600),
        seconds => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_is_written_in_one_unit() {
        let written: Vec<String> =
            [-5, 90, 600, 7_200, 200_000].map(|seconds| age(TimeDelta::seconds(seconds))).into();
        assert_eq!(written, ["0s", "90s", "10m", "2h", "2d"]);
    }
}
