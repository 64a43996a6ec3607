//! `login` by browser: a code to compare, and a wait until somebody has let this machine in.

use std::{
    env,
    io::{self, IsTerminal},
    process::{Command, ExitCode, Stdio},
};

use anyhow::Context as _;
use serde_json::json;
use tidegate_client::{DeviceCodes, TokenStore as _, Url};

use crate::{
    context::Target,
    output::{self, Output},
    progress,
};

/// Asks to be let in, waits for it, and remembers the token.
pub(super) async fn login(target: &Target, output: Output, open: bool) -> anyhow::Result<ExitCode> {
    let client = target.builder()?.build()?;
    let codes = client.device_codes(concat!("tidegate CLI ", env!("CARGO_PKG_VERSION"))).await?;
    show(output, &codes);
    if open {
        open_browser(codes.verification_uri_complete.as_deref().unwrap_or_default());
    }
    let waited =
        progress::until(output, "waiting until you let this machine in", client.device_token(&codes));
    let token = waited.await?.access_token;
    let store = target.credentials.store(&target.url);
    let guard =
        store.lock().with_context(|| format!("cannot write {}", target.credentials.path().display()))?;
    target.credentials.set_bearer(&target.url, Some(&token))?;
    target.credentials.choose(&target.url, target.ca_file.clone())?;
    drop(guard);
    let user = target.builder()?.token(token).build()?.me().await?;
    output.answer(&user, || format!("logged in to {} as {}", target.url, output::plain(&user.username)))?;
    Ok(ExitCode::SUCCESS)
}

/// To standard error, for programs too: somebody has to do it.
fn show(output: Output, codes: &DeviceCodes) {
    if output.json {
        let shown = json!({
            "userCode": codes.user_code,
            "verificationUri": codes.verification_uri,
            "verificationUriComplete": codes.verification_uri_complete,
            "expiresIn": codes.expires_in,
        });
        eprintln!("{shown}");
        return;
    }
    let place = codes.verification_uri_complete.as_ref().unwrap_or(&codes.verification_uri);
    output.note(&format!("Open {place}\nand compare the code there with this one: {}", codes.user_code));
}

/// Opens the page where there is a screen; where there is none, or it does not work, people have the address.
pub(super) fn open_browser(url: &str) {
    let screen = cfg!(target_os = "macos") || ["DISPLAY", "WAYLAND_DISPLAY"].iter().any(|name| is_set(name));
    let Some(url) = web_page(url) else { return };
    if !screen || !io::stderr().is_terminal() {
        return;
    }
    let program = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    let quiet = Stdio::null;
    drop(Command::new(program).arg(url.as_str()).stdin(quiet()).stdout(quiet()).stderr(quiet()).spawn());
}

fn is_set(name: &str) -> bool {
    env::var_os(name).is_some_and(|value| !value.is_empty())
}

/// What a server names is opened only where it is a page: never a file or a flag.
fn web_page(text: &str) -> Option<Url> {
    text.parse::<Url>().ok().filter(|url| matches!(url.scheme(), "http" | "https"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_the_web_is_opened_and_nothing_else() {
        assert!(web_page("https://tidegate.example/oauth/device/verify?user_code=WDJB-MJHT").is_some());
        for bad in ["file:///etc/passwd", "--help", "javascript:alert(1)", "", "/tmp/x"] {
            assert!(web_page(bad).is_none(), "{bad}");
        }
    }
}
