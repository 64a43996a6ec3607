//! What is kept of an entry beside its manifest: its icon, its package, and what changed in its version.

use tar::{Builder, EntryType, Header};
use tidegate_model::RepositoryProblem;

use crate::{
    Error, FoundPlugin, FoundTemplate, Snapshot,
    snapshot::{LARGEST_FILE, Problems},
};

/// Bytes of an icon at most.
const LARGEST_ICON: u64 = 256 * 1024;
/// Bytes of a plugin's package at most.
const LARGEST_PACKAGE: u64 = 16 * 1024 * 1024;
/// Files of a plugin at most.
const PACKAGE_FILES: usize = 2_000;
/// Bytes of a changelog that are read, and of a version's section that are kept.
const CHANGELOG: u64 = 1024 * 1024;
const SECTION: usize = 64 * 1024;

/// An icon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Icon {
    /// What its content is, as its first bytes say.
    pub media_type: &'static str,
    /// The image.
    pub content: Vec<u8>,
}

/// What cannot be kept of an entry.
pub type Complaint = RepositoryProblem;

impl Snapshot {
    /// A template's icon, if it has one that can be shown.
    pub async fn template_icon(
        &mut self,
        of: &FoundTemplate,
    ) -> Result<Result<Option<Icon>, Complaint>, Error> {
        self.icon(of.icon.as_deref()).await
    }

    /// A plugin's icon, if it has one that can be shown.
    pub async fn plugin_icon(&mut self, of: &FoundPlugin) -> Result<Result<Option<Icon>, Complaint>, Error> {
        self.icon(of.icon.as_deref()).await
    }

    async fn icon(&mut self, path: Option<&str>) -> Result<Result<Option<Icon>, Complaint>, Error> {
        let Some(path) = path else { return Ok(Ok(None)) };
        let content = match self.read(path, LARGEST_ICON).await? {
            Ok(content) => content,
            Err(reason) => return Ok(Err(complaint(path, &reason))),
        };
        Ok(match media_type(&content) {
            Some(media_type) => Ok(Some(Icon { media_type, content })),
            None => Err(complaint(path, "it is none of PNG, JPEG, GIF, WebP and SVG, and is not shown")),
        })
    }

    /// A plugin's files as one tar, the same one for the same files; or why there is none.
    pub async fn package(&mut self, of: &FoundPlugin) -> Result<Result<Vec<u8>, Complaint>, Error> {
        let too_large = || {
            let most = LARGEST_PACKAGE / 1024 / 1024;
            let reason = format!("its folder has more than {most} MiB or {PACKAGE_FILES} files");
            complaint(&of.folder, &reason)
        };
        let size: u64 = of.files.iter().filter_map(|path| self.files.get(path)).map(|file| file.size).sum();
        if size > LARGEST_PACKAGE || of.files.len() > PACKAGE_FILES {
            return Ok(Err(too_large()));
        }
        let mut tar = Builder::new(Vec::new());
        for path in &of.files {
            let content = match self.read(path, LARGEST_FILE).await? {
                Ok(content) => content,
                Err(reason) => return Ok(Err(complaint(path, &reason))),
            };
            let mut header = Header::new_gnu();
            header.set_entry_type(EntryType::Regular);
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, &path[of.folder.len()..], content.as_slice())?;
        }
        let tar = tar.into_inner()?;
        // What the files take in it, with their names beside them, is what is kept.
        Ok(if tar.len() as u64 > LARGEST_PACKAGE { Err(too_large()) } else { Ok(tar) })
    }

    /// What changed in a plugin's version, as its `CHANGELOG.md` says.
    pub async fn changelog(&mut self, of: &FoundPlugin) -> Result<String, Error> {
        let name = |path: &&String| path[of.folder.len()..].eq_ignore_ascii_case("changelog.md");
        let Some(path) = of.files.iter().find(name) else { return Ok(String::new()) };
        let content = self.read(path, CHANGELOG).await?.unwrap_or_default();
        Ok(section(&String::from_utf8_lossy(&content), &of.manifest.version.to_string()))
    }
}

fn complaint(path: &str, reason: &str) -> Complaint {
    let mut problems = Problems::default();
    problems.add(path, None, reason);
    problems.into_list().remove(0)
}

/// What an image is by its first bytes, whatever it is called; none where it is not shown, or has more bytes than icons have.
pub fn icon_type(content: &[u8]) -> Option<&'static str> {
    media_type(content).filter(|_| content.len() as u64 <= LARGEST_ICON)
}

fn media_type(content: &[u8]) -> Option<&'static str> {
    match content {
        [0x89, b'P', b'N', b'G', ..] => Some("image/png"),
        [0xff, 0xd8, 0xff, ..] => Some("image/jpeg"),
        [b'G', b'I', b'F', b'8', ..] => Some("image/gif"),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some("image/webp"),
        _ => {
            let text = std::str::from_utf8(content).ok()?;
            let mut text = text.trim_start_matches('\u{feff}').trim_start();
            // The declaration, comments and the document type that may come first.
            while let Some(rest) = text.strip_prefix("<?").or_else(|| text.strip_prefix("<!")) {
                let end = if rest.starts_with("--") { "-->" } else { ">" };
                text = text.split_once(end)?.1.trim_start();
            }
            text.strip_prefix("<svg").filter(|rest| rest.starts_with([' ', '>', '\n', '\r', '\t', '/']))?;
            Some("image/svg+xml")
        }
    }
}

/// The section under the heading that names a version: up to the next heading of its level or above.
fn section(changelog: &str, version: &str) -> String {
    let level = |line: &str| line.bytes().take_while(|byte| *byte == b'#').count();
    let is_heading = |line: &str| (1..=4).contains(&level(line)) && line[level(line)..].starts_with(' ');
    let names = |line: &str| {
        line.split(|c: char| c.is_whitespace() || "[]():,".contains(c))
            .any(|word| word.strip_prefix('v').unwrap_or(word) == version)
    };
    let mut lines = changelog.lines().skip_while(|line| !(is_heading(line) && names(line)));
    let Some(heading) = lines.next() else { return String::new() };
    let mut text = String::new();
    for line in lines.take_while(|line| !(is_heading(line) && level(line) <= level(heading))) {
        if text.len() + line.len() > SECTION {
            break;
        }
        text.extend(line.chars().filter(|c| !c.is_control() || *c == '\t'));
        text.push('\n');
    }
    text.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_versions_section_is_found() {
        let text = "# Changelog\n\n## [1.10.0] - 2026-01-01\n- ten\n\n## 1.1.0\n### Added\n- one\n\n## v1.0.0\n- first\n";
        assert_eq!(section(text, "1.1.0"), "### Added\n- one");
        assert_eq!(section(text, "1.10.0"), "- ten");
        assert_eq!(section(text, "1.0.0"), "- first");
        assert_eq!(section(text, "1.0"), "");
    }

    #[test]
    fn an_icon_is_what_its_bytes_say() {
        assert_eq!(media_type(b"\x89PNG\r\n\x1a\n"), Some("image/png"));
        assert_eq!(media_type(b"<?xml version='1.0'?>\n<!-- > -->\n<svg xmlns='x'/>"), Some("image/svg+xml"));
        assert_eq!(media_type(b"<!DOCTYPE html><html></html>"), None);
        assert_eq!(media_type(b"<svgx>"), None);
        assert_eq!(media_type(b"MZ"), None);
    }
}
