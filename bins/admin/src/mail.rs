//! `mail test`: one mail, the way of all others.

use std::process::ExitCode;

use anyhow::Context;
use serde_json::json;
use tidegate_model::{Clock, SystemClock};

use crate::{args::MailVerb, output, settings::Settings};

/// Does what was asked about mail.
pub(crate) async fn run(settings: &Settings, verb: MailVerb, as_json: bool) -> anyhow::Result<ExitCode> {
    let MailVerb::Test { to } = verb;
    let post = settings.post()?;
    let mailer = post.describe();
    let sent = post.test(&to, SystemClock::new().now()).await;
    sent.with_context(|| format!("the mail was not sent by {mailer}"))?;
    let sentence = format!("a mail to {to} was taken by {mailer}");
    output::said(as_json, &json!({"sent": true, "mailer": mailer}), &sentence)?;
    Ok(ExitCode::SUCCESS)
}
