//! `users`, `passwd` and `logins`.

use std::{path::Path, process::ExitCode};

use anyhow::bail;
use serde_json::json;
use tidegate_client::{Client, LoginPage, NewUser, UserChange, UserPage};
use tidegate_model::{Provider, Secret, User};

use super::login::{ask_secret, secret_from};
use crate::{
    args::{LoginsVerb, NewUserArgs, PasswdArgs, UserChanges, UserVerb},
    context::Context,
    output::{self, plain},
};

/// Most entries that are listed at once.
const MOST: usize = 10_000;

pub(super) async fn users(context: &Context, verb: UserVerb) -> anyhow::Result<ExitCode> {
    let (client, out) = (&context.client, context.output);
    match verb {
        UserVerb::List { search } => {
            let page = all(client, search.as_deref()).await?;
            out.answer(&page, || output::users(&page.users))?;
        }
        UserVerb::Show(words) => {
            let user = find(client, &words.user).await?;
            out.answer(&user, || output::user(&user))?;
        }
        UserVerb::Create(words) => {
            let made = client.create_user(&wanted(words)?).await?;
            out.answer(&made, || format!("{} is there", plain(&made.username)))?;
        }
        UserVerb::Update(words) => {
            let UserChanges { email, full_name } = words.changes;
            let found = find(client, &words.user.user).await?;
            let own = email.is_some() && takes_password(client, &found).await?;
            let current = if own || words.current_file.is_some() {
                Some(secret(words.current_file.as_deref(), "Your password", false)?)
            } else {
                None
            };
            let change = UserChange { email, full_name, current_password: current, ..Default::default() };
            let changed = client.update_user(found.id, &change).await?;
            out.answer(&changed, || output::user(&changed))?;
        }
        UserVerb::Deactivate(words) => set_active(context, &words.user, false).await?,
        UserVerb::Activate(words) => set_active(context, &words.user, true).await?,
        UserVerb::Delete { user, confirm } => {
            let found = find(client, &user.user).await?;
            if !found.username.eq_ignore_ascii_case(&confirm) {
                bail!("nothing was done: --confirm must be `{}`, the user's name", plain(&found.username));
            }
            client.delete_user(found.id).await?;
            out.answer(&json!({"deleted": found.id}), || format!("{} is deleted", plain(&found.username)))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Whether another address of this user takes a password: of one's own, where one has a password here.
async fn takes_password(client: &Client, user: &User) -> anyhow::Result<bool> {
    Ok(user.provider == Provider::Local && client.me().await?.id == user.id)
}

async fn set_active(context: &Context, user: &str, active: bool) -> anyhow::Result<()> {
    let id = find(&context.client, user).await?.id;
    let change = UserChange { active: Some(active), ..Default::default() };
    let changed = context.client.update_user(id, &change).await?;
    let what = if active { "may log in" } else { "is deactivated, and everything of theirs ends" };
    context.output.answer(&changed, || format!("{} {what}", plain(&changed.username)))
}

fn wanted(words: NewUserArgs) -> anyhow::Result<NewUser> {
    let label = format!("Password for {}", plain(&words.username));
    let password = secret(words.password_file.as_deref(), &label, true)?;
    Ok(NewUser {
        full_name: words.full_name.unwrap_or_else(|| words.username.clone()),
        username: words.username,
        email: words.email,
        password: Some(password),
        provider: Provider::Local,
        org_role: words.role,
    })
}

pub(super) async fn passwd(context: &Context, words: PasswdArgs) -> anyhow::Result<ExitCode> {
    if let Some(name) = words.forgotten {
        context.client.forgot_password(&name).await?;
        let text = || {
            "if there is such a user with an address and a password there, a mail is on its way".to_owned()
        };
        context.output.answer(&json!({"asked": true}), text)?;
        return Ok(ExitCode::SUCCESS);
    }
    let current = secret(words.current_file.as_deref(), "Current password", false)?;
    let new = secret(words.new_file.as_deref(), "New password", true)?;
    context.client.change_password(&current, &new).await?;
    let text = || "the password is changed, and your other logins have ended".to_owned();
    context.output.answer(&json!({"changed": true}), text)?;
    Ok(ExitCode::SUCCESS)
}

/// A password from a file, or from whoever is here: asked for twice where a slip would lock them out.
fn secret(file: Option<&Path>, label: &str, twice: bool) -> anyhow::Result<Secret<String>> {
    if let Some(file) = file {
        return secret_from(file, "password");
    }
    let password = ask_secret(label)?;
    if twice && ask_secret("The same again")? != password {
        bail!("nothing was done: the two passwords differ");
    }
    Ok(password)
}

pub(super) async fn logins(context: &Context, verb: LoginsVerb) -> anyhow::Result<ExitCode> {
    let (client, out) = (&context.client, context.output);
    match verb {
        LoginsVerb::List => {
            let mut page = client.logins(None).await?;
            while let Some(cursor) = page.next_cursor.take().filter(|_| page.logins.len() < MOST) {
                let LoginPage { logins, next_cursor, .. } = client.logins(Some(&cursor)).await?;
                page.logins.extend(logins);
                page.next_cursor = next_cursor;
            }
            out.answer(&page, || output::logins(&page.logins))?;
        }
        LoginsVerb::End { id } => {
            client.revoke_login(id).await?;
            out.answer(&json!({"ended": id}), || format!("login {id} has ended"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The user of this id, or of this name in any case.
async fn find(client: &Client, user: &str) -> anyhow::Result<User> {
    if let Ok(id) = user.parse() {
        return Ok(client.user(id).await?);
    }
    let found = all(client, Some(user)).await?.users;
    let found = found.into_iter().find(|found| found.username.eq_ignore_ascii_case(user));
    found.ok_or_else(|| anyhow::anyhow!("no user is called `{}`: see `tidegate users list`", plain(user)))
}

async fn all(client: &Client, search: Option<&str>) -> anyhow::Result<UserPage> {
    let mut page = client.users(search, None).await?;
    while let Some(cursor) = page.next_cursor.take().filter(|_| page.users.len() < MOST) {
        let next = client.users(search, Some(&cursor)).await?;
        page.users.extend(next.users);
        page.next_cursor = next.next_cursor;
    }
    Ok(page)
}
