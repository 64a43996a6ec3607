//! Tables of sources, pipes and grants.

use tidegate_client::{MadePipe, Message};
use tidegate_model::{
    Clock, ListedPipe, Payload, Quantity, ReadReceipts, Retention, SeenMember, Source, SourceGrant,
    SourceRight, Subscription, SystemClock,
};

use super::{age, named, plain, table, time};

/// The most of a message that a table shows.
const PREVIEW: usize = 40;

/// Whoever made something.
fn maker(name: Option<&String>) -> String {
    name.map_or_else(|| "somebody who left".to_owned(), |name| plain(name))
}

/// The beginning of a message, in one line.
fn preview(text: &str) -> String {
    let line = plain(text).replace('\n', " ");
    let mut short: String = line.chars().take(PREVIEW).collect();
    if short.len() < line.len() {
        short.push('\u{2026}');
    }
    short
}

/// A table of sources.
pub(crate) fn sources(sources: &[Source]) -> String {
    let now = SystemClock::new().now();
    let mut table = table(["HANDLE", "KIND", "OWNER", "LAST", "MESSAGE"]);
    for source in sources {
        table.add_row([
            source.handle.to_string(),
            source.kind.to_string(),
            maker(source.created_by_username.as_ref()),
            source.last_message_at.map_or_else(|| "never".to_owned(), |at| format!("{} ago", age(now - at))),
            source.last_message.as_deref().map_or_else(String::new, preview),
        ]);
    }
    table.trim_fmt()
}

/// Everything that people want to know of a source.
pub(crate) fn source(source: &Source, pipes: &[ListedPipe]) -> String {
    let lines = named(&[
        ("Id", source.id.to_string()),
        ("Handle", source.handle.to_string()),
        ("Kind", source.kind.to_string()),
        ("Owner", maker(source.created_by_username.as_ref())),
        ("Created", time(source.created_at)),
        ("Last message", source.last_message_at.map_or_else(|| "never".to_owned(), time)),
        ("It began", source.last_message.as_deref().map_or_else(|| "-".to_owned(), preview)),
    ]);
    format!("{lines}\n\n{}", self::pipes(pipes))
}

/// Seconds in the largest unit that divides them.
fn length(seconds: i64) -> String {
    let units = [(86_400, "d"), (3_600, "h"), (60, "m")];
    match units.into_iter().find(|(length, _)| seconds % length == 0) {
        Some((length, unit)) => format!("{}{unit}", seconds / length),
        None => format!("{seconds}s"),
    }
}

/// Bytes as people say them.
fn size(bytes: i64) -> String {
    u64::try_from(bytes).map_or_else(|_| bytes.to_string(), |bytes| Quantity::from_bytes(bytes).to_string())
}

/// What a pipe keeps.
fn kept(retention: &Retention) -> [String; 3] {
    [length(retention.ttl_seconds), retention.max_msgs.to_string(), size(retention.max_bytes)]
}

/// A table of pipes.
pub(crate) fn pipes(pipes: &[ListedPipe]) -> String {
    let mut table = table(["PIPE", "MADE BY", "KEEPS", "MESSAGES", "BYTES", "IN FORCE"]);
    for pipe in pipes {
        let [time, messages, bytes] = kept(&pipe.retention);
        let by = if pipe.auto { "its kind".to_owned() } else { maker(pipe.created_by_username.as_ref()) };
        let in_force = pipe.in_force.map_or_else(|| "unused".to_owned(), |it| in_force(&pipe.retention, &it));
        table.add_row([plain(&pipe.name), by, time, messages, bytes, in_force]);
    }
    table.trim_fmt()
}

fn in_force(wanted: &Retention, found: &Retention) -> String {
    if wanted == found { "yes".to_owned() } else { format!("not yet: {}", kept(found).join(", ")) }
}

/// A pipe that was made or changed.
pub(crate) fn pipe(handle: &str, made: &MadePipe) -> String {
    let [time, messages, bytes] = kept(&made.retention);
    let late = made.in_force.filter(|found| *found != made.retention);
    let late =
        late.map_or_else(String::new, |found| format!("; not yet in force: {}", kept(&found).join(", ")));
    format!("{handle}/{} keeps {time}, {messages} messages, {bytes}{late}", made.pipe.name)
}

/// A message with where it stands, from whom, and what it says.
pub(crate) fn message(message: &Message) -> String {
    let at = time(message.stored_at.unwrap_or(message.created_at));
    let reply = message.in_reply_to.map_or_else(String::new, |id| format!(" in reply to {id}"));
    let text = match &message.payload {
        Payload::Text(text) => plain(text),
        Payload::Bytes(bytes) => plain(&String::from_utf8_lossy(bytes)),
    };
    let sender = message.sender_name.as_deref().map_or_else(|| message.sender.to_string(), plain);
    format!("{}  {at}  {sender}{reply}\n{}", message.sequence, text.trim_end_matches('\n'))
}

/// Whom a right is given to.
pub(crate) fn whom(grant: &SourceGrant) -> String {
    match (&grant.user, &grant.group) {
        _ if grant.everyone => "everyone".to_owned(),
        (Some(user), _) => plain(user),
        (None, Some(group)) => format!("group {}", plain(group)),
        (None, None) => "-".to_owned(),
    }
}

/// A right that was given.
pub(crate) fn grant(handle: &str, grant: &SourceGrant) -> String {
    format!("{} may {} {handle}", whom(grant), grant.right)
}

/// A table of rights.
pub(crate) fn grants(grants: &[SourceGrant]) -> String {
    let mut table = table(["ID", "WHO", "RIGHT", "SINCE"]);
    for grant in grants {
        table.add_row([grant.id.to_string(), whom(grant), grant.right.to_string(), time(grant.created_at)]);
    }
    table.trim_fmt()
}

/// Who may do what with a source.
pub(crate) fn users_of(source: &Source, grants: &[SourceGrant]) -> String {
    let mut table = table(["WHO", "READ", "WRITE", "TYPE", "BECAUSE"]);
    let yes = || "yes".to_owned();
    table.add_row([
        maker(source.created_by_username.as_ref()),
        yes(),
        yes(),
        yes(),
        "made the source".to_owned(),
    ]);
    let mut names: Vec<String> = grants.iter().map(whom).collect();
    names.sort();
    names.dedup();
    for name in names {
        let may = |right| {
            let given = grants.iter().any(|grant| grant.right == right && whom(grant) == name);
            if given { "yes" } else { "-" }.to_owned()
        };
        let rights = [SourceRight::Read, SourceRight::Write, SourceRight::Type].map(may);
        let [read, write, typed] = rights;
        table.add_row([name, read, write, typed, "was let in".to_owned()]);
    }
    format!("{}\n\nEvery member may send to {}.", table.trim_fmt(), source.handle)
}

/// A table of pipes that somebody reads.
pub(crate) fn subscriptions(subscriptions: &[Subscription]) -> String {
    let now = SystemClock::new().now();
    let mut table = table(["PIPE", "OWNER", "READ TO", "UNREAD", "LAST", "MESSAGE"]);
    for it in subscriptions {
        let last = it.last.as_ref();
        table.add_row([
            format!("{}/{}", plain(&it.handle), plain(&it.pipe)),
            maker(it.owner.as_ref()),
            it.sequence.to_string(),
            it.unread.map_or_else(|| "?".to_owned(), |unread| unread.to_string()),
            last.map_or_else(|| "-".to_owned(), |last| format!("{} ago", age(now - last.stored_at))),
            last.map_or_else(String::new, |last| preview(&last.text)),
        ]);
    }
    table.trim_fmt()
}

/// A table of those who use pipes.
pub(crate) fn seen(members: &[SeenMember]) -> String {
    let now = SystemClock::new().now();
    let mut table = table(["WHO", "SEEN", "NATS", "PIPES READ"]);
    for member in members {
        let nats = member.connected_until.map_or_else(
            || "-".to_owned(),
            |until| format!("may be connected, for {} more", age(until - now)),
        );
        let seen = format!("{} ago", age(now - member.seen_at));
        table.add_row([plain(&member.username), seen, nats, member.pipes.to_string()]);
    }
    table.trim_fmt()
}

/// A table of those who have read a message.
pub(crate) fn receipts(found: &ReadReceipts) -> String {
    if found.receipts.is_empty() {
        return format!("nobody has read message {}", found.sequence);
    }
    let mut table = table(["WHO", "HAD READ IT BY"]);
    for receipt in &found.receipts {
        let by = receipt.read_by.map_or_else(|| "over NATS, no time is known".to_owned(), time);
        table.add_row([plain(&receipt.username), by]);
    }
    table.trim_fmt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_and_sizes_are_short() {
        let lengths = [1, 90, 120, 7_200, 604_800].map(length);
        assert_eq!(lengths, ["1s", "90s", "2m", "2h", "7d"]);
        assert_eq!([size(16 << 20), size(1_025)], ["16Mi", "1025"]);
    }

    #[test]
    fn a_preview_is_one_short_line_that_no_terminal_obeys() {
        assert_eq!(preview("a\nb\u{1b}[2J"), "a b\u{fffd}[2J");
        assert_eq!(preview(&"ä".repeat(41)), format!("{}\u{2026}", "ä".repeat(40)));
    }
}
