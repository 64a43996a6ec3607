//! The golden files of `tests/golden`: the catalog's types as seed A writes them, read and written back exactly.

#![expect(clippy::unwrap_used, reason = "a test that cannot read its own files should fail at once")]

use std::path::PathBuf;

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use tidegate_model::{
    CatalogPlugin, CatalogRepository, FromFields, PluginManifest, PluginRating, PluginStats, PluginVersion,
};

fn golden(name: &str) -> Value {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn is_written_back<T: Serialize + DeserializeOwned>(name: &str) {
    let file = golden(name);
    let read: T = serde_json::from_value(file.clone()).unwrap();
    assert_eq!(serde_json::to_value(read).unwrap(), file, "{name}");
}

#[test]
fn what_the_wire_carries_has_exactly_the_names_of_seed_a() {
    is_written_back::<CatalogRepository>("repository.json");
    is_written_back::<CatalogPlugin>("catalog_plugin.json");
    is_written_back::<PluginRating>("plugin_rating.json");
    is_written_back::<PluginStats>("plugin_stats.json");
    is_written_back::<PluginVersion>("plugin_version.json");
}

#[test]
fn a_manifest_is_checked_stored_and_written_back_exactly() {
    for name in ["plugin_manifest.json", "plugin_manifest_whole.json"] {
        let file = golden(name);
        let read = PluginManifest::from_json(file.clone()).unwrap();
        assert_eq!(serde_json::to_value(&read).unwrap(), file, "{name}");
        assert_eq!(serde_json::from_value::<PluginManifest>(file).unwrap(), read, "{name}");
    }
}
