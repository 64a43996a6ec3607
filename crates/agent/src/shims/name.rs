//! The name of an agent on its machine: its cgroups, containers and marks carry it. Made once and kept, so that neither a
//! new version nor another place of the data folder makes it a stranger to what it left running.

use std::{
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    path::Path,
};

use crate::{
    Error,
    files::{read_line, write_private},
};

/// The name of the agent of this data folder, made at its first start.
pub(crate) fn of(data: &Path) -> Result<String, Error> {
    let file = data.join("private/name");
    if let Some(name) = read_line(&file)?.filter(|name| is_name(name)) {
        return Ok(name);
    }
    let place = data.canonicalize().unwrap_or_else(|_| data.to_owned());
    let used = fs::read_dir(data.join("sessions")).is_ok_and(|mut sessions| sessions.next().is_some());
    // What an earlier version marked is found by the name it had then.
    let hash = if used { of_earlier_versions(&place) } else { fnv(place.as_os_str().as_encoded_bytes()) };
    let name = format!("tidegate-{hash:016x}");
    write_private(&file, name.as_bytes())?;
    Ok(name)
}

fn is_name(name: &str) -> bool {
    let digits = name.strip_prefix("tidegate-").unwrap_or_default();
    digits.len() == 16 && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// What this was before it was kept: of no use but once, because another version of Rust may hash otherwise.
fn of_earlier_versions(place: &Path) -> u64 {
    let mut hasher = DefaultHasher::new();
    place.hash(&mut hasher);
    hasher.finish()
}

/// FNV-1a, which is the same everywhere and for ever.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for name in ["private", "sessions"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        folder
    }

    #[test]
    fn the_hash_never_changes() {
        assert_eq!(fnv(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv(b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn a_name_is_kept_wherever_its_folder_goes() {
        let (first, place) = (folder(), tempfile::tempdir().unwrap());
        let name = of(first.path()).unwrap();
        assert!(is_name(&name), "{name}");
        let moved = place.path().join("elsewhere");
        fs::rename(first.keep(), &moved).unwrap();
        assert_eq!(of(&moved).unwrap(), name);
        assert_ne!(of(folder().path()).unwrap(), name);
    }

    #[test]
    fn sessions_of_an_earlier_version_keep_the_name_they_were_marked_with() {
        let folder = folder();
        fs::create_dir(folder.path().join("sessions/s-1")).unwrap();
        let hash = of_earlier_versions(&folder.path().canonicalize().unwrap());
        let name = of(folder.path()).unwrap();
        assert_eq!(name, format!("tidegate-{hash:016x}"));
        fs::remove_dir(folder.path().join("sessions/s-1")).unwrap();
        assert_eq!(of(folder.path()).unwrap(), name);
    }
}
