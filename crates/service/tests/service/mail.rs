//! Mails about invites: who gets one, what it says, and that each goes out once unless somebody dies over it.

use std::{
    os::unix::fs::PermissionsExt,
    sync::{Arc, Mutex},
};

use chrono::TimeDelta;
use serde_json::Value;
use tidegate_model::{CreateInviteRequest, Invite, OrgRole};
use tidegate_service::{
    Invited, Letter, MailError, MailOptions, Mailer, Mails, Post, Sending, Services, SmtpOptions, SmtpTls,
};
use tidegate_test_support::{TestCa, TestDb, TestOrg, eventually};
use tokio_util::sync::CancellationToken;

use crate::mail_server::MailServer;

const BASE: &str = "https://tidegate.example";

/// What a mailer of a test does with a mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Does {
    Take,
    Refuse,
    Hang,
}

/// Remembers what it was given.
#[derive(Debug)]
pub(crate) struct Recorder {
    does: Does,
    taken: Mutex<Vec<String>>,
}

impl Recorder {
    pub(crate) fn new(does: Does) -> Arc<Self> {
        Arc::new(Self { does, taken: Mutex::default() })
    }

    pub(crate) fn taken(&self) -> Vec<String> {
        self.taken.lock().unwrap().clone()
    }
}

impl Mailer for Recorder {
    fn describe(&self) -> String {
        "a list in memory".into()
    }

    fn check(&self) -> Sending<'_> {
        Box::pin(async { Ok(()) })
    }

    fn send<'a>(&'a self, letter: &'a Letter) -> Sending<'a> {
        Box::pin(async move {
            self.taken.lock().unwrap().push(String::from_utf8(letter.formatted()).unwrap());
            match self.does {
                Does::Take => Ok(()),
                Does::Refuse => Err(MailError::Passing("not now".into())),
                Does::Hang => std::future::pending().await,
            }
        })
    }
}

fn post_to(folder: &std::path::Path) -> Post {
    MailOptions::default().open(folder, BASE).unwrap()
}

pub(crate) fn recorded(recorder: &Arc<Recorder>) -> Post {
    post_to(std::path::Path::new("/nowhere")).with_mailer(Arc::clone(recorder) as _)
}

/// An organization, and somebody outside of it with an address.
async fn people(test: &TestDb) -> (TestOrg, String) {
    let acme = test.org_with_admin("acme").await;
    test.org_with_admin("lobby").await;
    let friend = test.user_in("lobby", OrgRole::User).await;
    test.execute(&format!("UPDATE users SET email = 'friend@example.com' WHERE id = '{}'", friend.id)).await;
    (acme, friend.username)
}

async fn invite(test: &TestDb, org: &TestOrg, username: &str) -> Invite {
    let request = CreateInviteRequest {
        username: username.into(),
        role: OrgRole::Viewer,
        expires_in: TimeDelta::days(7),
    };
    let scope = org.admin.org().unwrap();
    match test.services().invites.create(scope, request, None, |_| Value::Null).await.unwrap() {
        Invited::New(invite) => invite,
        Invited::Replay(replay) => panic!("{replay:?}"),
    }
}

pub(crate) async fn send(mails: &Mails, post: &Post) -> usize {
    mails.send_due(post, &CancellationToken::new()).await.unwrap()
}

async fn rows(test: &TestDb) -> String {
    test.look(
        "SELECT COALESCE(string_agg(concat_ws(' ', status, attempts), ', ' ORDER BY id), '') FROM mails",
    )
    .await
}

/// The value of a header that stands once.
#[track_caller]
fn header<'a>(mail: &'a str, name: &str) -> &'a str {
    let head = mail.split("\r\n\r\n").next().unwrap();
    let values: Vec<&str> = head
        .split("\r\n")
        .filter_map(|line| line.split_once(": "))
        .filter_map(|(found, value)| found.eq_ignore_ascii_case(name).then_some(value))
        .collect();
    assert_eq!(values.len(), 1, "{name} in {head}");
    values[0]
}

#[tokio::test]
async fn a_file_of_its_own_says_who_invites_whom_into_what_and_where_to_answer() {
    let test = TestDb::new().await;
    let (acme, friend) = people(&test).await;
    test.execute("UPDATE organizations SET display_name = 'Ääkme & Söhne' WHERE name = 'acme'").await;
    let inviter = acme.admin.user().username();
    test.execute(&format!("UPDATE users SET full_name = 'Ada Lovelace' WHERE username = '{inviter}'")).await;
    let made = invite(&test, &acme, &friend.to_uppercase()).await;
    let above = tempfile::tempdir().unwrap();
    let data = above.path().join("data");
    let post = post_to(&data);
    assert_eq!(send(&test.services().mails, &post).await, 1);
    assert_eq!(rows(&test).await, "sent 1");
    let rights = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(rights(&data.join("outbox")), 0o700);
    assert_eq!(rights(&data) & 0o001, 0o001, "whoever has the database there passes through");
    let files: Vec<_> = std::fs::read_dir(data.join("outbox")).unwrap().map(|file| file.unwrap()).collect();
    let [file] = files.as_slice() else { panic!("{files:?}") };
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let id: String = test.look("SELECT id::text FROM mails").await;
    assert_eq!(file.file_name().to_str().unwrap(), format!("{id}.eml"));
    let mail = std::fs::read_to_string(file.path()).unwrap();
    assert_eq!(header(&mail, "To"), "friend@example.com");
    assert_eq!(header(&mail, "From"), "Tidegate <tidegate@localhost>");
    assert_eq!(header(&mail, "Subject"), format!("{inviter} invites you to acme"));
    assert_eq!(header(&mail, "Message-ID"), format!("<{id}@localhost>"));
    assert_eq!(header(&mail, "Date"), "Thu, 01 Jan 2026 00:00:00 +0000");
    assert_eq!(header(&mail, "Auto-Submitted"), "auto-generated");
    assert!(header(&mail, "Content-Type").starts_with("multipart/alternative"));
    let body = unquoted(&mail);
    let link = format!("{BASE}/invites/{}", made.id);
    for part in [
        format!("Ada Lovelace ({inviter}) invites"),
        "the organization Ääkme & Söhne (acme) on Tidegate, as viewer".into(),
        "Ääkme &#38; Söhne (acme)".into(),
        "until 2026-01-08 00:00 UTC".into(),
        format!("\r\n{link}\r\n"),
        format!("<a href=\"{link}\">"),
    ] {
        assert!(body.contains(&part), "{part} in {body}");
    }
    assert_eq!(send(&test.services().mails, &post).await, 0, "it is sent once");
}

/// The text with its quoted-printable undone.
pub(crate) fn unquoted(mail: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = mail.as_bytes();
    while let [first, more @ ..] = rest {
        rest = more;
        match (first, more) {
            (b'=', [b'\r', b'\n', after @ ..]) => rest = after,
            (b'=', [high, low, after @ ..]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                let pair = std::str::from_utf8(&more[..2]).unwrap();
                bytes.push(u8::from_str_radix(pair, 16).unwrap());
                rest = after;
            }
            _ => bytes.push(*first),
        }
    }
    String::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn names_that_people_chose_change_no_header_and_no_line() {
    let test = TestDb::new().await;
    let (acme, friend) = people(&test).await;
    let evil = "x\r\nBcc: evil@evil.example\r\n\r\n<b>=?utf-8?q?=0d=0aBcc:_evil=40evil.example?= http://evil.example";
    let set =
        format!("UPDATE users SET full_name = '{evil}'; UPDATE organizations SET display_name = '{evil}'");
    test.execute(&set).await;
    invite(&test, &acme, &friend).await;
    let recorder = Recorder::new(Does::Take);
    send(&test.services().mails, &recorded(&recorder)).await;
    let taken = recorder.taken();
    assert_eq!((taken.len(), header(&taken[0], "To")), (1, "friend@example.com"));
    assert!(!taken[0].to_lowercase().contains("evil"), "{}", taken[0]);
    // With the colon: a boundary is random, and may have these letters in it.
    assert!(!taken[0].to_lowercase().contains("bcc:"), "{}", taken[0]);
}

#[tokio::test]
async fn whoever_invites_cannot_tell_who_has_an_address() {
    let test = TestDb::new().await;
    let (acme, friend) = people(&test).await;
    let without = test.user_in("lobby", OrgRole::User).await.username;
    let names = [friend.as_str(), &without, "nobody-at-all"];
    for name in names {
        let made = invite(&test, &acme, name).await;
        assert_eq!((made.invitee_username.as_str(), made.status.as_str()), (name, "pending"));
    }
    assert_eq!(rows(&test).await, "pending 0, pending 0, pending 0", "the same for all of them");
    let recorder = Recorder::new(Does::Take);
    send(&test.services().mails, &recorded(&recorder)).await;
    assert_eq!((recorder.taken().len(), rows(&test).await.as_str()), (1, "sent 1, dropped 1, dropped 1"));
    let listed = test.services().invites.list(acme.admin.org().unwrap(), &paging()).await.unwrap();
    assert!(listed.items.iter().all(|invite| invite.status.as_str() == "pending"), "and afterwards");
}

fn paging() -> tidegate_service::Paging {
    tidegate_service::Paging { limit: 100, cursor: None }
}

#[tokio::test]
async fn an_invite_that_is_over_and_a_user_who_is_gone_get_no_mail() {
    let test = TestDb::new().await;
    let (acme, friend) = people(&test).await;
    let recorder = Recorder::new(Does::Take);
    let post = recorded(&recorder);
    let revoked = invite(&test, &acme, &friend).await;
    test.services().invites.revoke(acme.admin.org().unwrap(), revoked.id).await.unwrap();
    send(&test.services().mails, &post).await;
    invite(&test, &acme, &friend).await;
    test.manual_clock().advance(TimeDelta::days(8));
    send(&test.services().mails, &post).await;
    for change in [
        "UPDATE users SET active = false WHERE email IS NOT NULL",
        "UPDATE users SET active = true, email = E'a@b\\r\\nBcc: c@d' WHERE email IS NOT NULL",
        "UPDATE organizations SET status = 'suspended' WHERE name = 'acme'",
    ] {
        test.execute("UPDATE invites SET status = 'revoked', decided_at = now() WHERE status = 'pending'")
            .await;
        test.execute("UPDATE organizations SET status = 'active'").await;
        // The admin's login is old by now; the scope still holds the rows.
        invite(&test, &acme, &friend).await;
        test.execute(change).await;
        send(&test.services().mails, &post).await;
    }
    assert_eq!(recorder.taken(), Vec::<String>::new());
    assert_eq!(rows(&test).await, "dropped 1, dropped 1, dropped 1, failed 1, dropped 1");
}

#[tokio::test]
async fn of_two_that_send_at_once_one_sends_each_mail() {
    let test = TestDb::new().await;
    let (acme, _) = people(&test).await;
    for _ in 0..10 {
        let user = test.user_in("lobby", OrgRole::User).await;
        test.execute(&format!("UPDATE users SET email = '{0}@example.com' WHERE id = '{0}'", user.id)).await;
        invite(&test, &acme, &user.username).await;
    }
    let recorder = Recorder::new(Does::Take);
    let (post, other) = (recorded(&recorder), test.services_with(TestDb::options()));
    let all = |services: &Services| {
        let (mails, post) = (services.mails.clone(), post.clone());
        async move { while send(&mails, &post).await > 0 {} }
    };
    futures_util::join!(all(test.services()), all(&other), all(&other));
    let mut addresses: Vec<String> =
        recorder.taken().iter().map(|mail| header(mail, "To").to_owned()).collect();
    addresses.sort_unstable();
    addresses.dedup();
    assert_eq!((recorder.taken().len(), addresses.len()), (10, 10));
}

#[tokio::test]
async fn a_mail_that_was_sent_by_somebody_who_died_goes_out_again_under_the_same_id() {
    let test = TestDb::new().await;
    let (acme, friend) = people(&test).await;
    invite(&test, &acme, &friend).await;
    let (hanging, second) = (Recorder::new(Does::Hang), Recorder::new(Does::Take));
    let (mails, post) = (test.services().mails.clone(), recorded(&hanging));
    let dying = tokio::spawn(async move { mails.send_due(&post, &CancellationToken::new()).await });
    eventually("the mail is out", async || hanging.taken().len() == 1).await;
    // Nothing of the database is under way while a mail is.
    dying.abort();
    assert!(dying.await.is_err());
    let post = recorded(&second);
    assert_eq!(send(&test.services().mails, &post).await, 0, "its lease holds");
    test.manual_clock().advance(TimeDelta::seconds(91));
    assert_eq!(send(&test.services().mails, &post).await, 1);
    assert_eq!(rows(&test).await, "sent 2");
    let ids = [&hanging, &second].map(|recorder| header(&recorder.taken()[0], "Message-ID").to_owned());
    assert_eq!(ids[0], ids[1]);
}

#[tokio::test]
async fn a_mail_is_given_up_after_eight_tries() {
    let test = TestDb::new().await;
    let (acme, friend) = people(&test).await;
    invite(&test, &acme, &friend).await;
    let recorder = Recorder::new(Does::Refuse);
    let post = recorded(&recorder);
    send(&test.services().mails, &post).await;
    assert_eq!(send(&test.services().mails, &post).await, 0, "not at once again");
    for _ in 0..10 {
        test.manual_clock().advance(TimeDelta::minutes(301));
        send(&test.services().mails, &post).await;
    }
    // Five hours between tries end the day before the eighth.
    let (tries, state) = (recorder.taken().len(), rows(&test).await);
    assert!((5..=8).contains(&tries) && state == format!("failed {tries}"), "{tries} {state}");
    assert_eq!(test.look::<String>("SELECT reason FROM mails").await, "not now");
    let now = test.services().clock().now().to_rfc3339();
    let young = format!(
        "status = 'pending', finished_at = NULL, attempts = 8, created_at = '{now}', due_at = '{now}'"
    );
    test.execute(&format!("UPDATE mails SET {young}")).await;
    send(&test.services().mails, &post).await;
    assert_eq!(
        (recorder.taken().len(), rows(&test).await.as_str()),
        (tries, "failed 9"),
        "one that killed eight"
    );
}

#[tokio::test]
async fn a_stopping_control_plane_gives_a_try_up_and_leaves_the_mail_to_others() {
    let test = TestDb::new().await;
    let (acme, friend) = people(&test).await;
    invite(&test, &acme, &friend).await;
    let (recorder, stop) = (Recorder::new(Does::Hang), CancellationToken::new());
    stop.cancel();
    assert_eq!(test.services().mails.send_due(&recorded(&recorder), &stop).await.unwrap(), 1);
    assert_eq!(rows(&test).await, "pending 1");
}

fn smtp(port: u16, password: &str) -> MailOptions {
    let smtp = SmtpOptions {
        host: "127.0.0.1".into(),
        port: Some(port),
        username: Some("mailer".into()),
        password: Some(password.to_owned().into()),
        tls: SmtpTls::None,
        ..SmtpOptions::default()
    };
    MailOptions { from: Some("Tidegate <no-reply@tidegate.example>".into()), smtp }
}

fn open(options: &MailOptions) -> Post {
    options.check(Some(BASE)).unwrap();
    options.open(std::path::Path::new("/nowhere"), BASE).unwrap()
}

#[tokio::test]
async fn a_mail_server_that_cannot_now_is_asked_again_and_gets_the_mail_once() {
    let test = TestDb::new().await;
    let (acme, friend) = people(&test).await;
    invite(&test, &acme, &friend).await;
    let server = MailServer::start(&["451 later"], None).await;
    let post = open(&smtp(server.port, "right"));
    post.check().await.unwrap();
    send(&test.services().mails, &post).await;
    assert_eq!(rows(&test).await, "pending 1");
    assert!(test.look::<String>("SELECT reason FROM mails").await.ends_with("451"));
    test.manual_clock().advance(TimeDelta::minutes(2));
    send(&test.services().mails, &post).await;
    assert_eq!(rows(&test).await, "sent 2");
    let (commands, mails) = (server.commands(), server.mails());
    for wanted in [
        "EHLO tidegate.example",
        "AUTH PLAIN AG1haWxlcgByaWdodA==",
        "MAIL FROM:<no-reply@tidegate.example>",
        "RCPT TO:<friend@example.com>",
    ] {
        assert!(commands.iter().any(|command| command.starts_with(wanted)), "{wanted} in {commands:?}");
    }
    assert_eq!((mails.len(), header(&mails[0], "Message-ID")), (2, header(&mails[1], "Message-ID")));
}

#[tokio::test]
async fn a_mail_that_the_server_refuses_for_good_is_given_up_and_a_wrong_password_is_not() {
    let test = TestDb::new().await;
    let (acme, friend) = people(&test).await;
    let server = MailServer::start(&["550 friend@example.com is nobody"], None).await;
    invite(&test, &acme, &friend).await;
    send(&test.services().mails, &open(&smtp(server.port, "wrong"))).await;
    let reason: String = test.look("SELECT reason FROM mails").await;
    assert_eq!((rows(&test).await.as_str(), reason.ends_with("535")), ("pending 1", true), "{reason}");
    test.manual_clock().advance(TimeDelta::minutes(2));
    send(&test.services().mails, &open(&smtp(server.port, "right"))).await;
    let reason: String = test.look("SELECT reason FROM mails").await;
    assert_eq!((rows(&test).await.as_str(), reason.ends_with("550")), ("failed 2", true), "{reason}");
    assert!(!reason.contains("friend"), "{reason}");
}

#[tokio::test]
async fn nothing_goes_to_a_mail_server_that_cannot_prove_itself_or_does_not_encrypt() {
    let (ca, other) = (TestCa::new("mail"), TestCa::new("other"));
    let server = MailServer::start(&[], Some(&ca.issue(&["localhost"]))).await;
    let plain = MailServer::start(&[], None).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    let now = TestDb::new().await.services().clock().now();
    let with = |host: &str, port, tls, pem: &str| {
        std::fs::write(&file, pem).unwrap();
        let mut options = smtp(port, "right");
        options.smtp = SmtpOptions { host: host.into(), tls, ca_file: Some(file.clone()), ..options.smtp };
        open(&options)
    };
    let trusted = with("localhost", server.port, SmtpTls::Required, &ca.pem());
    trusted.test("somebody@example.com", now).await.unwrap();
    assert_eq!((server.mails().len(), server.commands().len() > 4), (1, true));
    for (host, port, tls, pem) in [
        ("localhost", server.port, SmtpTls::Required, other.pem()),
        ("127.0.0.1", server.port, SmtpTls::Required, ca.pem()),
        ("localhost", plain.port, SmtpTls::Required, ca.pem()),
        ("localhost", plain.port, SmtpTls::Starttls, ca.pem()),
    ] {
        let refused = with(host, port, tls, &pem).test("somebody@example.com", now).await.unwrap_err();
        assert!(matches!(refused, MailError::Passing(_)), "{host} {tls:?}: {refused:?}");
    }
    assert_eq!((server.mails().len(), plain.mails().len()), (1, 0));
    assert!(!plain.commands().iter().any(|command| command.starts_with("AUTH")), "{:?}", plain.commands());
    let bad = trusted.test("a@b\r\nRCPT TO:<c@d>", now).await.unwrap_err();
    assert!(matches!(bad, MailError::Final(_)), "{bad:?}");
}

#[test]
fn settings_that_make_no_sense_are_named() {
    let complaints = |from: Option<&str>, smtp: SmtpOptions, public: Option<&str>| {
        let options = MailOptions { from: from.map(str::to_owned), smtp };
        let errors = options.check(public).err().unwrap_or_default();
        errors.iter().map(|(name, _)| name.to_owned()).collect::<Vec<_>>().join(" ")
    };
    let server = |host: &str| SmtpOptions { host: host.into(), ..SmtpOptions::default() };
    let (from, url) = (Some("a@example.com"), Some(BASE));
    assert_eq!(complaints(None, SmtpOptions::default(), None), "");
    assert_eq!(complaints(from, server("mail.example.com"), url), "");
    assert_eq!(complaints(None, server("mail.example.com"), None), "mail.from public_url");
    assert_eq!(complaints(Some("a\r\nBcc: b@c <a@b>"), SmtpOptions::default(), None), "mail.from");
    let plain = |host| SmtpOptions { tls: SmtpTls::None, ..server(host) };
    assert_eq!(complaints(from, plain("localhost"), url), "");
    assert_eq!(complaints(from, plain("127.0.0.1"), url), "");
    assert_eq!(complaints(from, plain("mail.example.com"), url), "mail.smtp.tls");
    assert_eq!(complaints(from, plain("127.0.0.1.example.com"), url), "mail.smtp.tls");
    let named = SmtpOptions { username: Some("a".into()), ..server("m") };
    assert_eq!(complaints(from, named.clone(), url), "mail.smtp.password_file");
    let secret = Some(tidegate_model::Secret::new("x".to_owned()));
    let both = SmtpOptions { password: secret.clone(), password_file: Some("/f".into()), ..named };
    assert_eq!(complaints(from, both, url), "mail.smtp.password");
    let nobodys = SmtpOptions { password: secret.clone(), ..server("m") };
    assert_eq!(complaints(from, nobodys, url), "mail.smtp.username");
    let lost = SmtpOptions { password: secret, ..SmtpOptions::default() };
    assert_eq!(complaints(None, lost, None), "mail.smtp.host");
    let slow = SmtpOptions { timeout_seconds: 0, ..server("m x") };
    assert_eq!(complaints(from, slow, url), "mail.smtp.host mail.smtp.timeout_seconds");
}
