//! Repositories and what came from them, as a sync would have left it.

use chrono::SubsecRound;
use serde_json::{Value, json};
use tidegate_model::{
    BlobDigest, CatalogPluginId, CatalogTemplateId, Clock, FromFields, PluginManifest, RepositoryId,
    SystemClock, TemplateManifest,
};
use tidegate_persistence::{
    Operator,
    catalog::{self, NewBlob, NewPlugin, NewTemplate},
};

use crate::TestDb;

/// A digest of which every byte is `byte`.
pub fn digest(byte: u8) -> BlobDigest {
    BlobDigest::from_bytes([byte; 32])
}

/// A template of this name; `more` overrides fields.
pub fn template(name: &str, more: &Value) -> NewTemplate {
    let mut manifest = json!({"name": name, "image": "debian:12", "appType": "desktop"});
    merge(&mut manifest, more);
    let manifest = TemplateManifest::from_json(manifest).unwrap();
    NewTemplate { manifest, icon: None, digest: vec![1] }
}

/// A plugin of this name in version 1.0.0; `more` overrides fields. Its package is [`digest`]`(1)`.
pub fn plugin(name: &str, more: &Value) -> NewPlugin {
    let mut manifest = json!({"name": name, "version": "1.0.0", "type": "extension"});
    merge(&mut manifest, more);
    let manifest = PluginManifest::from_json(manifest).unwrap();
    NewPlugin { manifest, icon: None, package: digest(1), changelog: String::new(), digest: vec![1] }
}

fn merge(manifest: &mut Value, more: &Value) {
    for (name, value) in more.as_object().into_iter().flatten() {
        manifest[name] = value.clone();
    }
}

impl TestDb {
    /// A repository that is enabled and was synced.
    pub async fn repository(&self, name: &str) -> RepositoryId {
        let sql = format!(
            "INSERT INTO repositories (name, url, type, created_at, updated_at, synced_at, sync_status)
             VALUES ('{name}', 'https://example.com/{name}.git', 'git', now(), now(), now(), 'synced') RETURNING id"
        );
        RepositoryId::from_number(self.look(&sql).await)
    }

    /// Writes templates and plugins of a repository as a sync does.
    pub async fn sync(&self, repository: RepositoryId, templates: &[NewTemplate], plugins: &[NewPlugin]) {
        let now = SystemClock::new().now().trunc_subsecs(6);
        let package = NewBlob {
            digest: digest(1),
            media_type: "application/x-tar".into(),
            content: b"a folder".to_vec(),
        };
        let system = Operator::system();
        let db = self.db();
        let written = db.in_platform(&system, async |tx| {
            catalog::put_blobs(tx, vec![package], now).await?;
            catalog::upsert_templates(tx, repository, templates, now).await?;
            catalog::upsert_plugins(tx, repository, plugins, now).await
        });
        written.await.unwrap();
    }

    /// Keeps a file of this digest.
    pub async fn file(&self, digest: BlobDigest, media_type: &str, content: &[u8]) {
        let file = NewBlob { digest, media_type: media_type.into(), content: content.to_vec() };
        let (db, system, now) = (self.db(), Operator::system(), SystemClock::new().now());
        db.in_platform(&system, async |tx| catalog::put_blobs(tx, vec![file], now).await).await.unwrap();
    }

    /// The id of a repository's template.
    pub async fn template_id(&self, repository: RepositoryId, name: &str) -> CatalogTemplateId {
        let sql = format!(
            "SELECT id FROM catalog_templates WHERE repository_id = {repository} AND name = '{name}'"
        );
        CatalogTemplateId::from_number(self.look(&sql).await)
    }

    /// The id of a repository's plugin.
    pub async fn plugin_id(&self, repository: RepositoryId, name: &str) -> CatalogPluginId {
        let sql =
            format!("SELECT id FROM catalog_plugins WHERE repository_id = {repository} AND name = '{name}'");
        CatalogPluginId::from_number(self.look(&sql).await)
    }
}
