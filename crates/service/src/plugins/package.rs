//! What a plugin consists of: the files of its folder, read into memory. Nothing of it is ever written to a disk. Archives
//! that are brought by hand are unpacked as those of repositories are, and all are kept as a tar.

use std::collections::BTreeMap;

use aws_lc_rs::digest;
use tar::{Builder, EntryType, Header};
use tidegate_model::{FieldErrors, FromFields, PluginManifest, validate_manifest_path};
use tidegate_repositories::{Options, files_of};

/// MiB of a package at most.
const MEBIBYTES: u32 = 16;
/// Bytes of a package at most.
pub(crate) const LARGEST: usize = MEBIBYTES as usize * 1024 * 1024;
/// Files in it at most.
const FILES: u32 = 2_000;
/// Folders inside each other at most: as many as any repository may have.
const DEPTH: u32 = 256;
/// Seconds that unpacking it may take.
const SECONDS: u32 = 10;
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
    /// Reads a tar, a tar that gzip compressed, or a zip, of the folder or of what is in it. Links, devices and paths that
    /// lead out of the folder are refused.
    pub(crate) fn read(content: &[u8]) -> Result<Self, String> {
        if content.len() > LARGEST {
            return Err(format!("must have at most {LARGEST} bytes"));
        }
        let options = Options {
            max_mebibytes: MEBIBYTES,
            max_files: FILES,
            max_depth: DEPTH,
            fetch_seconds: SECONDS,
            ..Options::default()
        };
        let files = files_of(content, &options).map_err(|error| error.to_string())?;
        for path in files.keys() {
            validate_manifest_path(path).map_err(|complaint| format!("holds `{path}`, which {complaint}"))?;
        }
        Ok(Self { files })
    }

    /// The files as a tar, the same one for the same files: what is kept of it.
    pub(crate) fn to_tar(&self) -> Result<Vec<u8>, String> {
        let unwritable = |error: std::io::Error| format!("cannot be kept: {error}");
        let mut tar = Builder::new(Vec::new());
        for (path, content) in &self.files {
            let mut header = Header::new_gnu();
            header.set_entry_type(EntryType::Regular);
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, path, content.as_slice()).map_err(unwritable)?;
        }
        let tar = tar.into_inner().map_err(unwritable)?;
        // What the files take in it, with their names beside them, is what is kept.
        if tar.len() > LARGEST {
            return Err(format!("must have at most {LARGEST} bytes as a tar"));
        }
        Ok(tar)
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

#[cfg(test)]
mod tests {
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
        let refused = Package::read(&twice).unwrap_err();
        assert_eq!(refused, "holds `a`: it is there twice");
    }

    #[test]
    fn what_is_no_archive_says_so() {
        assert!(Package::read(b"PK\x03\x04 a zip is none, and this is not even one").is_err());
        let mut cut = tar(&[("plugin.json", EntryType::Regular, "{}")]);
        cut.truncate(513);
        assert!(Package::read(&cut).is_err());
        assert!(Package::read(&[]).unwrap_err().contains("neither a zip, nor a tar"));
        let other = tar(&[("readme", EntryType::Regular, "")]);
        let no_manifest = Package::read(&other).unwrap().manifest().unwrap_err();
        assert_eq!(no_manifest.to_string(), "archive: holds no plugin.json");
    }

    #[test]
    fn every_bad_field_of_a_manifest_is_named() {
        let bad = tar(&[("plugin.json", EntryType::Regular, r#"{"name": "A", "version": "1"}"#)]);
        let errors = Package::read(&bad).unwrap().manifest().unwrap_err();
        let named: Vec<&str> = errors.iter().map(|(field, _)| field).collect();
        assert_eq!(named, ["plugin.json: name", "plugin.json: type", "plugin.json: version"]);
    }
}
