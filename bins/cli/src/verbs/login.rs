//! `login` and `logout`.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, IsTerminal, Read, Write},
    path::Path,
    process::ExitCode,
    sync::Arc,
};

use anyhow::{Context as _, bail};
use crossterm::{
    event::{self, Event, KeyCode, KeyEventKind, KeyModifiers},
    terminal::{disable_raw_mode, enable_raw_mode},
};
use serde_json::json;
use tidegate_client::{TokenStore, Url};
use tidegate_model::Secret;

use crate::{
    args::{Global, LoginArgs},
    context::{Context, Target},
    output::Output,
};

/// Longest line that is read as a name or password.
const LINE: u64 = 4_096;

pub(super) async fn login(global: &Global, words: LoginArgs) -> anyhow::Result<ExitCode> {
    let target = Target::find(global)?;
    if !words.allow_plain_http && !is_private(&target.url) {
        bail!("{} is not encrypted: use https, or send it openly with --allow-plain-http", target.url);
    }
    if let Some(file) = &words.api_key_file {
        return login_with_key(&target, file, Output::new(global.json)).await;
    }
    if words.username.is_none() && words.password_file.is_none() {
        return super::device::login(&target, Output::new(global.json), !words.no_browser).await;
    }
    let username = match words.username {
        Some(name) => name,
        None => ask_name()?,
    };
    let password = match &words.password_file {
        Some(file) => secret_from(file, "password")?,
        None => ask_password(&username)?,
    };
    let store = Arc::new(target.credentials.store(&target.url));
    let client = target.builder()?.store(Arc::clone(&store) as Arc<dyn TokenStore>).build()?;
    let guard =
        store.lock().with_context(|| format!("cannot write {}", target.credentials.path().display()))?;
    let login = client.login(&username, &password).await?;
    target.credentials.choose(&target.url, target.ca_file.clone())?;
    drop(guard);
    Output::new(global.json)
        .answer(&login.user, || format!("logged in to {} as {}", target.url, login.user.username))?;
    Ok(ExitCode::SUCCESS)
}

/// Remembers a key once the control plane has said whom it stands for.
async fn login_with_key(target: &Target, file: &Path, output: Output) -> anyhow::Result<ExitCode> {
    let key = secret_from(file, "API key")?;
    let key = Secret::new(key.expose().trim().to_owned());
    let client = target.builder()?.token(key.clone()).build()?;
    let user = client.me().await?;
    let store = target.credentials.store(&target.url);
    let guard =
        store.lock().with_context(|| format!("cannot write {}", target.credentials.path().display()))?;
    target.credentials.set_api_key(&target.url, Some(&key))?;
    target.credentials.choose(&target.url, target.ca_file.clone())?;
    drop(guard);
    output.answer(&user, || format!("{} is used with an API key of {}", target.url, user.username))?;
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn logout(global: &Global) -> anyhow::Result<ExitCode> {
    let (target, output) = (Target::find(global)?, Output::new(global.json));
    let answer = json!({"loggedOut": target.url.as_str()});
    if target.credentials.api_key(&target.url)?.is_some() {
        let guard = target.credentials.store(&target.url).lock()?;
        target.credentials.set_api_key(&target.url, None)?;
        drop(guard);
        let forgotten = || format!("forgot the API key of {}: it stands until it is revoked", target.url);
        output.answer(&answer, forgotten)?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(token) = target.credentials.bearer(&target.url)? {
        let ended = target.builder()?.token(token).build()?.logout().await;
        let guard = target.credentials.store(&target.url).lock()?;
        target.credentials.set_bearer(&target.url, None)?;
        drop(guard);
        match ended {
            // It was revoked elsewhere before.
            Err(error) if error.status().map(|status| status.as_u16()) != Some(401) => {
                return Err(error.into());
            }
            _ => output.answer(&answer, || format!("logged out of {}", target.url))?,
        }
        return Ok(ExitCode::SUCCESS);
    }
    let context = Context::new(global)?;
    context.client.logout().await?;
    output.answer(&answer, || format!("logged out of {}", target.url))?;
    Ok(ExitCode::SUCCESS)
}

/// Whether nobody on the way can read along.
fn is_private(url: &Url) -> bool {
    let local = match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    url.scheme() == "https" || local
}

fn ask_name() -> anyhow::Result<String> {
    if !io::stdin().is_terminal() {
        bail!("nobody is here to ask for the username: name it with --username");
    }
    eprint!("Username: ");
    io::stderr().flush()?;
    let name = first_line(io::stdin().lock())?;
    anyhow::ensure!(!name.is_empty(), "a login needs a username");
    Ok(name)
}

pub(super) fn secret_from(file: &Path, what: &str) -> anyhow::Result<Secret<String>> {
    let line = if file == Path::new("-") {
        first_line(io::stdin().lock())
    } else {
        File::open(file).and_then(first_line)
    };
    Ok(Secret::new(line.with_context(|| format!("the {what} file {} cannot be read", file.display()))?))
}

fn first_line(input: impl Read) -> io::Result<String> {
    let mut line = String::new();
    BufReader::new(input.take(LINE)).read_line(&mut line)?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

fn ask_password(username: &str) -> anyhow::Result<Secret<String>> {
    ask_secret(&format!("Password for {}", crate::output::plain(username)))
}

/// Asks whoever is at the terminal, and shows nothing of the answer.
pub(super) fn ask_secret(label: &str) -> anyhow::Result<Secret<String>> {
    if !io::stdin().is_terminal() {
        bail!("nobody is here to ask for the password: give it in a file, see --help");
    }
    // Silent before asking: what is typed at once would be shown otherwise.
    let _silent = Silent::enter()?;
    eprint!("{label}: ");
    io::stderr().flush()?;
    let mut password = String::new();
    loop {
        let Event::Key(key) = event::read()? else { continue };
        if key.kind == KeyEventKind::Release {
            continue;
        }
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Enter => return Ok(Secret::new(password)),
            // The end of a line that was typed before the terminal was made silent.
            KeyCode::Char('j') if control => return Ok(Secret::new(password)),
            KeyCode::Char('c' | 'd') if control => bail!("login was broken off"),
            KeyCode::Char('u') if control => password.clear(),
            KeyCode::Backspace => _ = password.pop(),
            KeyCode::Char(letter) if !control => password.push(letter),
            _ => {}
        }
    }
}

/// A terminal that shows nothing of what is typed.
struct Silent;

impl Silent {
    fn enter() -> io::Result<Self> {
        enable_raw_mode()?;
        Ok(Self)
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        let _ = disable_raw_mode();
        eprintln!();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_goes_openly_to_this_machine_alone() {
        let private = |url: &str| is_private(&url.parse().unwrap());
        assert!(private("http://127.0.0.1:8080") && private("http://localhost") && private("http://[::1]:1"));
        assert!(private("https://tidegate.example.com"));
        assert!(!private("http://tidegate.example.com") && !private("http://10.0.0.1"));
    }

    #[test]
    fn a_password_is_the_first_line_as_it_is() {
        assert_eq!(first_line(&b" two words \r\nmore"[..]).unwrap(), " two words ");
    }
}
