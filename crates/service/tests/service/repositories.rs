//! Syncing repositories of this machine: what the catalog becomes, and what it stays.

use std::{path::PathBuf, process::Command, sync::Arc};

use chrono::TimeDelta;
use serde_json::json;
use tempfile::TempDir;
use tidegate_model::{
    AddRepositoryRequest, Clock, FromFields, Repository, RepositoryId, RepositorySyncStatus,
    UpdateRepositoryRequest,
};
use tidegate_service::{
    Caller, Error, FetchOptions, Made, Options, Paging, Repositories, RepositoryOptions, Services, SyncEnd,
};
use tidegate_test_support::TestDb;
use tokio_util::sync::CancellationToken;

struct Stage {
    folder: TempDir,
    test: TestDb,
    services: Services,
    console: Caller,
}

fn template(name: &str, text: &str) -> String {
    format!(
        "apiVersion: tidegate.dev/v1\nkind: Template\nmetadata: {{name: {name}}}\nspec:\n  description: {text}\n  \
         appType: terminal\n  command: [bash]\n"
    )
}

fn plugin(version: &str) -> String {
    format!(r#"{{"name": "p", "version": "{version}", "type": "webhook", "icon": "icon.svg"}}"#)
}

impl Stage {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut RepositoryOptions)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let test = TestDb::new().await;
        let fetch = FetchOptions { local_folders: vec![folder.path().to_owned()], ..FetchOptions::default() };
        let cache_dir = Some(folder.path().join("cache"));
        let mut repositories = RepositoryOptions { fetch, cache_dir, ..RepositoryOptions::default() };
        change(&mut repositories);
        let options = Options { repositories, failures_per_source: 10, ..TestDb::options() };
        let clock = Arc::clone(test.manual_clock());
        let services = test.services_with_clock(options, clock);
        let stage = Self { folder, test, services, console: Caller::console() };
        std::fs::create_dir(stage.work()).unwrap();
        stage.git(&["init", "--quiet", "--initial-branch=main"]);
        stage
    }

    fn work(&self) -> PathBuf {
        self.folder.path().join("work")
    }

    fn git(&self, arguments: &[&str]) {
        let ended = Command::new("git")
            .args(["-c", "user.name=t", "-c", "user.email=t@example.org"])
            .args(arguments)
            .current_dir(self.work())
            .status();
        assert!(ended.unwrap().success());
    }

    fn commit(&self, files: &[(&str, &str)]) {
        for (path, content) in files {
            let path = self.work().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        self.git(&["add", "-A"]);
        self.git(&["commit", "--quiet", "--allow-empty", "-m", "x"]);
    }

    fn repositories(&self) -> &Repositories {
        &self.services.repositories
    }

    async fn add(&self, more: serde_json::Value) -> Repository {
        let mut body = json!({"name": "ours", "url": self.work().to_str().unwrap()});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let request = AddRepositoryRequest::from_json(body).unwrap();
        match self.repositories().add(&self.console, request, None, |made| json!(made)).await.unwrap() {
            Made::New(made) => made,
            Made::Replay(_) => panic!("nothing was repeated"),
        }
    }

    async fn sync(&self, id: RepositoryId) -> SyncEnd {
        let stop = CancellationToken::new();
        self.repositories().sync_now(&self.console, id, &stop, &|_| {}).await.unwrap().end
    }

    async fn get(&self, id: RepositoryId) -> Repository {
        self.repositories().get(&self.console, id).await.unwrap()
    }

    async fn change(&self, id: RepositoryId, body: serde_json::Value) -> Result<Repository, Error> {
        let request = UpdateRepositoryRequest::from_json(body).unwrap();
        self.repositories().change(&self.console, id, request).await
    }
}

#[tokio::test]
async fn a_sync_keeps_ids_and_writes_versions_icons_and_packages() {
    let stage = Stage::new().await;
    stage.commit(&[
        ("a.yaml", &template("a", "first")),
        ("b.yaml", &template("b", "first")),
        ("p/plugin.json", &plugin("1.0.0")),
        ("p/icon.svg", "<svg xmlns='http://www.w3.org/2000/svg'/>"),
        ("p/CHANGELOG.md", "## 1.0.0\n- first\n"),
        ("bad.yaml", "kind: Template\napiVersion: tidegate.dev/v1\nname: ../bad\n"),
    ]);
    let id = stage.add(json!({})).await.public.id;
    let end = stage.sync(id).await;
    assert!(
        matches!(end, SyncEnd::Synced { templates: 2, plugins: 1, changed: 3, problems: 1, .. }),
        "{end:?}"
    );
    let problems = stage.repositories().problems(&stage.console, id).await.unwrap();
    assert_eq!((problems[0].path.as_str(), problems[0].line), ("bad.yaml", Some(3)));
    let first = stage.test.template_id(id, "a").await;
    let again = stage.sync(id).await;
    assert!(matches!(again, SyncEnd::Synced { changed: 0, withdrawn: 0, .. }), "{again:?}");
    std::fs::remove_file(stage.work().join("b.yaml")).unwrap();
    stage.commit(&[
        ("a.yaml", &template("a", "second")),
        ("p/plugin.json", &plugin("1.1.0")),
        ("p/CHANGELOG.md", "## 1.1.0\n- second\n## 1.0.0\n- first\n"),
    ]);
    let end = stage.sync(id).await;
    assert!(matches!(end, SyncEnd::Synced { templates: 1, changed: 2, withdrawn: 1, .. }), "{end:?}");
    assert_eq!(stage.test.template_id(id, "a").await, first);
    let versions: String = stage
        .test
        .look("SELECT string_agg(version || ':' || changelog, ' ' ORDER BY version) FROM plugin_versions")
        .await;
    assert_eq!(versions, "1.0.0:- first 1.1.0:- second");
    let icons: i64 = stage.test.look("SELECT count(*) FROM catalog_plugins p JOIN catalog_blobs b ON b.digest = p.icon WHERE b.media_type = 'image/svg+xml'").await;
    assert_eq!(icons, 1);
    let withdrawn: i64 = stage
        .test
        .look("SELECT count(*) FROM catalog_templates WHERE withdrawn_at IS NOT NULL AND name = 'b'")
        .await;
    assert_eq!(withdrawn, 1);
    // Back again, it is what it was.
    stage.commit(&[("b.yaml", &template("b", "first"))]);
    assert!(matches!(stage.sync(id).await, SyncEnd::Synced { templates: 2, changed: 1, .. }));
}

#[tokio::test]
async fn a_failed_sync_keeps_the_catalog_and_says_why() {
    let stage = Stage::new().await;
    stage.commit(&[("a.yaml", &template("a", "first"))]);
    let id = stage.add(json!({})).await.public.id;
    stage.sync(id).await;
    std::fs::rename(stage.work(), stage.folder.path().join("away")).unwrap();
    let end = stage.sync(id).await;
    assert_eq!(end, SyncEnd::Failed { reason: "there is no folder at this path".into() });
    let now = stage.get(id).await;
    assert_eq!((now.sync_status, now.templates), (RepositorySyncStatus::Failed, 1));
    assert_eq!(now.sync_error.as_deref(), Some("there is no folder at this path"));
    let shown: i64 =
        stage.test.look("SELECT count(*) FROM catalog_templates WHERE withdrawn_at IS NULL").await;
    assert_eq!(shown, 1);
}

#[tokio::test]
async fn what_is_due_is_synced_once_and_then_when_its_time_has_come() {
    let stage = Stage::new().await;
    stage.commit(&[("a.yaml", &template("a", "first"))]);
    let id = stage.add(json!({})).await.public.id;
    let stop = CancellationToken::new();
    let due = async || stage.repositories().sync_due(&stop).await.unwrap().map(|report| report.id);
    assert_eq!(due().await, Some(id));
    assert_eq!(due().await, None);
    stage.test.manual_clock().advance(TimeDelta::minutes(53));
    assert_eq!(due().await, None);
    stage.test.manual_clock().advance(TimeDelta::minutes(14));
    assert_eq!(due().await, Some(id));
    stage.test.manual_clock().advance(TimeDelta::seconds(1));
    let asked = stage.repositories().request_sync(&stage.console, id).await.unwrap();
    assert!(asked.requested);
    assert!(!stage.repositories().request_sync(&stage.console, id).await.unwrap().requested);
    stage.test.manual_clock().advance(TimeDelta::seconds(1));
    assert_eq!(due().await, Some(id));
    assert_eq!(due().await, None);
    stage.change(id, json!({"enabled": false})).await.unwrap();
    stage.test.manual_clock().advance(TimeDelta::hours(3));
    assert_eq!(due().await, None);
}

#[tokio::test]
async fn a_sync_whose_lease_is_over_writes_nothing_and_another_one_takes_over() {
    let stage = Stage::new().await;
    stage.commit(&[("a.yaml", &template("a", "first"))]);
    let id = stage.add(json!({})).await.public.id;
    // A control plane that was killed in the middle: its lease is still there.
    let now = stage.test.manual_clock().now();
    let killed = format!(
        "UPDATE repositories SET sync_status = 'syncing', lease_holder = gen_random_uuid(),
           lease_until = '{}', next_sync_at = '{}'",
        (now + TimeDelta::minutes(1)).to_rfc3339(),
        (now + TimeDelta::days(1)).to_rfc3339()
    );
    stage.test.execute(&killed).await;
    let stop = CancellationToken::new();
    let now = stage.repositories().sync_now(&stage.console, id, &stop, &|_| {}).await.unwrap_err();
    assert!(matches!(now, Error::Conflict { code: "E_SYNC_RUNNING", .. }), "{now}");
    assert!(stage.repositories().sync_due(&stop).await.unwrap().is_none());
    stage.test.manual_clock().advance(TimeDelta::minutes(5));
    assert!(stage.repositories().sync_due(&stop).await.unwrap().is_some());
    assert_eq!(stage.get(id).await.sync_status, RepositorySyncStatus::Synced);
    // So slow that its lease ends while it reads.
    stage.commit(&[("a.yaml", &template("a", "second"))]);
    let clock = Arc::clone(stage.test.manual_clock());
    let progress = move |step| {
        if let tidegate_service::SyncStep::Reading { done: 0, .. } = step {
            clock.advance(TimeDelta::minutes(5));
        }
    };
    let end = stage.repositories().sync_now(&stage.console, id, &stop, &progress).await.unwrap().end;
    assert_eq!(end, SyncEnd::Overtaken);
    let text: String = stage.test.look("SELECT description FROM catalog_templates WHERE name = 'a'").await;
    assert_eq!(text, "first");
    assert!(stage.repositories().sync_due(&stop).await.unwrap().is_some());
    let text: String = stage.test.look("SELECT description FROM catalog_templates WHERE name = 'a'").await;
    assert_eq!(text, "second");
}

#[tokio::test]
async fn what_the_database_cannot_hold_spoils_its_own_file_alone() {
    let stage = Stage::new().await;
    let nul = r#"{"name": "q", "version": "1.0.0", "type": "webhook", "defaultConfig": {"a": ["\u0000"]}}"#;
    let long = (0..4_000).fold("1.0.0-x".to_owned(), |text, n: u32| text + &n.to_string());
    stage.commit(&[
        ("a.yaml", &template("a", "first")),
        ("b.yaml", &format!("{}  options: {{\"x\\0\": 1}}\n", template("b", "first"))),
        ("p/plugin.json", &plugin(&long)),
        ("q/plugin.json", nul),
    ]);
    let id = stage.add(json!({})).await.public.id;
    let stop = CancellationToken::new();
    let end = stage.repositories().sync_now(&stage.console, id, &stop, &|_| {}).await.unwrap().end;
    assert!(matches!(end, SyncEnd::Synced { templates: 1, plugins: 0, problems: 3, .. }), "{end:?}");
    let problems = stage.repositories().problems(&stage.console, id).await.unwrap();
    let named: Vec<_> = problems
        .iter()
        .map(|it| (it.path.as_str(), it.reason.split(':').next().unwrap_or_default()))
        .collect();
    assert_eq!(
        named,
        [("b.yaml", "options"), ("p/plugin.json", "version"), ("q/plugin.json", "defaultConfig")]
    );
}

#[tokio::test]
async fn only_so_many_problems_are_kept_whatever_they_are_about() {
    let stage = Stage::new().await;
    let with_icon = |n| format!("{}  icon: icon.txt\n", template(&format!("t{n}"), "x"));
    let many: Vec<(String, String)> = (0..250).map(|n| (format!("{n}.yaml"), with_icon(n))).collect();
    let mut files: Vec<(&str, &str)> =
        many.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    files.push(("icon.txt", "no picture"));
    stage.commit(&files);
    let id = stage.add(json!({})).await.public.id;
    let end = stage.sync(id).await;
    assert!(matches!(end, SyncEnd::Synced { templates: 250, problems: 201, .. }), "{end:?}");
    let problems = stage.repositories().problems(&stage.console, id).await.unwrap();
    assert_eq!(problems.last().unwrap().reason, "50 more problems are not listed");
    assert_eq!((problems.len(), stage.get(id).await.problems), (201, 201));
}

#[tokio::test]
async fn a_folder_that_a_sync_before_still_works_in_is_waited_for() {
    let stage = Stage::new().await;
    stage.commit(&[("a.yaml", &template("a", "first"))]);
    let id = stage.add(json!({})).await.public.id;
    stage.sync(id).await;
    // What git of a sync that was overtaken, or of a process that was killed, holds until it is gone.
    let held = std::fs::File::open(stage.folder.path().join(format!("cache/{id}/lock"))).unwrap();
    held.lock().unwrap();
    let stop = CancellationToken::new();
    stage.test.manual_clock().advance(TimeDelta::seconds(1));
    stage.repositories().request_sync(&stage.console, id).await.unwrap();
    stage.test.manual_clock().advance(TimeDelta::seconds(1));
    stage.repositories().sync_due(&stop).await.unwrap().unwrap();
    assert_eq!(stage.get(id).await.sync_status, RepositorySyncStatus::Syncing);
    assert!(stage.repositories().sync_due(&stop).await.unwrap().is_none(), "not at once");
    drop(held);
    stage.test.manual_clock().advance(TimeDelta::seconds(61));
    let end = stage.repositories().sync_due(&stop).await.unwrap().map(|report| report.end);
    assert!(matches!(end, Some(SyncEnd::Synced { .. })), "{end:?}");
}

#[tokio::test]
async fn a_sync_that_lost_its_lease_ends_although_its_server_hangs() {
    let stage = Stage::with(|options| {
        options.lease_seconds = 3;
        options.fetch.private_networks = vec!["127.0.0.0/8".parse().unwrap()];
    })
    .await;
    let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hangs = format!("http://{}/x.zip", server.local_addr().unwrap());
    let id = stage.add(json!({"type": "http", "url": hangs})).await.public.id;
    let stop = CancellationToken::new();
    let (syncing, change) = tokio::join!(stage.repositories().sync_due(&stop), async {
        let asked = server.accept().await.unwrap();
        stage.change(id, json!({"url": format!("{hangs}?again")})).await.unwrap();
        asked
    });
    // Nobody answered.
    drop(change);
    assert_eq!(syncing.unwrap().unwrap().end, SyncEnd::Overtaken);
}

#[tokio::test]
async fn a_stopped_sync_is_still_due() {
    let stage = Stage::new().await;
    stage.commit(&[("a.yaml", &template("a", "first"))]);
    stage.add(json!({})).await;
    let stop = CancellationToken::new();
    stop.cancel();
    let end = stage.repositories().sync_due(&stop).await.unwrap().unwrap().end;
    // It may have been fast enough.
    if end == SyncEnd::GivenUp {
        let end = stage.repositories().sync_due(&CancellationToken::new()).await.unwrap().unwrap().end;
        assert!(matches!(end, SyncEnd::Synced { templates: 1, .. }));
    } else {
        assert!(matches!(end, SyncEnd::Synced { templates: 1, .. }), "{end:?}");
    }
}

#[tokio::test]
async fn secrets_are_sealed_never_shown_and_not_taken_to_another_server() {
    let stage = Stage::new().await;
    let body = json!({"name": "far", "url": "https://git.example.org/a", "authType": "token", "token": "t0p-s3cret",
        "webhookSecret": "sixteen characters"});
    let request = AddRepositoryRequest::from_json(body).unwrap();
    let Made::New(made) =
        stage.repositories().add(&stage.console, request, None, |made| json!(made)).await.unwrap()
    else {
        panic!("nothing was repeated")
    };
    let id = made.public.id;
    assert!(made.has_webhook_secret);
    assert!(!json!(made).to_string().contains("s3cret"));
    let bytes: Vec<u8> = stage.test.look("SELECT secret FROM repositories").await;
    assert!(!String::from_utf8_lossy(&bytes).contains("s3cret"));
    let moved = stage.change(id, json!({"url": "https://evil.example.org/a"})).await.unwrap_err();
    assert!(
        matches!(&moved, Error::Invalid(errors) if errors.iter().any(|(name, _)| name == "url")),
        "{moved}"
    );
    stage.change(id, json!({"url": "https://git.example.org/b"})).await.unwrap();
    let audit: String =
        stage.test.look("SELECT string_agg(concat(before, after, detail), ' ') FROM audit_log").await;
    assert!(audit.contains("git.example.org/b") && !audit.contains("s3cret"), "{audit}");
}

#[tokio::test]
async fn an_archives_secret_is_not_taken_to_another_server_whatever_its_address_asks() {
    let stage = Stage::new().await;
    let far = "https://files.example.org/a.zip?ref=main";
    let id =
        stage.add(json!({"type": "http", "url": far, "authType": "token", "token": "t"})).await.public.id;
    let moved = stage.change(id, json!({"url": "https://evil.example.org/a.zip?ref=main"})).await;
    assert!(
        matches!(&moved, Err(Error::Invalid(errors)) if errors.iter().any(|(name, _)| name == "url")),
        "{moved:?}"
    );
    stage.change(id, json!({"url": "https://files.example.org/a.zip?ref=1.0"})).await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_a_repository_is_refused_with_every_bad_field() {
    let stage = Stage::new().await;
    for (body, fields) in [
        (json!({"name": "x", "url": "ext::sh -c id"}), vec!["url"]),
        (json!({"name": "x", "url": "/etc", "branch": "--upload-pack=x"}), vec!["branch", "url"]),
        (json!({"name": "x", "url": "git@host:x"}), vec!["authType"]),
        (json!({"name": "x", "url": "https://h/x", "authType": "basic", "username": "u"}), vec!["password"]),
        (json!({"name": "x", "url": "https://h/x", "type": "http", "branch": "main"}), vec!["branch"]),
        (json!({"name": "x", "url": "https://h/x", "token": "t"}), vec!["token"]),
    ] {
        let request = AddRepositoryRequest::from_json(body.clone()).unwrap();
        let refused =
            stage.repositories().add(&stage.console, request, None, |made| json!(made)).await.unwrap_err();
        let Error::Invalid(errors) = refused else { panic!("{body}: {refused}") };
        assert_eq!(errors.iter().map(|(name, _)| name).collect::<Vec<_>>(), fields, "{body}");
    }
}

#[tokio::test]
async fn a_webhook_asks_for_a_sync_when_its_signature_fits() {
    let stage = Stage::new().await;
    let id = stage.add(json!({"webhookSecret": "It's a Secret to Everybody"})).await.public.id;
    let signature = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
    let webhook = async |id, body: &[u8], signature| {
        stage.repositories().webhook(id, body, signature, Some("192.0.2.1".parse().unwrap())).await
    };
    for refused in [
        webhook(id, b"Hello, World?", Some(signature)).await,
        webhook(id, b"Hello, World!", None).await,
        webhook(RepositoryId::from_number(999), b"Hello, World!", Some(signature)).await,
    ] {
        assert!(matches!(refused, Err(Error::Unauthenticated(_))));
    }
    assert!(webhook(id, b"Hello, World!", Some(signature)).await.unwrap().requested);
    let mut limited = false;
    for _ in 0..50 {
        limited |= matches!(webhook(id, b"x", Some(signature)).await, Err(Error::RateLimited(_)));
    }
    assert!(limited);
}

#[tokio::test]
async fn a_removed_repository_is_gone_with_its_entries_and_its_name_is_free() {
    let stage = Stage::new().await;
    stage.commit(&[("a.yaml", &template("a", "first"))]);
    let id = stage.add(json!({})).await.public.id;
    stage.sync(id).await;
    stage.repositories().remove(&stage.console, id).await.unwrap();
    assert!(matches!(stage.repositories().get(&stage.console, id).await, Err(Error::NotFound(_))));
    assert!(matches!(stage.repositories().remove(&stage.console, id).await, Err(Error::NotFound(_))));
    let shown: i64 =
        stage.test.look("SELECT count(*) FROM catalog_templates WHERE withdrawn_at IS NULL").await;
    assert_eq!(shown, 0);
    let second = stage.add(json!({})).await;
    assert_ne!(second.public.id, id);
    let listed =
        stage.repositories().list(&stage.console, &Paging { limit: 10, cursor: None }).await.unwrap();
    assert_eq!((listed.items.len(), listed.total), (1, 1));
    let taken = AddRepositoryRequest::from_json(json!({"name": "OURS", "url": "https://h/x"})).unwrap();
    let refused =
        stage.repositories().add(&stage.console, taken, None, |made| json!(made)).await.unwrap_err();
    assert!(matches!(refused, Error::Conflict { .. }), "{refused}");
}
