//! Repositories that mean harm.

use std::{fmt::Write, time::Instant};

use crate::stage::{Stage, names, template};

#[tokio::test]
async fn links_out_of_the_tree_are_not_followed() {
    let stage = Stage::new();
    std::fs::write(stage.root().join("secret.yaml"), template("stolen")).unwrap();
    for (target, link) in [("/etc/passwd", "plugin.json"), ("../secret.yaml", "link.yaml"), ("..", "up")] {
        std::os::unix::fs::symlink(target, stage.work().join(link)).unwrap();
    }
    std::os::unix::fs::symlink("/etc/hostname", stage.work().join("icon.svg")).unwrap();
    stage.write("a.yaml", template("a").replace("spec:\n", "spec:\n  icon: icon.svg\n"));
    stage.commit();
    let found = stage.found().await;
    let (templates, plugins, problems) = names(&found);
    assert_eq!((templates, plugins), (vec!["a"], vec![]));
    let paths: Vec<&str> = problems.iter().map(|(path, _)| *path).collect();
    assert_eq!(paths, ["plugin.json", "a.yaml"]);
    assert!(
        found.problems.as_slice().iter().all(|it| it.reason.contains("symbolic link")),
        "{:?}",
        found.problems
    );
}

#[tokio::test]
async fn a_file_of_a_gibibyte_is_listed_and_never_read() {
    let stage = Stage::new();
    stage.write("a.yaml", template("a"));
    let big = std::fs::File::create(stage.work().join("big.yaml")).unwrap();
    big.set_len(1 << 30).unwrap();
    stage.git(&["-c", "core.bigFileThreshold=1m", "-c", "core.compression=1", "add", "-A", "."]);
    stage.commit();
    let started = Instant::now();
    let found = stage.found().await;
    assert_eq!(names(&found), (vec!["a"], vec![], vec![]));
    assert!(started.elapsed().as_secs() < 120);
}

#[tokio::test]
async fn a_repository_that_is_too_large_is_given_up() {
    let mut stage = Stage::new();
    stage.options.max_mebibytes = 2;
    // What no compression makes smaller.
    let mut noise_state = 1_u64;
    let noise: Vec<u8> = (0..8 << 20)
        .map(|_| {
            noise_state =
                noise_state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (noise_state >> 33).to_le_bytes()[0]
        })
        .collect();
    stage.write("noise", noise);
    stage.commit();
    let told = stage.fetch(&stage.source()).await.unwrap_err().to_string();
    assert!(told.contains("more than the 2 MiB"), "{told}");
}

#[tokio::test]
async fn two_hundred_thousand_files_are_refused() {
    let stage = Stage::new();
    let blob = stage.git_with(&["hash-object", "-w", "--stdin"], b"x");
    let mut index = String::new();
    for number in 0..200_000 {
        writeln!(index, "100644 blob {blob}\td{}/f{number}", number % 100).unwrap();
    }
    stage.git_with(&["update-index", "--index-info"], index.as_bytes());
    stage.git(&["commit", "--quiet", "-m", "x"]);
    let told = stage.fetch(&stage.source()).await.unwrap_err().to_string();
    assert_eq!(told, "it has more than 50000 files, the most that are read of one");
}

#[tokio::test]
async fn names_that_climb_are_left_out() {
    let stage = Stage::new();
    let text = template("evil");
    let blob = stage.git_with(&["hash-object", "-w", "--stdin"], text.as_bytes());
    let good = stage.git_with(&["hash-object", "-w", "--stdin"], template("a").as_bytes());
    let inner = stage.git_with(&["mktree"], format!("100644 blob {blob}\tevil.yaml\n").as_bytes());
    let raw = format!("100644 blob {good}\ta.yaml\0{}", "");
    let mut listed = raw.into_bytes();
    for name in ["..", ".", ".git"] {
        listed.extend(format!("040000 tree {inner}\t{name}\0").into_bytes());
    }
    listed.extend(format!("100644 blob {blob}\tb\\..\\c.yaml\0").into_bytes());
    listed.extend(format!("100644 blob {blob}\t").into_bytes());
    listed.extend(b"\xff\xfe.yaml\0");
    let tree = stage.git_with(&["mktree", "-z"], &listed);
    let commit = stage.git(&["commit-tree", "-m", "x", &tree]);
    stage.git(&["update-ref", "refs/heads/main", &commit]);
    let found = stage.found().await;
    let (templates, _, problems) = names(&found);
    assert_eq!(templates, ["a"]);
    assert_eq!(problems.len(), 5, "{:?}", found.problems);
}

#[tokio::test]
async fn bombs_of_yaml_and_json_are_told_of() {
    let stage = Stage::new();
    stage.write("a.yaml", template("a"));
    let mut laughs = String::from("kind: Template\na0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let inside = vec![format!("*a{}", level - 1); 10].join(", ");
        writeln!(laughs, "a{level}: &a{level} [{inside}]").unwrap();
    }
    stage.write("laughs.yaml", laughs);
    stage.write("deep.yaml", format!("kind: Template\nx: {}{}", "[".repeat(10_000), "]".repeat(10_000)));
    stage.write("deep/plugin.json", format!("{}1{}", "{\"a\":".repeat(10_000), "}".repeat(10_000)));
    stage.write("huge/plugin.json", " ".repeat(1 << 20));
    stage.write("huge.yaml", format!("kind: Template\n{}", "#\n".repeat(1 << 20)));
    stage.commit();
    let found = stage.found().await;
    let (templates, _, problems) = names(&found);
    assert_eq!(templates, ["a"]);
    let paths: Vec<&str> = problems.iter().map(|(path, _)| *path).collect();
    assert_eq!(paths, ["deep.yaml", "deep/plugin.json", "huge/plugin.json", "laughs.yaml"]);
}
