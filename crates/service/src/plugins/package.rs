//! What a plugin consists of: a tar of its folder, read into memory. Nothing of it is ever written to a disk.

use std::{collections::BTreeMap, io::Read};

use aws_lc_rs::digest;
use tar::{Archive, EntryType};
use tidegate_model::{FieldErrors, FromFields, PluginManifest, validate_manifest_path};

/// Bytes of a package at most.
pub(crate) const LARGEST: usize = 16 * 1024 * 1024;
/// Files in it at most.
const FILES: usize = 2_000;
/// Bytes of a manifest at most.
const MANIFEST: usize = 256 * 1024;

/// The files of a plugin by their paths below its folder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Package {
    files: BTreeMap<String, Vec<u8>>,
}

/// What a package is known by.
pub(crate) fn digest(content: &[u8]) -> Vec<u8> {
    digest::digest(&digest::SHA256, content).as_ref().to_vec()
}

impl Package {
    /// Reads a tar. Links, devices and paths that lead out of the folder are refused.
    pub(crate) fn read(content: &[u8]) -> Result<Self, String> {
        if content.len() > LARGEST {
            return Err(format!("must have at most {LARGEST} bytes"));
        }
        let mut files = BTreeMap::new();
        let mut archive = Archive::new(content);
        let entries = archive.entries().map_err(|error| unreadable(&error))?;
        for entry in entries {
            let mut entry = entry.map_err(|error| unreadable(&error))?;
            let path = String::from_utf8(entry.path_bytes().into_owned());
            let path = path.map_err(|_| "holds a path that is not UTF-8".to_owned())?;
            let shown: String = path.chars().filter(|c| !c.is_control()).take(100).collect();
            match entry.header().entry_type() {
                EntryType::Directory | EntryType::XGlobalHeader => continue,
                EntryType::Regular | EntryType::Continuous => {}
                _ => return Err(format!("holds `{shown}`, which is neither a file nor a folder")),
            }
            let path = path.strip_prefix("./").unwrap_or(&path);
            validate_manifest_path(path)
                .map_err(|complaint| format!("holds `{shown}`, which {complaint}"))?;
            // What it says of its size is bounded by what is there.
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).map_err(|error| unreadable(&error))?;
            if files.insert(path.to_owned(), bytes).is_some() {
                return Err(format!("holds `{shown}` twice"));
            }
            if files.len() > FILES {
                return Err(format!("must hold at most {FILES} files"));
            }
        }
        Ok(Self { files }.without_top())
    }

    /// Where everything lies in one folder, that is the plugin's.
    fn without_top(self) -> Self {
        let is_manifest = |path: &str| path == "plugin.json" || path == "manifest.json";
        if self.files.keys().any(|path| is_manifest(path)) {
            return self;
        }
        let top =
            self.files.keys().next().and_then(|path| path.split_once('/')).map(|(top, _)| format!("{top}/"));
        match top {
            Some(top) if self.files.keys().all(|path| path.starts_with(&top)) => Self {
                files: self
                    .files
                    .into_iter()
                    .map(|(path, bytes)| (path[top.len()..].to_owned(), bytes))
                    .collect(),
            },
            _ => self,
        }
    }

    /// Its manifest.
    pub(crate) fn manifest(&self) -> Result<PluginManifest, FieldErrors> {
        let bytes = self.file("plugin.json").or_else(|| self.file("manifest.json"));
        let bytes = bytes.ok_or_else(|| FieldErrors::one("archive", "holds no plugin.json"))?;
        if bytes.len() > MANIFEST {
            return Err(FieldErrors::one("plugin.json", format_args!("must have at most {MANIFEST} bytes")));
        }
        let value = serde_json::from_slice(bytes)
            .map_err(|error| FieldErrors::one("plugin.json", format_args!("is not JSON: {error}")))?;
        PluginManifest::from_json(value).map_err(|errors| {
            let mut named = FieldErrors::new();
            for (field, complaint) in errors.iter() {
                named.add(format!("plugin.json: {field}"), complaint);
            }
            named
        })
    }

    /// A file of it.
    pub(crate) fn file(&self, path: &str) -> Option<&[u8]> {
        let path = path.strip_prefix("./").unwrap_or(path);
        self.files.get(path).map(Vec::as_slice)
    }

    /// What it weighs in memory.
    pub(crate) fn bytes(&self) -> usize {
        self.files.iter().map(|(path, bytes)| path.len() + bytes.len()).sum()
    }
}

fn unreadable(error: &std::io::Error) -> String {
    format!("cannot be read as a tar archive: {error}")
}

#[cfg(test)]
mod tests {
    use tar::{Builder, Header};

    use super::*;

    fn tar(entries: &[(&str, EntryType, &str)]) -> Vec<u8> {
        let mut builder = Builder::new(Vec::new());
        for (path, kind, content) in entries {
            let mut header = Header::new_ustar();
            header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
            header.set_entry_type(*kind);
            header.set_size(content.len() as u64);
            header.set_cksum();
            builder.append(&header, content.as_bytes()).unwrap();
        }
        builder.into_inner().unwrap()
    }

    #[test]
    fn a_folder_is_read_with_or_without_its_own_name() {
        let plain = tar(&[("./plugin.json", EntryType::Regular, "{}"), ("ui/a.js", EntryType::Regular, "1")]);
        let inside = tar(&[
            ("mine/", EntryType::Directory, ""),
            ("mine/plugin.json", EntryType::Regular, "{}"),
            ("mine/ui/a.js", EntryType::Regular, "1"),
        ]);
        let read = Package::read(&plain).unwrap();
        assert_eq!(read, Package::read(&inside).unwrap());
        assert_eq!(
            (read.file("ui/a.js"), read.file("./ui/a.js")),
            (Some(b"1".as_slice()), Some(b"1".as_slice()))
        );
    }

    #[test]
    fn what_leads_out_of_the_folder_is_refused() {
        for (path, kind) in [
            ("../plugin.json", EntryType::Regular),
            ("/etc/passwd", EntryType::Regular),
            ("ui/../../a", EntryType::Regular),
            ("link", EntryType::Symlink),
            ("link", EntryType::Link),
            ("pipe", EntryType::Fifo),
        ] {
            let refused = Package::read(&tar(&[(path, kind, "")])).unwrap_err();
            assert!(refused.starts_with("holds `"), "{path}: {refused}");
        }
        let twice = tar(&[("a", EntryType::Regular, "1"), ("./a", EntryType::Regular, "2")]);
        assert_eq!(Package::read(&twice).unwrap_err(), "holds `./a` twice");
    }

    #[test]
    fn what_is_no_archive_says_so() {
        assert!(Package::read(b"PK\x03\x04 a zip is none, and this is not even one").is_err());
        let mut cut = tar(&[("plugin.json", EntryType::Regular, "{}")]);
        cut.truncate(513);
        assert!(Package::read(&cut).is_err());
        let empty = Package::read(&[]).unwrap().manifest().unwrap_err();
        assert_eq!(empty.to_string(), "archive: holds no plugin.json");
    }

    #[test]
    fn every_bad_field_of_a_manifest_is_named() {
        let bad = tar(&[("plugin.json", EntryType::Regular, r#"{"name": "A", "version": "1"}"#)]);
        let errors = Package::read(&bad).unwrap().manifest().unwrap_err();
        let named: Vec<&str> = errors.iter().map(|(field, _)| field).collect();
        assert_eq!(named, ["plugin.json: name", "plugin.json: type", "plugin.json: version"]);
    }
}
