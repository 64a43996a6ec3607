//! The catalog as people use it: searched, looked at, rated, by many at once.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use serde_json::{Value, json};
use tidegate_model::{AppType, CatalogPluginId, CatalogSort, OrgRole, PluginType, RateRequest, RepositoryId};
use tidegate_service::{Caller, CatalogSearch, Error, Paging};
use tidegate_test_support::{
    TestDb,
    catalog::{plugin, template},
};

fn page(limit: u32, cursor: Option<String>) -> Paging {
    Paging { limit, cursor }
}

fn looking_for(text: &str) -> CatalogSearch {
    CatalogSearch { text: Some(text.into()), ..CatalogSearch::default() }
}

fn stars(rating: u8) -> RateRequest {
    RateRequest { rating, review: String::new() }
}

/// A repository with a few templates and plugins, and somebody who looks.
async fn stocked() -> (TestDb, Caller, RepositoryId) {
    let test = TestDb::new().await;
    let org = test.org_with_admin("acme").await;
    let of = test.repository("official").await;
    let made = |name: &str, more: Value| template(name, &more);
    let templates = [
        made(
            "firefox-browser",
            json!({"displayName": "Firefox", "category": "Web Browsers", "tags": ["Browser", "web"],
            "description": "Mozilla's browser for surfing privately"}),
        ),
        made(
            "chromium",
            json!({"displayName": "Chromium", "category": "Web Browsers", "tags": ["browser"],
            "description": "The open browser that others are made of"}),
        ),
        made("gimp", json!({"displayName": "GIMP", "category": "Graphics", "description": "Editing images"})),
        made(
            "ubuntu-shell",
            json!({"displayName": "Ubuntu shell", "category": "Development", "appType": "terminal"}),
        ),
    ];
    let plugins = [
        plugin(
            "analytics-advanced",
            &json!({"displayName": "Advanced Analytics", "type": "api", "category": "Analytics"}),
        ),
        plugin("dark-theme", &json!({"displayName": "Dark", "type": "theme"})),
    ];
    test.sync(of, &templates, &plugins).await;
    (test, org.admin, of)
}

async fn names(test: &TestDb, caller: &Caller, search: CatalogSearch) -> Vec<String> {
    let found = test.services().catalog.templates(caller, search, None, &page(50, None)).await.unwrap();
    assert_eq!((found.total, found.total_is_exact), (i64::try_from(found.items.len()).unwrap(), true));
    found.items.into_iter().map(|template| template.name).collect()
}

#[tokio::test]
async fn a_search_finds_words_their_beginnings_stems_and_what_is_nearly_the_same() {
    let (test, caller, _) = stocked().await;
    for (text, first) in [
        ("firefox", "firefox-browser"),
        ("FIREFOX", "firefox-browser"),
        ("firefox-browser", "firefox-browser"),
        ("firef", "firefox-browser"),
        ("firfox", "firefox-browser"),
        ("chromuim", "chromium"),
        ("surf", "firefox-browser"),
        ("privately", "firefox-browser"),
        ("image editing", "gimp"),
        ("edits", "gimp"),
        ("chrom", "chromium"),
        ("shell", "ubuntu-shell"),
        ("graphics", "gimp"),
    ] {
        let found = names(&test, &caller, looking_for(text)).await;
        assert_eq!(found.first().map(String::as_str), Some(first), "{text}: {found:?}");
    }
    assert_eq!(names(&test, &caller, looking_for("browser")).await.len(), 2);
    assert_eq!(names(&test, &caller, looking_for("nothing of the kind")).await, [""; 0]);
}

#[tokio::test]
async fn of_what_all_entries_have_the_one_that_is_called_so_is_first_and_then_the_most_popular() {
    let test = TestDb::new().await;
    let org = test.org_with_admin("acme").await;
    let of = test.repository("official").await;
    test.sync(of, &[template("tide", &json!({"displayName": "Tide", "description": "x"}))], &[]).await;
    test.execute(
        "INSERT INTO catalog_templates (repository_id, name, display_name, description, category, app_type, platforms, tags, manifest,
            digest, created_at, updated_at)
         SELECT repository_id, 'tide-' || g, 'Tide ' || g, description, category, app_type, platforms, tags,
            jsonb_set(manifest, '{name}', to_jsonb('tide-' || g)), digest, created_at, updated_at
         FROM catalog_templates, generate_series(1, 10050) g;
         INSERT INTO template_stats (template_id, install_count, updated_at)
         SELECT id, id % 100, now() FROM catalog_templates WHERE name <> 'tide';
         ANALYZE catalog_templates, template_stats",
    )
    .await;
    let popular: String = test
        .look(
            "SELECT string_agg(name, ' ') FROM (SELECT name FROM catalog_templates JOIN template_stats ON template_id = id
             ORDER BY install_count DESC, id DESC LIMIT 9) e",
        )
        .await;
    let (services, mut seen, mut cursor) = (test.services(), Vec::new(), None);
    for _ in 0..2 {
        let paging = page(5, cursor.take());
        let found = services.catalog.templates(&org.admin, looking_for("tide"), None, &paging).await.unwrap();
        assert_eq!((found.total, found.total_is_exact), (10_000, false));
        seen.extend(found.items.into_iter().map(|it| it.name));
        cursor = found.next_cursor;
    }
    assert_eq!(seen.join(" "), format!("tide {popular}"));
}

#[tokio::test]
async fn hostile_texts_find_nothing_and_break_nothing() {
    let (test, caller, _) = stocked().await;
    let catalog = &test.services().catalog;
    for text in [
        "'",
        "''",
        "\\",
        "\\'",
        "!",
        "&",
        "|",
        "<->",
        ":*",
        "'a' & !'b'",
        "(((",
        "a:b:c:*",
        "%",
        "_",
        "?",
        "$1",
        "'; DROP TABLE catalog_templates; --",
        "\u{202e}",
        "\u{1f980}",
        "ñandú",
        "漢字",
        "a\tb\nc",
        "<% %>",
        "\u{0301}\u{0301}",
        "-",
        "\"unclosed",
        "or",
        "and not",
        "the of",
    ] {
        let found = catalog.templates(&caller, looking_for(text), None, &page(50, None)).await;
        assert!(found.is_ok(), "{text:?}: {found:?}");
        let filter = CatalogSearch {
            category: Some(text.chars().take(64).collect()),
            tag: Some(text.chars().take(64).collect()),
            ..CatalogSearch::default()
        };
        let found = catalog.plugins(&caller, filter, None, &page(50, None)).await.unwrap();
        assert_eq!(
            (found.items.len(), found.total),
            (0, if text.trim().is_empty() { 2 } else { 0 }),
            "{text:?}"
        );
    }
    let words = "a ".repeat(100);
    catalog.templates(&caller, looking_for(&words), None, &page(50, None)).await.unwrap();
    let long = CatalogSearch {
        text: Some("x".repeat(201)),
        category: Some("x".repeat(65)),
        tag: Some("x".repeat(65)),
        sort: None,
    };
    let Err(Error::Invalid(errors)) = catalog.templates(&caller, long, None, &page(50, None)).await else {
        panic!()
    };
    assert_eq!(errors.iter().map(|(field, _)| field).collect::<Vec<_>>(), ["category", "search", "tag"]);
    for cursor in ["", "x", "bmFtZQ", "bmFtZSAxIDIgMyA", "\u{0}"] {
        let asked =
            catalog.templates(&caller, CatalogSearch::default(), None, &page(50, Some(cursor.into()))).await;
        assert!(matches!(asked, Err(Error::Invalid(_))), "{cursor:?}: {asked:?}");
    }
}

#[tokio::test]
async fn filters_narrow_and_every_order_is_its_own() {
    let (test, caller, of) = stocked().await;
    let catalog = &test.services().catalog;
    let all = async |sort: CatalogSort| {
        names(&test, &caller, CatalogSearch { sort: Some(sort), ..CatalogSearch::default() }).await
    };
    assert_eq!(all(CatalogSort::Name).await, ["chromium", "firefox-browser", "gimp", "ubuntu-shell"]);
    let gimp = test.template_id(of, "gimp").await;
    test.execute(&format!("UPDATE template_stats SET install_count = 9 WHERE template_id = {gimp}")).await;
    catalog.rate_template(&caller, test.template_id(of, "chromium").await, stars(5)).await.unwrap();
    test.execute(
        "UPDATE catalog_templates SET created_at = created_at + interval '1 day' WHERE name = 'ubuntu-shell'",
    )
    .await;
    assert_eq!(all(CatalogSort::Popular).await[0], "gimp");
    assert_eq!(all(CatalogSort::Relevance).await[0], "gimp", "nothing is looked for");
    assert_eq!(all(CatalogSort::Rating).await[0], "chromium");
    assert_eq!(all(CatalogSort::Newest).await[0], "ubuntu-shell");

    let filter = |category: Option<&str>, tag: Option<&str>| CatalogSearch {
        category: category.map(str::to_owned),
        tag: tag.map(str::to_owned),
        sort: Some(CatalogSort::Name),
        ..CatalogSearch::default()
    };
    assert_eq!(
        names(&test, &caller, filter(Some("web browsers"), None)).await,
        ["chromium", "firefox-browser"]
    );
    assert_eq!(names(&test, &caller, filter(None, Some("BROWSER"))).await, ["chromium", "firefox-browser"]);
    assert_eq!(names(&test, &caller, filter(Some("Web Browsers"), Some("web"))).await, ["firefox-browser"]);
    let terminal =
        catalog.templates(&caller, CatalogSearch::default(), Some(AppType::Terminal), &page(50, None)).await;
    assert_eq!(
        terminal.unwrap().items.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(),
        ["ubuntu-shell"]
    );
    let themes =
        catalog.plugins(&caller, CatalogSearch::default(), Some(PluginType::Theme), &page(50, None)).await;
    assert_eq!(themes.unwrap().items.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["dark-theme"]);
    let found = catalog.plugins(&caller, looking_for("analytic"), None, &page(50, None)).await.unwrap();
    assert_eq!(found.items[0].name, "analytics-advanced");
}

#[tokio::test]
async fn pages_of_every_order_show_everything_once_while_others_come_and_are_rated() {
    let test = TestDb::new().await;
    let org = test.org_with_admin("acme").await;
    let of = test.repository("official").await;
    let many: Vec<_> =
        (0..25).map(|n| template(&format!("tool-{n:02}"), &json!({"displayName": "Same name"}))).collect();
    test.sync(of, &many, &[]).await;
    let catalog = &test.services().catalog;
    for sort in CatalogSort::ALL {
        let search = CatalogSearch { sort: Some(*sort), ..looking_for("tool") };
        let (mut seen, mut cursor, mut pages) = (BTreeSet::new(), None, 0);
        loop {
            let found = catalog.templates(&org.admin, search.clone(), None, &page(7, cursor)).await.unwrap();
            for one in &found.items {
                assert!(seen.insert(one.name.clone()), "{sort}: {} twice", one.name);
            }
            pages += 1;
            if pages == 2 {
                // What sorts behind or before the place where the reader is does not move what is to come.
                let gone = test.template_id(of, &found.items[0].name).await;
                test.execute(&format!("UPDATE catalog_templates SET withdrawn_at = now() WHERE id = {gone}"))
                    .await;
            }
            cursor = found.next_cursor;
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!((seen.len(), pages), (25, 4), "{sort}");
        test.execute("UPDATE catalog_templates SET withdrawn_at = NULL").await;
    }
    let first = catalog.templates(&org.admin, looking_for("tool"), None, &page(7, None)).await.unwrap();
    let by_name = CatalogSearch { sort: Some(CatalogSort::Name), ..looking_for("tool") };
    let other = catalog.templates(&org.admin, by_name, None, &page(7, first.next_cursor)).await;
    assert!(matches!(other, Err(Error::Invalid(_))), "a cursor of one order means nothing in another");
}

#[tokio::test]
async fn what_is_withdrawn_or_of_a_disabled_repository_is_nowhere() {
    let (test, caller, of) = stocked().await;
    let catalog = &test.services().catalog;
    let (template, plugin) = (test.template_id(of, "gimp").await, test.plugin_id(of, "dark-theme").await);
    let hidden = async |why: &str| {
        let not_found = |answer: Result<(), Error>| {
            assert!(matches!(answer, Err(Error::NotFound(_))), "{why}: {answer:?}");
        };
        not_found(catalog.template(&caller, template).await.map(drop));
        not_found(catalog.template_ratings(&caller, template, &page(1, None)).await.map(drop));
        not_found(catalog.rate_template(&caller, template, stars(1)).await.map(drop));
        not_found(catalog.plugin(&caller, plugin).await.map(drop));
        not_found(catalog.versions(&caller, plugin).await.map(drop));
        not_found(catalog.stats(&caller, plugin).await.map(drop));
        not_found(catalog.plugin_ratings(&caller, plugin, &page(1, None)).await.map(drop));
        not_found(catalog.rate_plugin(&caller, plugin, stars(1)).await.map(drop));
        assert!(!names(&test, &caller, looking_for("gimp")).await.contains(&"gimp".to_owned()), "{why}");
        let plugins =
            catalog.plugins(&caller, CatalogSearch::default(), None, &page(50, None)).await.unwrap();
        assert!(plugins.items.iter().all(|one| one.id != plugin), "{why}");
    };
    assert!(
        catalog.template(&caller, template).await.is_ok() && catalog.plugin(&caller, plugin).await.is_ok()
    );
    test.execute("UPDATE catalog_templates SET withdrawn_at = now() WHERE name = 'gimp'").await;
    test.execute("UPDATE catalog_plugins SET withdrawn_at = now() WHERE name = 'dark-theme'").await;
    hidden("withdrawn").await;
    test.execute(
        "UPDATE catalog_templates SET withdrawn_at = NULL; UPDATE catalog_plugins SET withdrawn_at = NULL",
    )
    .await;
    for column in
        ["enabled = false", "enabled = true, synced_at = NULL", "synced_at = now(), removed_at = now()"]
    {
        test.execute(&format!("UPDATE repositories SET {column}")).await;
        hidden(column).await;
    }
}

#[tokio::test]
async fn a_rating_is_changed_and_taken_back_and_the_mean_follows() {
    let (test, caller, of) = stocked().await;
    let catalog = &test.services().catalog;
    let other = test.caller(&test.user_in("acme", OrgRole::User).await).await;
    let id = test.template_id(of, "gimp").await;
    let shown = async || {
        let now = catalog.template(&caller, id).await.unwrap();
        (now.avg_rating, now.rating_count)
    };
    assert_eq!(shown().await, (0.0, 0));
    let review = RateRequest { rating: 2, review: "Too much\nof it".into() };
    let first = catalog.rate_template(&caller, id, review).await.unwrap();
    catalog.rate_template(&other, id, stars(5)).await.unwrap();
    assert_eq!(shown().await, (3.5, 2));
    let second = catalog.rate_template(&caller, id, stars(4)).await.unwrap();
    assert_eq!((second.id, second.said.created_at), (first.id, first.said.created_at), "it is the same one");
    assert_eq!((second.said.user_id, second.said.review.as_str()), (Some(caller.user().user_id()), ""));
    assert_eq!(shown().await, (4.5, 2));
    catalog.unrate_template(&caller, id).await.unwrap();
    assert_eq!(shown().await, (5.0, 1));
    let again = catalog.unrate_template(&caller, id).await;
    assert!(matches!(again, Err(Error::NotFound(_))), "{again:?}");
}

#[tokio::test]
async fn raters_are_known_to_their_own_people_alone() {
    let (test, caller, of) = stocked().await;
    let catalog = &test.services().catalog;
    let rival = test.org_with_admin("rival").await.admin;
    let id = test.plugin_id(of, "dark-theme").await;
    catalog.rate_plugin(&caller, id, stars(5)).await.unwrap();
    catalog.rate_plugin(&rival, id, stars(1)).await.unwrap();
    let colleague = test.caller(&test.user_in("acme", OrgRole::Viewer).await).await;
    let seen = catalog.plugin_ratings(&colleague, id, &page(50, None)).await.unwrap();
    let who: Vec<(u8, Option<&str>)> =
        seen.items.iter().map(|one| (one.said.rating, one.said.user.as_deref())).collect();
    assert_eq!(who, [(1, None), (5, Some(caller.user().username()))]);
    assert!(seen.items[0].said.user_id.is_none());
    let own = catalog.plugin_ratings(&rival, id, &page(1, None)).await.unwrap();
    assert_eq!(own.items[0].said.user_id, Some(rival.user().user_id()));
    let rest = catalog.plugin_ratings(&rival, id, &page(1, own.next_cursor)).await.unwrap();
    assert_eq!((rest.items[0].said.rating, rest.items[0].said.user_id, rest.total), (5, None, 2));
}

#[tokio::test]
async fn ratings_and_views_of_64_callers_at_once_are_counted_exactly() {
    const CALLERS: usize = 64;
    const ROUNDS: u8 = 6;
    let (test, _, of) = stocked().await;
    let plugin: CatalogPluginId = test.plugin_id(of, "dark-theme").await;
    let mut callers = Vec::new();
    for _ in 0..CALLERS {
        callers.push(test.caller(&test.user_in("acme", OrgRole::User).await).await);
    }
    let catalog = &test.services().catalog;
    let storm = callers.iter().enumerate().map(async |(index, caller)| {
        for round in 0..ROUNDS {
            catalog.plugin(caller, plugin).await.unwrap();
            catalog
                .rate_plugin(caller, plugin, stars(1 + (u8::try_from(index).unwrap() + round) % 5))
                .await
                .unwrap();
            if round == 2 {
                catalog.unrate_plugin(caller, plugin).await.unwrap();
            }
            if round % 2 == 0 {
                // As another replica would, while others look and rate.
                catalog.flush_views().await.unwrap();
            }
        }
        if index % 4 == 0 {
            catalog.unrate_plugin(caller, plugin).await.unwrap();
        }
    });
    join_all(storm).await;
    catalog.flush_views().await.unwrap();
    let stats = catalog.stats(&callers[0], plugin).await.unwrap();
    assert_eq!(stats.view_count, i64::try_from(CALLERS).unwrap() * i64::from(ROUNDS));
    let kept: Vec<u8> = (0..CALLERS)
        .filter(|index| index % 4 != 0)
        .map(|index| 1 + (u8::try_from(index).unwrap() + ROUNDS - 1) % 5)
        .collect();
    let sum: i64 = kept.iter().map(|stars| i64::from(*stars)).sum();
    let read: String =
        test.look("SELECT rating_sum || ' ' || rating_count FROM plugin_stats WHERE rating_count > 0").await;
    assert_eq!(read, format!("{sum} {}", kept.len()));
    let rows: String = test.look("SELECT sum(rating) || ' ' || count(*) FROM plugin_ratings").await;
    assert_eq!(rows, read);
}

#[tokio::test]
async fn views_wait_for_a_database_that_is_away() {
    let (test, caller, of) = stocked().await;
    let catalog = &test.services().catalog;
    let plugin = test.plugin_id(of, "dark-theme").await;
    catalog.plugin(&caller, plugin).await.unwrap();
    let outage = test.outage().await;
    catalog.flush_views().await.unwrap_err();
    outage.end().await;
    tidegate_test_support::eventually("they are written", async || catalog.flush_views().await.is_ok()).await;
    assert_eq!(catalog.stats(&caller, plugin).await.unwrap().view_count, 1);
}

#[tokio::test]
async fn what_nobody_refers_to_goes_after_its_time_and_nothing_else() {
    let (test, caller, of) = stocked().await;
    let (catalog, operators) = (&test.services().catalog, &test.services().operators);
    let gone_upstream = test.plugin_id(of, "dark-theme").await;
    catalog.rate_plugin(&caller, gone_upstream, stars(5)).await.unwrap();
    for n in 1..=24 {
        test.sync(of, &[], &[plugin("analytics-advanced", &json!({"version": format!("2.{n}.0")}))]).await;
    }
    let removed = test.repository("removed").await;
    test.sync(removed, &[template("left-over", &json!({}))], &[]).await;
    test.file(tidegate_test_support::catalog::digest(5), "image/png", b"nobody's").await;
    assert!(operators.tidy().await.unwrap().is_empty(), "nothing is old yet");
    test.execute(
        "UPDATE catalog_plugins SET withdrawn_at = now() WHERE name = 'dark-theme';
         UPDATE catalog_templates SET withdrawn_at = now() WHERE name IN ('gimp', 'left-over');
         UPDATE repositories SET removed_at = now() WHERE name = 'removed';
         CREATE OR REPLACE FUNCTION catalog_template_in_use(template bigint) RETURNS boolean LANGUAGE sql STABLE AS
           $$ SELECT EXISTS (SELECT 1 FROM catalog_templates t WHERE t.id = template AND t.name = 'gimp') $$",
    )
    .await;
    // Repositories are written with the database's own time.
    test.manual_clock().advance(chrono::TimeDelta::days(4_000));
    let mut gone = operators.tidy().await.unwrap();
    gone.retain(|(table, _)| {
        ["catalog_templates", "catalog_plugins", "plugin_versions", "repositories", "catalog_blobs"]
            .contains(table)
    });
    assert_eq!(
        gone,
        [
            ("catalog_templates", 1),
            ("catalog_plugins", 1),
            ("plugin_versions", 5),
            ("repositories", 1),
            ("catalog_blobs", 1)
        ]
    );
    let left: String = test.look("SELECT string_agg(name, ' ' ORDER BY name) FROM catalog_templates WHERE withdrawn_at IS NOT NULL").await;
    assert_eq!(left, "gimp", "somebody has it");
    assert_eq!(test.look::<i64>("SELECT count(*) FROM plugin_ratings").await, 0, "with what was said of it");
    assert_eq!(
        test.look::<i64>("SELECT count(*) FROM catalog_blobs").await,
        1,
        "what versions are made of stays"
    );
}
