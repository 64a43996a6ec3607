//! `share` of a terminal, `view`, and `attach` to a source.

use std::{env, ffi::OsString, io::IsTerminal, process::ExitCode, time::Duration};

use anyhow::bail;
use chrono::{DateTime, Utc};
use serde_json::json;
use tidegate_client::{
    Client, Error as ClientError, Followed, IdempotencyKey, MessageToSend, PipeFrom, StatusCode,
};
use tidegate_model::{
    Handle, Payload, STDCTRL, STDIN, STDOUT, Source, SourceKind, SourceRight, TerminalControl, User,
};
use tokio::time::sleep;

use super::{logs::write_raw, messages::code};
use crate::{
    args::{AttachArgs, ViewArgs},
    context::Context,
    exit, lookup,
    output::{self, plain},
    signals::Signals,
    terminal::{self, Lines, RawTerminal, Share, Shown, Watch, WatchEnd, Watched},
};

/// What runs where nobody says which shell is theirs.
const SHELL: &str = "/bin/sh";

/// `share HANDLE`.
pub(super) async fn share(context: &Context, name: &str, command: Vec<OsString>) -> anyhow::Result<ExitCode> {
    if context.output.json {
        bail!("a terminal has no JSON: leave --json out");
    }
    let client = &context.client;
    let handle: Handle = name.parse().map_err(|error| {
        anyhow::anyhow!(
            "`{}` is no handle, which {error}; to share a session say --with USERNAME or --group GROUP",
            plain(name)
        )
    })?;
    let me = client.me().await?;
    let source = own(client, &handle, &me, command.is_empty()).await?;
    let argv = if command.is_empty() { vec![shell()] } else { command };
    context.output.note(&told(client, &source).await);
    let shared = Share { handle: &handle, owner: source.created_by, argv };
    let end = terminal::share(client, shared).await?;
    if !end.whole {
        context.output.note(&format!("the end of the output is not stored in {handle}"));
    }
    Ok(end.signal.map_or_else(|| exit::of_program(end.code), exit::of_signal))
}

/// The terminal of this handle, which is made where it is not there.
async fn own(client: &Client, handle: &Handle, me: &User, cautious: bool) -> anyhow::Result<Source> {
    let source = match client.source(handle).await {
        Ok(source) => source,
        Err(error) if error.status() == Some(StatusCode::NOT_FOUND) => {
            // Whoever forgets to say with whom does not want another terminal.
            if cautious && lookup::find(client, handle.as_str()).await.is_ok() {
                bail!(
                    "{handle} is a session: share it with --with USERNAME or --group GROUP; a terminal of this machine \
                     is shared under that name after `tidegate source create {handle} --kind pty`"
                );
            }
            client.create_source(handle, SourceKind::Pty).await?
        }
        Err(error) => return Err(error.into()),
    };
    if source.created_by != me.id {
        let owner = source.created_by_username.as_deref().unwrap_or("somebody who left");
        bail!("source {handle} belongs to {}: choose another handle", plain(owner));
    }
    check_kind(&source)?;
    Ok(source)
}

fn check_kind(source: &Source) -> anyhow::Result<()> {
    match source.kind {
        SourceKind::Pty => Ok(()),
        SourceKind::Message => bail!(
            "source {} gets messages and is no terminal: read it with `tidegate read {0}`, or choose another handle",
            source.handle
        ),
    }
}

fn shell() -> OsString {
    env::var_os("SHELL").filter(|shell| !shell.is_empty()).unwrap_or_else(|| SHELL.into())
}

/// Who watches and types, before anything is shown to them.
async fn told(client: &Client, source: &Source) -> String {
    let handle = &source.handle;
    // Only a courtesy: who may is decided elsewhere.
    let grants = client.source_grants(handle).await.map(|list| list.grants).unwrap_or_default();
    let who = |right| {
        let names: Vec<String> =
            grants.iter().filter(|grant| grant.right == right).map(output::whom).collect();
        if names.is_empty() { "nobody but you".to_owned() } else { format!("you and {}", names.join(", ")) }
    };
    let (read, typed) = (who(SourceRight::Read), who(SourceRight::Type));
    format!(
        "this terminal is shared as {handle}: {read} may watch it with `tidegate view {handle}`, {typed} may type into it"
    )
}

/// `attach HANDLE`.
pub(super) async fn attach(
    context: &Context,
    source: &Source,
    words: &AttachArgs,
) -> anyhow::Result<ExitCode> {
    check_kind(source)?;
    let (client, handle) = (&context.client, &source.handle);
    let types = !words.view && may_type(context, source).await?;
    let watch = Watch { handle, keys: &words.resume.detach_key, from: None, types, stays: false };
    match terminal::watch(client, &watch).await? {
        WatchEnd::Exited(Some(code)) => Ok(exit::of_program(code)),
        WatchEnd::Exited(None) => bail!("the program in {handle} ended, and nobody knows how"),
        WatchEnd::Nothing(_) => {
            bail!(
                "nothing runs in {handle}: `tidegate view {handle}` shows what did, `tidegate share {handle}` begins anew"
            )
        }
        WatchEnd::Left => {
            context.output.note(&format!("{handle} goes on; `tidegate attach {handle}` comes back to it"));
            Ok(ExitCode::SUCCESS)
        }
        WatchEnd::Signal(signal) => Ok(exit::of_signal(signal)),
    }
}

/// Asks by saying the window's size, or by typing nothing, which changes nothing.
async fn may_type(context: &Context, source: &Source) -> anyhow::Result<bool> {
    let size = terminal::window_size().map(|size| TerminalControl::Resize(size).encode());
    let (pipe, payload) = match size {
        Some(text) => (STDCTRL, Payload::Text(text)),
        None => (STDIN, Payload::Bytes(Vec::new())),
    };
    let message = MessageToSend { payload, in_reply_to: None, ack_requested: false };
    let asked = context.client.send_message(&source.handle, pipe, &message, IdempotencyKey::random()).await;
    match asked {
        Ok(_) => Ok(true),
        Err(error) if terminal::is_forbidden(&error) && std::io::stdin().is_terminal() => {
            context.output.note(&format!("you watch, and what you type does nothing: {error}"));
            Ok(false)
        }
        Err(error) if terminal::is_forbidden(&error) => {
            Err(anyhow::Error::new(error).context("what is typed here would go nowhere; --view watches"))
        }
        Err(error) => Err(error.into()),
    }
}

/// `view`.
pub(super) async fn view(context: &Context, words: ViewArgs) -> anyhow::Result<ExitCode> {
    let ended = viewed(context, words).await;
    match ended.as_ref().err().and_then(|error| error.downcast_ref::<ClientError>()).map(code) {
        // As `read` says the same.
        Some(code) => ended.or_else(|error| Ok(exit::report(&error, context.output.json, code))),
        None => ended,
    }
}

async fn viewed(context: &Context, words: ViewArgs) -> anyhow::Result<ExitCode> {
    let (client, handle) = (&context.client, &words.handle);
    let source = client.source(handle).await?;
    check_kind(&source)?;
    let from = match words.since {
        Some(since) => PipeFrom::Since(since),
        None if words.from_now => PipeFrom::Now,
        None => PipeFrom::After(0),
    };
    if let Some(text) = &words.search {
        return search(context, handle, from, text).await;
    }
    if context.output.json {
        return lines(context, handle, from, &words).await;
    }
    if words.replay {
        return replay(context, handle, from, &words).await;
    }
    let keys = &words.resume.detach_key;
    let watch = Watch { handle, keys, from: Some(from), types: false, stays: words.stay };
    match terminal::watch(client, &watch).await? {
        WatchEnd::Exited(code) | WatchEnd::Nothing(code) => {
            let code = code.map_or_else(String::new, |code| format!(" with exit code {code}"));
            context.output.note(&format!("the program in {handle} ended{code}"));
            Ok(ExitCode::SUCCESS)
        }
        WatchEnd::Left => Ok(ExitCode::SUCCESS),
        WatchEnd::Signal(signal) => Ok(exit::of_signal(signal)),
    }
}

/// Every message as a line, until the program ends.
async fn lines(
    context: &Context,
    handle: &Handle,
    from: PipeFrom,
    words: &ViewArgs,
) -> anyhow::Result<ExitCode> {
    let mut follower = context.client.follow_pipe(handle, STDOUT, from);
    let mut watched = Watched::new(words.stay);
    loop {
        let heard = follower.next().await?;
        let caught_up = heard == Followed::CaughtUp;
        if let Followed::Message(message) = &heard {
            output::json_line(message)?;
        }
        if matches!(watched.hear(heard), Shown::Ended(_)) || (words.replay && caught_up) {
            return Ok(ExitCode::SUCCESS);
        }
    }
}

/// Shows what is kept at the speed at which it was written.
async fn replay(
    context: &Context,
    handle: &Handle,
    from: PipeFrom,
    words: &ViewArgs,
) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::new()?;
    let mut terminal = RawTerminal::plain();
    let longest = words.pause.map_or(Duration::MAX, Duration::from_secs);
    let playing = async {
        let mut follower = context.client.follow_pipe(handle, STDOUT, from);
        let mut watched = Watched::new(true);
        let mut before: Option<DateTime<Utc>> = None;
        loop {
            let heard = follower.next().await?;
            if heard == Followed::CaughtUp {
                return anyhow::Ok(());
            }
            let at = if let Followed::Message(message) = &heard { message.stored_at } else { None };
            if let (Some(before), Some(at)) = (before, at) {
                sleep((at - before).to_std().unwrap_or_default().div_f64(words.speed).min(longest)).await;
            }
            before = at.or(before);
            match watched.hear(heard) {
                Shown::Bytes(bytes) => terminal.show(bytes).await?,
                Shown::Note(text) => terminal.note(&text),
                Shown::Anew => terminal.calm(),
                Shown::Ended(_) | Shown::Nothing => {}
            }
        }
    };
    tokio::select! {
        played = playing => played.map(|()| ExitCode::SUCCESS),
        signal = signals.next() => Ok(exit::of_signal(signal)),
    }
}

/// Writes the lines of what is kept that have a text.
async fn search(context: &Context, handle: &Handle, from: PipeFrom, text: &str) -> anyhow::Result<ExitCode> {
    let mut follower = context.client.follow_pipe(handle, STDOUT, from);
    let mut watched = Watched::new(true);
    let mut search = Search { context, text, found: 0 };
    let mut lines = Lines::new();
    let mut last: Option<(u64, Option<DateTime<Utc>>)> = None;
    loop {
        let heard = follower.next().await?;
        if heard == Followed::CaughtUp {
            break;
        }
        if let Followed::Message(message) = &heard {
            last = Some((message.sequence, message.stored_at));
        }
        match watched.hear(heard) {
            Shown::Bytes(bytes) => search.look_at(last, lines.feed(&bytes)?)?,
            // What follows is another program's, and no part of a line of this one.
            Shown::Anew => search.look_at(last, std::mem::replace(&mut lines, Lines::new()).rest()?)?,
            Shown::Note(text) => context.output.note(&text),
            Shown::Ended(_) | Shown::Nothing => {}
        }
    }
    search.look_at(last, lines.rest()?)?;
    if search.found == 0 {
        context.output.note(&format!("`{}` is in no line that {handle} keeps", plain(text)));
        return Ok(ExitCode::from(exit::NOTHING));
    }
    Ok(ExitCode::SUCCESS)
}

/// What is looked for.
struct Search<'a> {
    context: &'a Context,
    text: &'a str,
    found: usize,
}

impl Search<'_> {
    /// Writes those lines that have the text; they ended in this message.
    fn look_at(
        &mut self,
        ended: Option<(u64, Option<DateTime<Utc>>)>,
        lines: impl IntoIterator<Item = String>,
    ) -> anyhow::Result<()> {
        let (sequence, at) = ended.unwrap_or_default();
        for line in lines.into_iter().filter(|line| line.contains(self.text)) {
            self.found += 1;
            if self.context.output.json {
                output::json_line(&json!({"sequence": sequence, "storedAt": at, "line": line}))?;
            } else {
                let at = at.map_or_else(|| "-".to_owned(), output::time);
                write_raw(format!("{at}  {}\n", plain(&line)).as_bytes())?;
            }
        }
        Ok(())
    }
}
