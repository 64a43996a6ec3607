//! Repositories of this machine: what is found, what changes, and that nothing of them is run.

use std::os::unix::fs::PermissionsExt;

use tidegate_repositories::{Branch, Credential, Error, Options, Remote, Source, SourceKind, Step};

use crate::stage::{Stage, Steps, names, plugin, template};

#[tokio::test]
async fn templates_and_plugins_are_found_with_icons_packages_and_changelogs() {
    let stage = Stage::new();
    stage.write("templates/a.yaml", template("a").replace("spec:\n", "spec:\n  icon: icons/a.svg\n"));
    stage.write("templates/icons/a.svg", "<svg xmlns='http://www.w3.org/2000/svg'/>");
    stage.write("plugins/p/plugin.json", plugin("p", "1.1.0"));
    stage.write("plugins/p/main.js", "x");
    stage.write("plugins/p/.hidden", "x");
    stage.write("plugins/p/CHANGELOG.md", "## 1.1.0\n- new\n## 1.0.0\n- old\n");
    stage.write("plugins/p/inner/plugin.json", plugin("q", "0.1.0"));
    stage.write("plugins/p/example.yaml", template("not-one"));
    let commit = stage.commit();
    let steps = Steps::default();
    let mut snapshot = stage.fetcher().fetch("1", &stage.source(), &steps.note()).await.unwrap();
    assert_eq!(snapshot.revision(), commit);
    let found = snapshot.catalog(&steps.note()).await.unwrap();
    assert_eq!(names(&found), (vec!["a"], vec!["p", "q"], vec![]));
    let icon = snapshot.template_icon(&found.templates[0]).await.unwrap().unwrap().unwrap();
    assert_eq!(icon.media_type, "image/svg+xml");
    assert_eq!(snapshot.changelog(&found.plugins[0]).await.unwrap(), "- new");
    let package = snapshot.package(&found.plugins[0]).await.unwrap().unwrap();
    let mut tar = tar::Archive::new(package.as_slice());
    let inside: Vec<String> =
        tar.entries().unwrap().map(|it| it.unwrap().path().unwrap().display().to_string()).collect();
    assert_eq!(inside, ["CHANGELOG.md", "example.yaml", "main.js", "plugin.json"]);
    assert!(steps.all().contains(&Step::Reading { done: 3, of: 3 }), "{:?}", steps.all());
}

#[tokio::test]
async fn a_package_is_as_large_as_its_tar() {
    let stage = Stage::new();
    for (name, size) in [("fits", 15 << 20), ("large", (16 << 20) - 512)] {
        stage.write(&format!("{name}/plugin.json"), plugin(name, "1.0.0"));
        stage.write(&format!("{name}/data.bin"), vec![0; size]);
    }
    stage.commit();
    let mut snapshot = stage.fetch(&stage.source()).await.unwrap();
    let found = snapshot.catalog(&|_| {}).await.unwrap();
    assert_eq!(names(&found), (vec![], vec!["fits", "large"], vec![]));
    let package = snapshot.package(&found.plugins[0]).await.unwrap().unwrap();
    assert!(package.len() <= 16 << 20);
    let told = snapshot.package(&found.plugins[1]).await.unwrap().map(|tar| tar.len()).unwrap_err();
    assert!(told.reason.contains("more than 16 MiB"), "{told:?}");
}

#[tokio::test]
async fn only_what_changed_has_another_digest() {
    let stage = Stage::new();
    for name in ["a", "b"] {
        stage.write(&format!("{name}.yaml"), template(name));
    }
    stage.write("p/plugin.json", plugin("p", "1.0.0"));
    stage.write("p/code.js", "1");
    stage.commit();
    let before = stage.found().await;
    stage.write("b.yaml", template("b").replace("A shell", "Another shell"));
    stage.write("a.yaml", format!("# The same, with a comment.\n{}", template("a")));
    stage.write("p/code.js", "2");
    stage.commit();
    let after = stage.found().await;
    assert_eq!(before.templates[0].digest, after.templates[0].digest);
    assert_ne!(before.templates[1].digest, after.templates[1].digest);
    assert_ne!(before.plugins[0].digest, after.plugins[0].digest);
}

#[tokio::test]
async fn a_bad_file_spoils_no_other_and_is_told_of() {
    let stage = Stage::new();
    stage.write("a.yaml", template("a"));
    stage.write("b.yaml", "kind: Template\napiVersion: tidegate.dev/v1\nspec: [\n");
    stage.write("c.yaml", b"kind: Template\nname: \xff\n");
    stage.write("d/plugin.json", "{");
    stage.write("e/plugin.json", plugin("../../etc", "1.0.0"));
    stage.write("f.yaml", template("f").replace("spec:\n", "spec:\n  icon: missing.png\n"));
    stage.write(".github/workflows/x.yaml", template("hidden"));
    stage.commit();
    let found = stage.found().await;
    let (templates, plugins, problems) = names(&found);
    assert_eq!((templates, plugins), (vec!["a", "f"], vec![]));
    let paths: Vec<&str> = problems.iter().map(|(path, _)| *path).collect();
    assert_eq!(paths, ["b.yaml", "c.yaml", "d/plugin.json", "e/plugin.json", "f.yaml"]);
    assert_eq!(problems[1].1, Some(2));
    assert_eq!(problems[2].1, Some(1));
}

#[tokio::test]
async fn a_branch_is_fetched_and_a_missing_one_is_named() {
    let stage = Stage::new();
    stage.write("a.yaml", template("a"));
    stage.commit();
    stage.git(&["checkout", "--quiet", "-b", "next"]);
    stage.write("b.yaml", template("b"));
    stage.commit();
    stage.git(&["checkout", "--quiet", "main"]);
    let of =
        |branch: &str| Source { kind: SourceKind::Git(Some(Branch::new(branch).unwrap())), ..stage.source() };
    assert_eq!(stage.fetch(&of("next")).await.unwrap().len(), 2);
    assert_eq!(stage.fetch(&of("main")).await.unwrap().len(), 1);
    let missing = stage.fetch(&of("gone")).await.unwrap_err();
    assert_eq!(missing.to_string(), "it has no branch `gone`");
}

#[tokio::test]
async fn the_newest_commit_replaces_the_last_one_even_after_a_rewrite() {
    let stage = Stage::new();
    stage.write("a.yaml", template("a"));
    let first = stage.commit();
    assert_eq!(stage.fetch(&stage.source()).await.unwrap().revision(), first);
    stage.git(&["checkout", "--quiet", "--orphan", "other"]);
    stage.write("b.yaml", template("b"));
    let second = stage.commit();
    stage.git(&["branch", "-M", "main"]);
    assert_eq!(stage.fetch(&stage.source()).await.unwrap().revision(), second);
}

#[tokio::test]
async fn what_a_killed_fetch_left_behind_is_in_nobodys_way() {
    let stage = Stage::new();
    stage.write("a.yaml", template("a"));
    stage.commit();
    stage.found().await;
    let mirror = stage.cache().join("1/mirror.git");
    for lock in ["shallow.lock", "HEAD.lock", "refs/tidegate/tip.lock"] {
        std::fs::write(mirror.join(lock), "").unwrap();
    }
    stage.write("b.yaml", template("b"));
    stage.commit();
    assert_eq!(stage.found().await.templates.len(), 2);
    // A mirror that is half there is made again.
    std::fs::remove_dir_all(mirror.join("objects")).unwrap();
    assert_eq!(stage.found().await.templates.len(), 2);
}

#[tokio::test]
async fn two_fetches_of_one_repository_do_not_meet() {
    let stage = Stage::new();
    stage.write("a.yaml", template("a"));
    stage.commit();
    let held = stage.fetch(&stage.source()).await.unwrap();
    assert!(matches!(stage.fetch(&stage.source()).await, Err(Error::Busy)));
    drop(held);
    assert!(stage.fetch(&stage.source()).await.is_ok());
}

#[tokio::test]
async fn nothing_of_a_repository_is_run() {
    let stage = Stage::new();
    let witness = stage.root().join("run");
    let script = format!("#!/bin/sh\ntouch {}\n", witness.display());
    stage.write("a.yaml", template("a"));
    stage.write(".gitattributes", "* filter=evil\n");
    stage.write(".gitmodules", "[submodule \"x\"]\n\tpath = x\n\turl = ext::sh -c touch%20run\n");
    stage.commit();
    for hook in ["post-checkout", "reference-transaction", "post-merge", "pre-auto-gc", "post-update"] {
        let path = stage.work().join(".git/hooks").join(hook);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &script).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let hook = stage.root().join("pack-hook");
    std::fs::write(&hook, &script).unwrap();
    std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o755)).unwrap();
    stage.git(&["config", "uploadpack.packObjectsHook", hook.to_str().unwrap()]);
    stage.git(&["config", "filter.evil.smudge", hook.to_str().unwrap()]);
    stage.git(&["config", "core.fsmonitor", hook.to_str().unwrap()]);
    std::fs::remove_file(&witness).ok();
    assert_eq!(stage.found().await.templates.len(), 1);
    assert!(!witness.exists());
}

#[tokio::test]
async fn a_path_is_read_only_where_it_is_allowed() {
    let stage = Stage::new();
    let nowhere = Options::default();
    assert!(Remote::git(stage.work().to_str().unwrap(), &nowhere).is_err());
    let missing = stage.remote(stage.root().join("missing").to_str().unwrap());
    assert_eq!(stage.fetch(&missing).await.unwrap_err().to_string(), "there is no folder at this path");
    let no_repository = stage.remote(stage.root().to_str().unwrap());
    let refused = stage.fetch(&no_repository).await.unwrap_err().to_string();
    assert!(refused.starts_with("there is no git repository"), "{refused}");
    let empty = stage.fetch(&stage.source()).await.unwrap_err().to_string();
    assert_eq!(empty, "it has no commit yet");
}

#[tokio::test]
async fn a_missing_git_is_one_clear_error() {
    let mut stage = Stage::new();
    stage.options.git = Some("/nowhere/git".into());
    let error = stage.fetch(&stage.source()).await.unwrap_err().to_string();
    assert!(error.contains("`git` is not installed") && error.contains("apt-get install git"), "{error}");
}

#[tokio::test]
async fn ssh_gets_the_key_in_a_file_of_its_own_and_speaks_to_the_checked_address() {
    let mut stage = Stage::new();
    stage.options.private_networks = vec!["127.0.0.0/8".parse().unwrap()];
    stage.write("a.yaml", template("a"));
    stage.commit();
    // In place of ssh: writes down what it is called with and the key it is given, and does what the server would do.
    let (log, stand_in) = (stage.root().join("log"), stage.root().join("ssh"));
    let script = format!(
        "#!/bin/bash\nprintf '%s\\n' \"$@\" > {log}\nfor word; do case $word in IdentityFile=*) path=${{word#*=}}; path=${{path//\\\"/}}; \
         stat -Lc %a \"$path\" >> {log}; cat \"$path\" >> {log};; esac; done\nenv >> {log}\nexec sh -c \"${{@: -1}}\"\n",
        log = log.display()
    );
    std::fs::write(&stand_in, script).unwrap();
    std::fs::set_permissions(&stand_in, std::fs::Permissions::from_mode(0o755)).unwrap();
    stage.options.ssh = Some(stand_in);
    let url = format!("ssh://git@127.0.0.1:2222{}", stage.work().display());
    let keyless = stage.fetch(&stage.remote(&url)).await.unwrap_err().to_string();
    assert!(keyless.contains("needs a private key"), "{keyless}");
    let credential =
        Credential::Ssh { private_key: "THE-KEY".to_owned().into(), known_hosts: Some("h k".into()) };
    let snapshot = stage.fetch(&Source { credential, ..stage.remote(&url) }).await.unwrap();
    assert_eq!(snapshot.len(), 1);
    let told = std::fs::read_to_string(&log).unwrap();
    for part in [
        "HostName=127.0.0.1\n",
        "HostKeyAlias=[127.0.0.1]:2222\n",
        "StrictHostKeyChecking=yes\n",
        "600\nTHE-KEY\n",
    ] {
        assert!(told.contains(part), "{part:?} is not in {told}");
    }
    assert!(!told.contains("=THE-KEY"), "the key is in the environment or an argument");
}
