//! Secrets made once: private, whole, the same for everybody.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::sync::Barrier;

use tidegate_engines::Error;
use tidegate_engines::secrets::{master_key, password, read_master_key};

#[test]
fn a_master_key_is_made_once_and_private() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("master.key");
    let made = master_key(&path).unwrap();
    assert_eq!(master_key(&path).unwrap(), made);
    assert_eq!(read_master_key(&path).unwrap(), made);
    let metadata = fs::metadata(&path).unwrap();
    assert_eq!((metadata.mode() & 0o777, metadata.len()), (0o600, 32));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no draft is left behind");
}

#[test]
fn racers_for_the_first_key_all_get_the_same_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("master.key");
    let start = Barrier::new(16);
    let keys: Vec<_> = std::thread::scope(|scope| {
        let racers: Vec<_> = (0..16)
            .map(|_| {
                scope.spawn(|| {
                    start.wait();
                    master_key(&path).unwrap()
                })
            })
            .collect();
        racers.into_iter().map(|racer| racer.join().unwrap()).collect()
    });
    assert!(keys.iter().all(|key| key == &keys[0]));
}

#[test]
fn a_key_that_others_may_read_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("master.key");
    master_key(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let error = master_key(&path).unwrap_err();
    assert!(matches!(error, Error::Secret { .. }));
    assert!(error.to_string().contains("has mode 0640; run `chmod 600"), "{error}");
}

#[test]
fn a_key_of_the_wrong_size_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("master.key");
    fs::write(&path, [7; 31]).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let error = master_key(&path).unwrap_err();
    assert!(error.to_string().contains("has 31 bytes instead of 32"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), [7; 31]);
}

#[test]
fn a_missing_key_is_not_made_by_reading() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("master.key");
    assert!(matches!(read_master_key(&path), Err(Error::Io { .. })));
    assert!(!path.exists());
}

#[test]
fn secrets_do_not_print_themselves() {
    let folder = tempfile::tempdir().unwrap();
    let key = master_key(&folder.path().join("master.key")).unwrap();
    let password = password(&folder.path().join("role.password")).unwrap();
    assert_eq!(format!("{key:?} {password:?}"), "MasterKey([redacted]) Password([redacted])");
    assert_eq!(password.expose().len(), 48);
}
