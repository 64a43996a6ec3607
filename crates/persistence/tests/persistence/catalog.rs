//! The catalog: what a sync writes keeps its ids, people see what is enabled and nothing secret, counts stay exact.

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use serde_json::json;
use tidegate_model::{AppType, BlobDigest, CatalogTemplateId, Clock, RepositoryId, SystemClock};
use tidegate_persistence::{
    Error, Operator,
    catalog::{self, NewBlob, NewPlugin, NewTemplate, PluginViews},
    repository::{self, Ended, Lease},
};
use tidegate_test_support::{
    TestDb,
    catalog::{digest, plugin, template},
};

fn now() -> DateTime<Utc> {
    SystemClock::new().now().trunc_subsecs(6)
}

async fn known(test: &TestDb, repository: RepositoryId) -> catalog::Known {
    let system = Operator::system();
    test.db().in_platform(&system, async |tx| catalog::known(tx, repository).await).await.unwrap()
}

async fn withdraw(test: &TestDb, repository: RepositoryId, templates: &[&str], plugins: &[&str]) -> usize {
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let system = Operator::system();
    let db = test.db();
    let gone = db.in_platform(&system, async |tx| {
        catalog::withdraw(tx, repository, owned(templates), owned(plugins), now()).await
    });
    gone.await.unwrap()
}

#[tokio::test]
async fn ids_counts_and_versions_survive_every_sync() {
    let test = TestDb::new().await;
    let of = test.repository("official").await;
    let other = test.repository("other").await;
    test.sync(of, &[template("a", &json!({})), template("b", &json!({}))], &[plugin("p", &json!({}))]).await;
    test.sync(other, &[template("a", &json!({}))], &[]).await;
    let first = known(&test, of).await;
    assert_eq!(first.templates.keys().collect::<Vec<_>>(), ["a", "b"]);
    test.execute("UPDATE plugin_stats SET install_count = 7").await;

    let changed =
        NewTemplate { digest: vec![2], ..template("a", &json!({"appType": "terminal", "tags": ["New"]})) };
    let upgraded = NewPlugin {
        digest: vec![2],
        changelog: "All of it.".into(),
        ..plugin("p", &json!({"version": "1.1.0", "displayName": "P"}))
    };
    test.sync(of, &[changed], &[upgraded]).await;
    let second = known(&test, of).await;
    assert_eq!(second.templates["a"], (first.templates["a"].0, vec![2], false));
    assert_eq!(second.templates["b"], first.templates["b"]);
    assert_eq!(known(&test, other).await.templates["a"].1, [1], "another repository's is another one");

    let system = Operator::system();
    let (id, stored) = (second.plugins["p"].0, second.templates["a"].0);
    test.db()
        .in_platform(&system, async |tx| {
            let read = catalog::plugin(tx, id).await?;
            assert_eq!((read.plugin.version.to_string(), read.plugin.install_count), ("1.1.0".into(), 7));
            assert_eq!((read.plugin.display_name.as_str(), read.package), ("P", digest(1)));
            let versions = catalog::plugin_versions(tx, id, 10).await?;
            let numbers: Vec<String> = versions.iter().map(|one| one.version.version.to_string()).collect();
            assert_eq!(numbers, ["1.1.0", "1.0.0"]);
            let old = catalog::plugin_version(tx, id, &"1.0.0".parse().unwrap()).await?;
            assert_eq!(
                (old.version.changelog.as_str(), old.version.manifest.display_name.as_str()),
                ("", "p")
            );
            let template = catalog::template(tx, stored).await?.template;
            assert_eq!((template.app_type, template.tags), (AppType::Terminal, vec!["New".to_owned()]));
            assert_eq!(template.repository.name, "official");
            Ok::<(), Error>(())
        })
        .await
        .unwrap();
}

#[tokio::test]
async fn what_is_asked_for_while_a_sync_runs_is_done_after_it_whatever_the_clocks_say() {
    let test = TestDb::new().await;
    let of = test.repository("official").await;
    let (system, db, now) = (Operator::system(), test.db(), now());
    let lease = |until| Lease { holder: uuid::Uuid::new_v4(), until };
    let claim = async |now| {
        let lease = lease(now + TimeDelta::minutes(1));
        let claimed = db.in_platform(&system, async |tx| repository::claim_due(tx, lease, now).await);
        claimed.await.unwrap().map(|_| lease.holder)
    };
    let ask = async |now| {
        db.in_platform(&system, async |tx| repository::request_sync(tx, of, now).await).await.unwrap()
    };
    let end = async |holder, now| {
        let ended = Ended { outcome: Err("away".into()), next: now + TimeDelta::hours(1), now };
        db.in_platform(&system, async |tx| repository::finish(tx, of, holder, ended).await).await.unwrap()
    };
    assert!(ask(now).await);
    // The clock of whoever syncs goes ahead of that of whoever is asked next, and behind that of whoever was first.
    let first = claim(now - TimeDelta::seconds(1)).await.unwrap();
    assert!(ask(now - TimeDelta::seconds(2)).await);
    assert!(!ask(now - TimeDelta::seconds(2)).await, "it has not begun");
    assert!(end(first, now).await);
    let second = claim(now).await.expect("it was asked for after the first began");
    assert!(end(second, now).await);
    assert!(claim(now).await.is_none(), "it was answered");
}

#[tokio::test]
async fn what_is_gone_upstream_is_withdrawn_once_and_comes_back_as_itself() {
    let test = TestDb::new().await;
    let of = test.repository("official").await;
    test.sync(of, &[template("a", &json!({}))], &[plugin("p", &json!({}))]).await;
    let before = known(&test, of).await;
    assert_eq!(withdraw(&test, of, &["a", "never"], &["p"]).await, 2);
    assert_eq!(withdraw(&test, of, &["a"], &["p"]).await, 0);
    let gone = known(&test, of).await;
    assert!(gone.templates["a"].2 && gone.plugins["p"].2);
    test.sync(of, &[template("a", &json!({}))], &[plugin("p", &json!({}))]).await;
    assert_eq!(known(&test, of).await, before);
}

#[tokio::test]
async fn people_and_organizations_see_what_is_enabled_and_the_platform_all() {
    let test = TestDb::new().await;
    let org = test.org_with_admin("acme").await;
    let of = test.repository("official").await;
    test.sync(of, &[template("a", &json!({}))], &[]).await;
    let id = test.template_id(of, "a").await;
    let seen = async || {
        let (db, system) = (test.db(), Operator::system());
        let one = db.in_org(org.admin.org().unwrap(), async |tx| catalog::template(tx, id).await).await;
        let two = db.in_user(org.admin.user(), async |tx| catalog::template(tx, id).await).await;
        let all = db.in_platform(&system, async |tx| catalog::template(tx, id).await).await;
        assert!(all.is_ok());
        assert_eq!(one.is_ok(), two.is_ok());
        assert!(one.is_ok() || matches!(one, Err(Error::NotFound)), "{one:?}");
        one.is_ok()
    };
    assert!(seen().await);
    for (hide, show) in [
        ("enabled = false", "enabled = true"),
        ("synced_at = NULL", "synced_at = now()"),
        ("removed_at = now()", "removed_at = NULL"),
    ] {
        test.execute(&format!("UPDATE repositories SET {hide}")).await;
        assert!(!seen().await, "{hide}");
        test.execute(&format!("UPDATE repositories SET {show}")).await;
        assert!(seen().await, "{show}");
    }
}

#[tokio::test]
async fn no_role_of_people_reads_a_secret_writes_the_catalog_or_makes_counts_up() {
    let test = TestDb::new().await;
    let of = test.repository("official").await;
    test.sync(of, &[template("a", &json!({}))], &[plugin("p", &json!({}))]).await;
    let app = test.app().await;
    for role in ["tidegate_org", "tidegate_user"] {
        for sql in [
            "SELECT secret FROM repositories",
            "SELECT webhook_secret FROM repositories",
            "SELECT * FROM repositories",
            "SELECT 1 FROM repository_problems",
            "UPDATE repositories SET url = 'https://evil.example'",
            "UPDATE catalog_templates SET manifest = '{}'",
            "UPDATE catalog_plugins SET package = icon",
            "UPDATE template_stats SET install_count = 1000000",
            "UPDATE plugin_stats SET rating_sum = 5, rating_count = 1",
            "INSERT INTO plugin_versions (plugin_id) SELECT 1",
            "DELETE FROM catalog_blobs",
        ] {
            app.batch_execute(&format!("SET ROLE {role}")).await.unwrap();
            let refused = app.batch_execute(sql).await.unwrap_err();
            assert_eq!(
                refused.code().map(tokio_postgres::error::SqlState::code),
                Some("42501"),
                "{role}: {sql}"
            );
        }
        let rows = app.query("SELECT digest FROM catalog_blobs", &[]).await.unwrap();
        assert!(rows.is_empty(), "what a plugin is made of is no picture");
    }
}

#[tokio::test]
async fn a_file_is_kept_once_and_pictures_are_for_everybody() {
    let test = TestDb::new().await;
    let org = test.org_with_admin("acme").await;
    let (db, system) = (test.db(), Operator::system());
    let of = |byte: u8, media_type: &str| NewBlob {
        digest: digest(byte),
        media_type: media_type.into(),
        content: vec![byte; 10],
    };
    for _ in 0..2 {
        let blobs = vec![of(3, "image/png"), of(2, "application/x-tar"), of(3, "image/png")];
        db.in_platform(&system, async |tx| catalog::put_blobs(tx, blobs, now()).await).await.unwrap();
    }
    assert_eq!(test.look::<i64>("SELECT count(*) FROM catalog_blobs").await, 2);
    let seen = async |digest: BlobDigest| {
        db.in_user(org.admin.user(), async |tx| catalog::blob(tx, digest).await).await
    };
    assert_eq!(seen(digest(3)).await.unwrap().content, vec![3; 10]);
    assert!(matches!(seen(digest(2)).await, Err(Error::NotFound)));
    let package = db.in_platform(&system, async |tx| catalog::blob(tx, digest(2)).await).await.unwrap();
    assert_eq!(package.media_type, "application/x-tar");
}

#[tokio::test]
async fn installations_and_views_are_added_up() {
    let test = TestDb::new().await;
    let org = test.org_with_admin("acme").await;
    let of = test.repository("official").await;
    test.sync(of, &[template("a", &json!({}))], &[plugin("p", &json!({}))]).await;
    let (template, plugin) = (test.template_id(of, "a").await, test.plugin_id(of, "p").await);
    let (db, system, at) = (test.db(), Operator::system(), now());
    let scope = org.admin.org().unwrap();
    db.in_org(scope, async |tx| catalog::count_template_install(tx, template, at).await).await.unwrap();
    let read = db.in_org(scope, async |tx| catalog::template(tx, template).await).await.unwrap();
    assert_eq!(read.template.install_count, 1);
    let stats = db
        .in_platform(&system, async |tx| {
            catalog::count_plugin_install(tx, plugin, at).await?;
            let views = |views, last| PluginViews { plugin, views, last };
            catalog::count_views(tx, vec![views(3, at)], at).await?;
            // A replica that was slower.
            catalog::count_views(tx, vec![views(2, at - TimeDelta::hours(1))], at).await?;
            catalog::plugin_stats(tx, plugin).await
        })
        .await
        .unwrap();
    assert_eq!((stats.view_count, stats.install_count), (5, 1));
    assert_eq!((stats.last_viewed_at, stats.last_installed_at), (Some(at), Some(at)));
    let nobody = CatalogTemplateId::from_number(i64::MAX);
    db.in_org(scope, async |tx| catalog::count_template_install(tx, nobody, at).await).await.unwrap();
}
