//! The catalog that comes along: every template in it is read, and has its icon.

use std::{fs, path::Path};

use crate::stage::Stage;

fn copy(from: &Path, stage: &Stage, below: &str) {
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let name = format!("{below}{}", entry.file_name().to_str().unwrap());
        if entry.path().is_dir() {
            copy(&entry.path(), stage, &format!("{name}/"));
        } else {
            stage.write(&name, fs::read(entry.path()).unwrap());
        }
    }
}

#[tokio::test]
async fn every_example_is_read_without_a_problem() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/catalog");
    let written = fs::read_dir(examples.join("templates")).unwrap().map(Result::unwrap);
    let written = written.filter(|it| it.path().extension().is_some_and(|it| it == "yaml")).count();
    let stage = Stage::new();
    copy(&examples, &stage, "");
    stage.commit();
    let mut snapshot = stage.fetch(&stage.source()).await.unwrap();
    let found = snapshot.catalog(&|_| {}).await.unwrap();
    assert!(found.problems.as_slice().is_empty(), "{:?}", found.problems);
    assert_eq!(found.templates.len(), written);
    assert!(written >= 12, "{written}");
    for template in &found.templates {
        assert!(
            snapshot.template_icon(template).await.unwrap().unwrap().is_some(),
            "{}",
            template.manifest.name
        );
    }
}
