//! Unpacking an archive into one file without names: what an archive calls its files is only ever a name in a list.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write},
    path::Path,
    time::Instant,
};

use aws_lc_rs::digest::{Context, SHA256};
use flate2::read::MultiGzDecoder;
use tar::EntryType;
use zip::ZipArchive;

use crate::{
    Error, Options,
    error::shown,
    snapshot::{File, Kind, LARGEST_FILE, Listing, Place},
};

/// A name of a file in a tar at most.
const LONGEST_NAME: u64 = 64 * 1024;
/// How much more than what is fetched may come out of it, what is skipped included.
const SWELLING: u64 = 8;

/// An archive's files.
pub(crate) struct Unpacked {
    /// Of the archive itself.
    pub(crate) digest: String,
    pub(crate) listing: Listing,
    /// All contents, one after the other.
    pub(crate) content: fs::File,
}

/// Unpacks the archive at `path`.
pub(crate) fn unpack(path: &Path, folder: &Path, options: &Options) -> Result<Unpacked, Error> {
    let mut archive = fs::File::open(path)?;
    let digest = digest_of(&mut archive)?;
    let into = Into::new(tempfile::tempfile_in(folder)?, options);
    let (listing, content) = into.take_in(archive)?;
    Ok(Unpacked { digest, listing, content })
}

/// The files of an archive that somebody brings, in memory, within the bounds that `options` set. What lies in one folder
/// together is named without it. Whatever is no plain file inside of it is refused, and not left out.
pub fn files_of(archive: &[u8], options: &Options) -> Result<BTreeMap<String, Vec<u8>>, Error> {
    let (listing, content) = Into::new(Vec::new(), options).take_in(io::Cursor::new(archive))?;
    if let Some(problem) = listing.problems.as_slice().first() {
        let reason = problem.reason.split(", and ").next().unwrap_or_default();
        if problem.path.is_empty() {
            return Err(Error::refused(reason.to_owned()));
        }
        return Err(Error::refused(format!("holds `{}`: {reason}", problem.path)));
    }
    if listing.left_out > 0 {
        let most = options.max_depth;
        return Err(Error::refused(format!("holds more than {most} folders inside each other")));
    }
    let files = listing.files.into_iter().map(|(path, file)| {
        let refused = |what: &str| Error::refused(format!("holds `{}`, which {what}", shown(&path, &[])));
        let offset = match (file.kind, file.place) {
            (Kind::Regular, Place::At(offset)) => offset,
            (Kind::Regular, Place::Blob | Place::Nowhere) => return Err(refused("is too large")),
            (Kind::Link | Kind::Submodule | Kind::Other, _) => {
                return Err(refused("is neither a file nor a folder"));
            }
        };
        let index = |number: u64| usize::try_from(number).map_err(|_| Error::Ended);
        let bytes = content.get(index(offset)?..index(offset + file.size)?).ok_or(Error::Ended)?.to_vec();
        Ok((path, bytes))
    });
    files.collect()
}

/// Where unpacked files go, and how much room is left.
struct Into<'a, W> {
    options: &'a Options,
    listing: Listing,
    content: W,
    written: u64,
    until: Instant,
}

impl<'a, W: Write> Into<'a, W> {
    fn new(content: W, options: &'a Options) -> Self {
        let until = Instant::now() + options.time();
        Self { options, listing: Listing::new(options), content, written: 0, until }
    }

    /// Unpacks whichever kind of archive it is.
    fn take_in(mut self, mut archive: impl Read + Seek) -> Result<(Listing, W), Error> {
        let mut head = [0; 262];
        let read = read_some(&mut archive, &mut head)?;
        archive.seek(SeekFrom::Start(0))?;
        let head = &head[..read];
        if head.starts_with(b"PK\x03\x04") || head.starts_with(b"PK\x05\x06") {
            unzip(archive, &mut self)?;
        } else if head.starts_with(&[0x1f, 0x8b]) {
            untar(MultiGzDecoder::new(BufReader::new(archive)), &mut self)?;
        } else if head.get(257..262) == Some(b"ustar".as_slice()) {
            untar(BufReader::new(archive), &mut self)?;
        } else {
            return Err(Error::refused(
                "what was sent is neither a zip, nor a tar, nor a tar that gzip compressed",
            ));
        }
        strip_common_folder(&mut self.listing);
        Ok((self.listing, self.content))
    }

    fn regular(&mut self, name: &[u8], size: u64, content: &mut dyn Read) -> Result<(), Error> {
        if Instant::now() > self.until {
            return Err(Error::TooSlow(self.options.time().as_secs()));
        }
        if size > LARGEST_FILE {
            let file = File { kind: Kind::Regular, size, identity: String::new(), place: Place::Nowhere };
            return self.listing.add(name, file);
        }
        let offset = self.written;
        let mut hash = Context::new(&SHA256);
        let mut buffer = vec![0; 64 * 1024];
        // One byte more than was said: whoever says too little is found out.
        let mut content = content.take(LARGEST_FILE + 1);
        loop {
            let read = content.read(&mut buffer).map_err(|error| damaged(&error))?;
            if read == 0 {
                break;
            }
            self.written += read as u64;
            if self.written > self.options.bytes() {
                return Err(too_large(self.options));
            }
            hash.update(&buffer[..read]);
            self.content.write_all(&buffer[..read])?;
        }
        let (size, identity) = (self.written - offset, hex::encode(hash.finish()));
        let place = if size > LARGEST_FILE { Place::Nowhere } else { Place::At(offset) };
        self.listing.add(name, File { kind: Kind::Regular, size, identity, place })
    }

    fn other(&mut self, name: &[u8], kind: Kind) -> Result<(), Error> {
        self.listing.add(name, File { kind, size: 0, identity: String::new(), place: Place::Nowhere })
    }
}

fn too_large(options: &Options) -> Error {
    let most = options.max_mebibytes;
    Error::refused(format!("it holds more than the {most} MiB that are read of one"))
}

fn damaged(error: &io::Error) -> Error {
    Error::refused(match error.kind() {
        io::ErrorKind::FileTooLarge => "it unpacks to far more than is read of one",
        _ => "the archive is damaged",
    })
}

fn unzip<W: Write>(archive: impl Read + Seek, into: &mut Into<'_, W>) -> Result<(), Error> {
    let damaged_zip = |_| Error::refused("the archive is damaged");
    let mut archive = BufReader::new(archive);
    count_entries(&mut archive, into.options)?;
    let mut archive = ZipArchive::new(archive).map_err(damaged_zip)?;
    if archive.has_duplicate_names() {
        // Its list of names has each once: which ones they are is not known any more.
        into.listing.problems.add("", None, "it holds files of one name, and the last one of each is taken");
    }
    for index in 0..archive.len() {
        let name = archive.by_index_raw(index).map_err(damaged_zip)?.name_raw().to_vec();
        let Ok(mut entry) = archive.by_index(index) else {
            // Compressed in a way that is not read, or encrypted.
            let shown = String::from_utf8_lossy(&name);
            into.listing.problems.add(&shown, None, "it cannot be unpacked, and is left out");
            continue;
        };
        if entry.is_dir() {
            continue;
        }
        if entry.is_symlink() {
            into.other(&name, Kind::Link)?;
            continue;
        }
        let size = entry.size();
        into.regular(&name, size, &mut entry)?;
    }
    Ok(())
}

/// Counts what can be an entry of a zip, before its whole list is made: what the end of an archive states can be forged, and a
/// list of millions of empty files is small on disk and large in memory. An archive that lies uncompressed in it counts, too;
/// hence twice as many.
fn count_entries(archive: &mut (impl BufRead + Seek), options: &Options) -> Result<(), Error> {
    let most = u64::from(options.max_files);
    let mut found = 0;
    let mut seen = 0;
    archive.seek(SeekFrom::Start(0))?;
    loop {
        let bytes = archive.fill_buf()?;
        if bytes.is_empty() {
            break;
        }
        for byte in bytes {
            seen = match (seen, byte) {
                (1, b'K') => 2,
                (2, 1) => 3,
                (3, 2) => {
                    found += 1;
                    0
                }
                (_, b'P') => 1,
                (_, _) => 0,
            };
        }
        let length = bytes.len();
        archive.consume(length);
        if found > 2 * most {
            return Err(Error::refused(format!(
                "it has more than {most} files, the most that are read of one"
            )));
        }
    }
    archive.seek(SeekFrom::Start(0))?;
    Ok(())
}

/// Refuses to read on after so many bytes, or so much time.
struct Bounded<R> {
    inner: R,
    left: u64,
    until: Instant,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 || Instant::now() > self.until {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let read = self.inner.read(buffer)?;
        self.left = self.left.saturating_sub(read as u64);
        Ok(read)
    }
}

fn untar<W: Write>(archive: impl Read, into: &mut Into<'_, W>) -> Result<(), Error> {
    let inner = Bounded { inner: archive, left: SWELLING * into.options.bytes(), until: into.until };
    let mut archive = tar::Archive::new(inner);
    let mut long_name: Option<Vec<u8>> = None;
    // Raw: the crate would read extensions of any length into memory.
    for entry in archive.entries().map_err(|it| damaged(&it))?.raw(true) {
        let mut entry = entry.map_err(|it| damaged(&it))?;
        let kind = entry.header().entry_type();
        match kind {
            EntryType::GNULongName => {
                let mut name = Vec::new();
                entry.by_ref().take(LONGEST_NAME).read_to_end(&mut name).map_err(|it| damaged(&it))?;
                while name.last() == Some(&0) {
                    name.pop();
                }
                long_name = Some(name);
                continue;
            }
            EntryType::XHeader => {
                let mut records = Vec::new();
                entry.by_ref().take(LONGEST_NAME).read_to_end(&mut records).map_err(|it| damaged(&it))?;
                long_name = pax_path(&records).or(long_name);
                continue;
            }
            EntryType::XGlobalHeader | EntryType::Directory | EntryType::GNULongLink => continue,
            _ => {}
        }
        let name = match long_name.take() {
            Some(name) => name,
            None => entry.path_bytes().into_owned(),
        };
        let name = name.strip_prefix(b"./").map(<[u8]>::to_vec).unwrap_or(name);
        match kind {
            EntryType::Regular | EntryType::Continuous => {
                let size = entry.header().entry_size().map_err(|it| damaged(&it))?;
                into.regular(&name, size, &mut entry)?;
            }
            EntryType::Symlink | EntryType::Link => into.other(&name, Kind::Link)?,
            _ => into.other(&name, Kind::Other)?,
        }
    }
    Ok(())
}

/// The path in records of the form `27 path=a/long/name\n`.
fn pax_path(mut records: &[u8]) -> Option<Vec<u8>> {
    let mut found = None;
    while let Some(space) = records.iter().position(|b| *b == b' ') {
        let length: usize = std::str::from_utf8(&records[..space]).ok()?.parse().ok()?;
        let record = records.get(space + 1..length)?;
        if let Some(path) = record.strip_prefix(b"path=") {
            found = Some(path.strip_suffix(b"\n").unwrap_or(path).to_vec());
        }
        records = records.get(length..)?;
    }
    found
}

/// Takes away the one folder that everything lies in, as in archives that servers of git make: its name changes with
/// each commit.
fn strip_common_folder(listing: &mut Listing) {
    let first = |path: &str| path.split_once('/').map(|(first, _)| format!("{first}/"));
    let Some(prefix) = listing.files.keys().next().and_then(|path| first(path)) else { return };
    if listing.files.keys().all(|path| path.starts_with(&prefix)) {
        let files = std::mem::take(&mut listing.files);
        listing.files =
            files.into_iter().map(|(path, file)| (path[prefix.len()..].to_owned(), file)).collect();
    }
}

fn digest_of(file: &mut fs::File) -> io::Result<String> {
    let mut context = Context::new(&SHA256);
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        context.update(&buffer[..read]);
    }
    file.seek(SeekFrom::Start(0))?;
    Ok(hex::encode(context.finish()))
}

fn read_some(file: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..])? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(filled)
}
