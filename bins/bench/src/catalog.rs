//! The catalog: searches over many entries, and storms of ratings and views whose counts must be exact.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::ensure;
use serde::Serialize;
use tokio::{task::JoinSet, time::sleep};

use crate::{
    credentials::{ASKED, used},
    http::{Connection, request},
    progress::during,
    stage::Stage,
    stats::rate,
};

/// Callers of a storm.
const CALLERS: usize = 64;
/// Requests of each.
const EACH: usize = 100;
/// Connections that search.
const SEARCHERS: u32 = 4;
/// Longest time until views are written down.
const WRITTEN: Duration = Duration::from_secs(15);

/// What searching and storms took.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Catalog {
    /// Entries that there are.
    pub(crate) entries: u32,
    /// Milliseconds of a request that needs a credential and little else, on as many connections: p50 and p99.
    pub(crate) reference: [f64; 2],
    /// Searches a second, everything together.
    pub(crate) per_second: f64,
    /// What was looked for, and milliseconds: p50 and p99.
    pub(crate) searches: Vec<(&'static str, [f64; 2])>,
    /// Views a second of one plugin.
    pub(crate) views: f64,
    /// Ratings a second of one plugin.
    pub(crate) ratings: f64,
}

impl Catalog {
    /// The slowest kind of search: p99.
    pub(crate) fn worst(&self) -> f64 {
        self.searches.iter().map(|(_, [_, p99])| *p99).fold(0.0, f64::max)
    }
}

/// What is looked for: what it is called, and queries.
const LOOKS: &[(&str, &[&str])] = &[
    (
        "one entry by its name",
        &["search=calm-harbour-4711", "search=swift-lantern-123", "search=quiet-anchor-31999"],
    ),
    ("two words", &["search=calm+harbour", "search=bright+compass+editor", "search=deep+tide+terminal"]),
    ("one word of a fortieth of them", &["search=harbour", "search=lantern", "search=compass"]),
    ("one word of all of them", &["search=application", "search=sessions"]),
    ("the beginning of a word", &["search=harb", "search=lanter", "search=anch"]),
    ("a word with a slip", &["search=harbuor", "search=lantren-77", "search=compas"]),
    ("popular, of a category", &["category=Editors", "category=Browsers&sort=rating", "tag=web"]),
    ("everything, by name", &["sort=name", "sort=newest", "sort=popular", "sort=rating"]),
];

/// Fills the catalog, searches it, and lets many look and rate at once.
pub(crate) async fn run(
    stage: &Stage,
    tokens: &[String],
    entries: u32,
    length: Duration,
) -> anyhow::Result<Catalog> {
    during("many catalog entries", fill(stage, entries)).await?;
    let token = &tokens[0];
    let plain = Arc::new(vec![request("GET", ASKED, Some(token), "")]);
    let (_, times, _) =
        during("requests beside the catalog", used(stage, &plain, SEARCHERS, length / 2)).await?;
    let reference = [times.percentile(50), times.percentile(99)];
    let (mut searches, mut count, mut took) = (Vec::new(), 0, Duration::ZERO);
    for (what, queries) in LOOKS {
        let of = |query: &&str| {
            request("GET", &format!("/api/v1/catalog/templates?limit=20&{query}"), Some(token), "")
        };
        let requests = Arc::new(queries.iter().map(of).collect::<Vec<_>>());
        let looking = used(stage, &requests, SEARCHERS, length / 4);
        let (found, times, time) = during(&format!("search: {what}"), looking).await?;
        searches.push((*what, [times.percentile(50), times.percentile(99)]));
        (count, took) = (count + found, took + time);
    }
    let id = stage.numbers("SELECT min(id) FROM catalog_plugins").await?[0];
    let path = format!("/api/v1/plugins/catalog/{id:.0}");
    let views = during("a storm of views", views(stage, tokens, &path)).await?;
    let ratings = during("a storm of ratings", ratings(stage, tokens, &path)).await?;
    Ok(Catalog { entries, reference, per_second: rate(count, took), searches, views, ratings })
}

/// Writes entries as a sync does, by SQL.
async fn fill(stage: &Stage, entries: u32) -> anyhow::Result<()> {
    let sql = format!(
        r#"INSERT INTO repositories (name, url, type, created_at, updated_at, synced_at, sync_status)
            VALUES ('bench', 'https://example.com/bench.git', 'git', now(), now(), now(), 'synced');
        CREATE TEMP TABLE first_words AS SELECT row_number() OVER () - 1 AS n, w FROM unnest(ARRAY['calm', 'swift', 'quiet', 'bright', 'deep', 'amber',
            'coral', 'dusky', 'early', 'frosty', 'gentle', 'hidden', 'inner', 'jolly', 'keen', 'lively', 'mellow', 'noble', 'outer', 'proud',
            'rapid', 'silver', 'tidy', 'upper', 'vivid', 'warm', 'young', 'zesty', 'brisk', 'clear']) w;
        CREATE TEMP TABLE second_words AS SELECT row_number() OVER () - 1 AS n, w FROM unnest(ARRAY['harbour', 'lantern', 'anchor', 'compass', 'tide',
            'beacon', 'canvas', 'delta', 'estuary', 'ferry', 'galley', 'hull', 'island', 'jetty', 'keel', 'lagoon', 'mast', 'narrows', 'ocean',
            'pier', 'quay', 'reef', 'sail', 'tiller', 'undertow', 'vessel', 'wharf', 'yacht', 'buoy', 'cape', 'dock', 'fjord', 'gulf', 'helm',
            'inlet', 'kelp', 'ledge', 'marina', 'oar', 'port']) w;
        WITH made AS (
            INSERT INTO catalog_templates (repository_id, name, display_name, description, category, app_type, platforms, tags, manifest, digest,
                created_at, updated_at)
            SELECT r.id, x.name, initcap(replace(x.name, '-', ' ')), y.said, x.category, x.app_type, ARRAY['docker'], x.tags,
                jsonb_build_object('name', x.name, 'displayName', initcap(replace(x.name, '-', ' ')), 'description', y.said, 'category', x.category,
                    'appType', x.app_type, 'platforms', '["docker"]'::jsonb, 'image', 'registry.example/' || x.name || ':1', 'protocol', 'vnc', 'tags', x.tags),
                '\x01', now() - g * interval '1 second', now()
            FROM repositories r, generate_series(0, {entries} - 1) g
            JOIN first_words a ON a.n = g % 30 JOIN second_words b ON b.n = (g / 30) % 40
            CROSS JOIN LATERAL (SELECT a.w || '-' || b.w || '-' || g AS name,
                (ARRAY['Editors', 'Browsers', 'Graphics', 'Terminals', 'Databases', 'Games', 'Office', 'Science', 'Audio', 'Video', 'Network', 'Learning'])[1 + g % 12] AS category,
                (ARRAY['desktop', 'webapp', 'terminal'])[1 + g % 3] AS app_type,
                ARRAY[(ARRAY['web', 'editor', 'terminal', 'browser', 'tool'])[1 + g % 5], 'tag-' || g % 200] AS tags) x
            CROSS JOIN LATERAL (SELECT 'An application for ' || lower(x.category) || ' that runs in sessions of the ' || b.w || ', number ' || g
                || ', with a ' || (ARRAY['web', 'editor', 'terminal', 'browser', 'tool'])[1 + g % 5] || ' of its own' AS said) y
            WHERE r.name = 'bench' RETURNING id)
        INSERT INTO template_stats (template_id, install_count, rating_sum, rating_count, updated_at)
            SELECT id, (id * 7919) % 1000, (id % 50) * (1 + id % 5), id % 50, now() FROM made;
        INSERT INTO catalog_blobs (digest, media_type, size, content, put_at) VALUES (sha256('x'), 'application/x-tar', 1, 'x', now());
        WITH made AS (
            INSERT INTO catalog_plugins (repository_id, name, version, display_name, description, category, plugin_type, tags, package, manifest,
                digest, created_at, updated_at)
            SELECT r.id, 'storm', '1.0.0', 'Storm', '', '', 'theme', '{{}}', sha256('x'), jsonb_build_object('name', 'storm', 'version', '1.0.0',
                'displayName', 'Storm', 'description', '', 'author', '', 'type', 'theme'), '\x01', now(), now()
            FROM repositories r WHERE r.name = 'bench' RETURNING id)
        INSERT INTO plugin_stats (plugin_id, updated_at) SELECT id, now() FROM made;"#
    );
    stage.sql(&sql).await?;
    stage.sql("VACUUM (ANALYZE) catalog_templates, template_stats, catalog_plugins, plugin_stats").await?;
    Ok(())
}

/// Every caller sends its requests one after the other; all must be answered with 200. Requests a second.
async fn storm(stage: &Stage, requests: Vec<Vec<Vec<u8>>>) -> anyhow::Result<f64> {
    let (mut callers, mut count) = (JoinSet::new(), 0);
    let mut connections = Vec::new();
    for requests in requests {
        count += requests.len() as u64;
        connections.push((Connection::open(stage.address).await?, requests));
    }
    let started = Instant::now();
    for (mut connection, requests) in connections {
        callers.spawn(async move {
            for request in requests {
                let status = connection.send(&request).await?.status;
                ensure!(status == 200, "a request of a storm was answered with {status}");
            }
            anyhow::Ok(())
        });
    }
    while let Some(caller) = callers.join_next().await {
        caller??;
    }
    Ok(rate(count, started.elapsed()))
}

async fn views(stage: &Stage, tokens: &[String], path: &str) -> anyhow::Result<f64> {
    let each = |token: &String| vec![request("GET", path, Some(token), ""); EACH];
    let per_second = storm(stage, tokens.iter().cycle().take(CALLERS).map(each).collect()).await?;
    let (ended, wanted) = (Instant::now(), CALLERS * EACH);
    loop {
        let counted = stage.sql("SELECT sum(view_count) FROM plugin_stats").await?;
        if counted.trim() == wanted.to_string() {
            return Ok(per_second);
        }
        ensure!(ended.elapsed() < WRITTEN, "{wanted} views are counted as {}", counted.trim());
        sleep(Duration::from_millis(200)).await;
    }
}

async fn ratings(stage: &Stage, tokens: &[String], path: &str) -> anyhow::Result<f64> {
    let each = |token: &String| {
        let rating = |number: usize| {
            let body = format!(r#"{{"rating":{}}}"#, 1 + number % 5);
            request("POST", &format!("{path}/rate"), Some(token), &body)
        };
        (0..EACH).map(rating).collect::<Vec<_>>()
    };
    let per_second = storm(stage, tokens.iter().cycle().take(CALLERS).map(each).collect()).await?;
    let kept = stage
        .sql(
            "SELECT (SELECT concat_ws(' ', rating_sum, rating_count) FROM plugin_stats)
             || ' ' || (SELECT concat_ws(' ', sum(rating), count(*)) FROM plugin_ratings)",
        )
        .await?;
    let raters = CALLERS.min(tokens.len());
    // Each rater's last rating stands.
    let expected = format!("{0} {raters} {0} {raters}", raters * (1 + (EACH - 1) % 5));
    ensure!(kept.trim() == expected, "sum and number of ratings are {}, and not {expected}", kept.trim());
    Ok(per_second)
}
