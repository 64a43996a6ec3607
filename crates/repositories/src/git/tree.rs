//! The files of a commit, as `git ls-tree` lists them.

use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
    time::{Instant, timeout_at},
};

use crate::{
    Error, Options, Step,
    fetch::Tell,
    program::Running,
    snapshot::{File, Kind, Listing, Place},
};

/// Bytes of one line at most.
const LONGEST: usize = 64 * 1024;

/// Lists every file; a commit with more than may be is given up at once.
pub(super) async fn list(
    command: &mut Command,
    options: &Options,
    until: Instant,
    tell: &Tell,
) -> Result<Listing, Error> {
    let mut running = Running::start(command)?;
    let stdout = running.child.stdout.take().ok_or(Error::Ended)?;
    let reading = async {
        let mut lines = BufReader::new(tokio::io::AsyncReadExt::take(stdout, u64::MAX));
        let mut listing = Listing::new(options);
        let mut line = Vec::new();
        loop {
            line.clear();
            if lines.read_until(0, &mut line).await? == 0 {
                return Ok::<_, Error>(listing);
            }
            if line.len() > LONGEST {
                return Err(Error::refused("a path in it is too long"));
            }
            let Some((file, path)) = read(&line) else {
                return Err(Error::refused("git listed its files in a way that is not understood"));
            };
            listing.add(path, file)?;
            if listing.len().is_multiple_of(1_000) {
                tell(Step::Listing { files: listing.len() });
            }
        }
    };
    let listing =
        timeout_at(until, reading).await.map_err(|_| Error::TooSlow(options.time().as_secs()))??;
    let ended = running.finish(0, until, options.time()).await?;
    if ended.success { Ok(listing) } else { Err(Error::refused("git could not list its files")) }
}

/// `100644 blob 257cc5642cb1a054f08cc83f2d943e56fd3ebe99      12<tab>path<NUL>`.
fn read(line: &[u8]) -> Option<(File, &[u8])> {
    let line = line.strip_suffix(&[0]).unwrap_or(line);
    let tab = line.iter().position(|b| *b == b'\t')?;
    let mut words = std::str::from_utf8(&line[..tab]).ok()?.split_ascii_whitespace();
    let (mode, _kind, oid, size) = (words.next()?, words.next()?, words.next()?, words.next()?);
    let kind = match mode {
        "120000" => Kind::Link,
        "160000" => Kind::Submodule,
        _ if mode.starts_with("100") => Kind::Regular,
        _ => Kind::Other,
    };
    // A submodule has no size.
    let size = size.parse().unwrap_or(0);
    let file = File { kind, size, identity: oid.to_owned(), place: Place::Blob };
    Some((file, &line[tab + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_with_their_kinds() {
        let (file, path) = read(b"100644 blob 257cc5642cb1a054      12\ta b/\xffc.yaml\0").unwrap();
        assert_eq!((file.kind, file.size, path), (Kind::Regular, 12, b"a b/\xffc.yaml".as_slice()));
        assert_eq!(read(b"120000 blob 257c 7\tlink\0").unwrap().0.kind, Kind::Link);
        assert_eq!(read(b"160000 commit 257c -\tsub\0").unwrap().0.kind, Kind::Submodule);
        assert!(read(b"nonsense\0").is_none());
    }
}
