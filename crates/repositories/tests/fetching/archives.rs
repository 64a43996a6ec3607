//! Archives from a server on loopback.

use std::io::Write;

use tidegate_repositories::{Credential, Options, Source, files_of};
use zip::write::SimpleFileOptions;

use crate::{
    http_git::{Answer, Server},
    stage::{Stage, names, plugin, template},
};

fn zipped(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, content) in files {
        zip.start_file(*name, SimpleFileOptions::default()).unwrap();
        zip.write_all(content).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

fn tarred(files: &[(&str, &[u8])]) -> tar::Builder<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, *content).unwrap();
    }
    tar
}

/// Two files of one name, which no tool writes.
fn twice_zipped() -> Vec<u8> {
    let mut archive = zipped(&[("same", b"1"), ("some", b"2")]);
    while let Some(at) = archive.windows(4).position(|name| name == b"some") {
        archive[at + 1] = b'a';
    }
    archive
}

fn gzipped(content: &[u8]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(content).unwrap();
    gzip.finish().unwrap()
}

fn stage() -> Stage {
    let mut stage = Stage::new();
    stage.options.private_networks = vec!["127.0.0.0/8".parse().unwrap()];
    stage
}

#[test]
fn an_archive_that_somebody_brings_is_read_whole_whatever_kind_it_is() {
    let files: [(&str, &[u8]); 2] = [("mine/plugin.json", b"{}"), ("mine/ui/a.js", b"1")];
    let tar = tarred(&files).into_inner().unwrap();
    for body in [zipped(&files), gzipped(&tar), tar] {
        let read = files_of(&body, &Options::default()).unwrap();
        let read: Vec<(&str, &[u8])> = read.iter().map(|(path, it)| (path.as_str(), it.as_slice())).collect();
        assert_eq!(read, [("plugin.json", b"{}".as_slice()), ("ui/a.js", b"1")]);
    }
}

#[test]
fn of_an_archive_that_somebody_brings_nothing_is_left_out_in_silence() {
    let options = Options { max_mebibytes: 1, max_files: 3, max_depth: 3, ..Options::default() };
    let refused = |body: &[u8]| files_of(body, &options).unwrap_err().to_string();
    let mut linked = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    linked.add_symlink("a", "/etc/passwd", SimpleFileOptions::default()).unwrap();
    let linked = linked.finish().unwrap().into_inner();
    let mut tar = tarred(&[]);
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    tar.append_link(&mut header, "a", "/etc/passwd").unwrap();
    for linked in [linked, tar.into_inner().unwrap()] {
        assert_eq!(refused(&linked), "holds `a`, which is neither a file nor a folder");
    }
    for climbs in ["../a", "/a", "b/../a", "b\\a"] {
        let told = refused(&zipped(&[(climbs, b"x")]));
        assert!(told.ends_with("its name leads out of the folder"), "{climbs}: {told}");
    }
    let zeros = vec![0; 9 * 1024 * 1024];
    let bomb = gzipped(&tarred(&[("a", &zeros)]).into_inner().unwrap());
    assert!(bomb.len() < 64 * 1024 && refused(&bomb).contains("1 MiB"));
    assert!(refused(&zipped(&[("a", &zeros)])).contains("1 MiB"));
    let many: [(&str, &[u8]); 4] = [("a", b""), ("b", b""), ("c", b""), ("d", b"")];
    assert!(refused(&zipped(&many)).contains("more than 3 files"));
    assert!(refused(&tarred(&many).into_inner().unwrap()).contains("more than 3 files"));
    assert!(refused(&zipped(&[("a/b/c/d", b"")])).contains("3 folders inside each other"));
    let twice = tarred(&[("a", b"1"), ("a", b"2")]).into_inner().unwrap();
    assert_eq!(refused(&twice), "holds `a`: it is there twice");
    assert_eq!(refused(&twice_zipped()), "it holds files of one name");
    let whole = zipped(&[("a", b"1")]);
    assert!(refused(&whole[..whole.len() / 2]).contains("damaged"));
    assert!(refused(b"no archive at all").contains("neither a zip, nor a tar"));
    assert!(refused(b"").contains("neither a zip, nor a tar"));
}

#[tokio::test]
async fn every_kind_of_archive_is_read() {
    let stage = stage();
    let (yaml, json) = (template("a"), plugin("p", "1.0.0"));
    let long = format!("repo-1/{}/b.yaml", "x".repeat(150));
    let other = template("b");
    let files: [(&str, &[u8]); 3] = [
        ("repo-1/a.yaml", yaml.as_bytes()),
        ("repo-1/p/plugin.json", json.as_bytes()),
        (&long, other.as_bytes()),
    ];
    let tar = tarred(&files).into_inner().unwrap();
    for body in [zipped(&files), gzipped(&tar), tar] {
        let server = Server::start(move |_| Answer::ok(body.clone()));
        let mut snapshot = stage.fetch(&stage.archive(&server.url("/a"))).await.unwrap();
        let found = snapshot.catalog(&|_| {}).await.unwrap();
        assert_eq!(names(&found), (vec!["a", "b"], vec!["p"], vec![]));
        assert!(snapshot.package(&found.plugins[0]).await.unwrap().is_ok());
    }
}

#[tokio::test]
async fn an_unchanged_archive_is_not_sent_again() {
    let stage = stage();
    let body = zipped(&[("a.yaml", template("a").as_bytes())]);
    let server = Server::start(move |request| {
        if request.header("if-none-match") == Some("\"1\"") {
            return Answer { status: "304 Not Modified", headers: vec![], body: Vec::new() };
        }
        Answer { headers: vec![("ETag", "\"1\"".into())], ..Answer::ok(body.clone()) }
    });
    let source = stage.archive(&server.url("/a.zip"));
    let first = stage.fetch(&source).await.unwrap().revision().to_owned();
    let second = stage.fetch(&source).await.unwrap();
    assert_eq!((second.revision(), second.len()), (first.as_str(), 1));
    assert_eq!(server.requests(), 2);
}

#[tokio::test]
async fn a_redirect_to_a_private_address_is_not_followed_and_no_secret_goes_elsewhere() {
    let mut stage = stage();
    stage.options.private_networks = vec!["127.0.0.1/32".parse().unwrap()];
    let body = zipped(&[("a.yaml", template("a").as_bytes())]);
    let other = Server::start(move |request| {
        assert_eq!(request.header("authorization"), None);
        Answer::ok(body.clone())
    });
    let onward = other.url("/a.zip");
    let first = Server::start(move |request| {
        assert_eq!(request.header("authorization"), Some("Bearer t0ken"));
        let to = if request.path == "/good" { onward.clone() } else { "http://127.0.0.2:9/x".into() };
        Answer { status: "302 Found", headers: vec![("Location", to)], body: Vec::new() }
    });
    let credential = Credential::Token { username: None, token: "t0ken".to_owned().into() };
    let source = |path: &str| Source { credential: credential.clone(), ..stage.archive(&first.url(path)) };
    assert_eq!(stage.fetch(&source("/good")).await.unwrap().len(), 1);
    let refused = stage.fetch(&source("/bad")).await.unwrap_err().to_string();
    assert!(refused.starts_with("127.0.0.2 is an address of this machine"), "{refused}");
}

#[tokio::test]
async fn refusals_of_servers_are_told_in_plain_words() {
    let stage = stage();
    for (status, word) in [
        ("401 Unauthorized", "check the secret"),
        ("404 Not Found", "no archive at this address"),
        ("500 Internal Server Error", "the server answers 500"),
    ] {
        let server =
            Server::start(move |_| Answer { status, headers: vec![], body: b"secret detail".to_vec() });
        let told = stage.fetch(&stage.archive(&server.url("/"))).await.unwrap_err().to_string();
        assert!(told.contains(word) && !told.contains("detail"), "{told}");
    }
    let page = Server::start(|_| Answer::ok(b"<html>".to_vec()));
    let told = stage.fetch(&stage.archive(&page.url("/"))).await.unwrap_err().to_string();
    assert!(told.contains("neither a zip, nor a tar"), "{told}");
}

#[tokio::test]
async fn names_that_climb_links_and_bombs_do_no_harm() {
    let mut stage = stage();
    stage.options.max_mebibytes = 8;
    let good = template("a");
    let mut tar = tarred(&[("a.yaml", good.as_bytes())]);
    let mut link = tar::Header::new_gnu();
    link.set_entry_type(tar::EntryType::Symlink);
    link.set_size(0);
    tar.append_link(&mut link, "plugin.json", "/etc/passwd").unwrap();
    let mut climbing = tar::Header::new_gnu();
    climbing.as_mut_bytes()[..12].copy_from_slice(b"../evil.yaml");
    climbing.set_size(1);
    climbing.set_cksum();
    tar.append(&climbing, b"x".as_slice()).unwrap();
    let body = gzipped(&tar.into_inner().unwrap());
    let server = Server::start(move |_| Answer::ok(body.clone()));
    let mut snapshot = stage.fetch(&stage.archive(&server.url("/"))).await.unwrap();
    let found = snapshot.catalog(&|_| {}).await.unwrap();
    let (templates, _, problems) = names(&found);
    assert_eq!(templates, ["a"]);
    let paths: Vec<&str> = problems.iter().map(|(path, _)| *path).collect();
    assert_eq!(paths, ["../evil.yaml", "plugin.json"]);
    drop(snapshot);
    // 1 GiB of nothing in a tar that is 1 MiB, and in a zip: the one is given up, the other's file left out.
    let zeros = vec![0; 1024 * 1024];
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let mut header = tar::Header::new_gnu();
    header.set_path("big.yaml").unwrap();
    header.set_size(1 << 30);
    header.set_cksum();
    gzip.write_all(header.as_bytes()).unwrap();
    for _ in 0..1024 {
        gzip.write_all(&zeros).unwrap();
    }
    let bomb = gzip.finish().unwrap();
    let server = Server::start(move |_| Answer::ok(bomb.clone()));
    let told = stage.fetch(&stage.archive(&server.url("/"))).await.unwrap_err().to_string();
    assert!(told.contains("unpacks to far more"), "{told}");
    let big = vec![0; 32 * 1024 * 1024];
    let body = zipped(&[("a.yaml", good.as_bytes()), ("big.yaml", &big)]);
    let server = Server::start(move |_| Answer::ok(body.clone()));
    let mut snapshot = stage.fetch(&stage.archive(&server.url("/"))).await.unwrap();
    assert_eq!(names(&snapshot.catalog(&|_| {}).await.unwrap()).0, ["a"]);
}

#[tokio::test]
async fn an_archive_that_says_little_and_holds_much_is_found_out() {
    let mut stage = stage();
    stage.options.max_mebibytes = 1;
    let big = vec![0; 3 * 1024 * 1024];
    let mut body = zipped(&[("big.yaml", &big)]);
    // The size in the list at the end: one byte.
    let at = body.windows(4).rposition(|it| it == b"PK\x01\x02").unwrap();
    body[at + 24..at + 28].copy_from_slice(&1_u32.to_le_bytes());
    let server = Server::start(move |_| Answer::ok(body.clone()));
    match stage.fetch(&stage.archive(&server.url("/"))).await {
        Err(error) => {
            assert!(error.to_string().contains("MiB") || error.to_string().contains("damaged"), "{error}");
        }
        Ok(snapshot) => panic!("{} files", snapshot.len()),
    }
    let mut many = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for index in 0..3_000 {
        many.start_file(format!("{index}"), SimpleFileOptions::default()).unwrap();
    }
    let body = many.finish().unwrap().into_inner();
    stage.options.max_files = 1_000;
    // What its end states, honest and forged.
    let end = body.windows(4).rposition(|it| it == b"PK\x05\x06").unwrap();
    let mut forged = body.clone();
    forged[end + 8..end + 12].copy_from_slice(&[1, 0, 1, 0]);
    for body in [body, forged] {
        let server = Server::start(move |_| Answer::ok(body.clone()));
        let told = stage.fetch(&stage.archive(&server.url("/"))).await.unwrap_err().to_string();
        assert!(told.contains("more than 1000 files"), "{told}");
    }
}
