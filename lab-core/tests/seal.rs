//! Secrets at rest: what opens them, what does not, and what is said then.

use lab_core::Vault;
use lab_core::execute::seal::{Ids, KeyFile, Keys, SealError};
use serde_json::json;
use std::ffi::OsString;
use std::path::Path;
use std::time::UNIX_EPOCH;

const PLAIN: &[u8] = b"claim-Zf3q9 is a secret";

fn unnamed(path: &Path) -> KeyFile {
    KeyFile { path: path.to_owned(), named: false }
}

#[test]
fn what_is_sealed_opens_again_and_looks_like_nothing() {
    let keys = Keys::fixed();
    let (one, two) = (keys.seal(PLAIN), keys.seal(PLAIN));
    assert_ne!(one, two, "equal secrets do not look equal");
    assert!(!one.contains("claim"));
    assert_eq!(keys.open(&one).unwrap(), PLAIN);
    assert_eq!(keys.open(&keys.seal(b"")).unwrap(), b"");
    let large = vec![7; 200_000];
    assert_eq!(keys.open(&keys.seal(&large)).unwrap(), large);
}

#[test]
fn another_key_does_not_open_it_and_the_message_names_no_secret() {
    let sealed = Keys::fixed().seal(PLAIN);
    let other = Keys::throwaway();
    let error = other.open(&sealed).unwrap_err();
    let text = format!("{error} {error:?} {}", error.hint());
    assert!(matches!(error, SealError::WrongKey { .. }));
    assert!(text.contains(&other.recipient()) && text.contains("LAB_AGE_KEY_FILE"), "{text}");
    assert!(!text.contains("AGE-SECRET-KEY-1") && !text.contains("Zf3q9"), "{text}");
}

#[test]
fn damaged_text_is_refused_wherever_it_is_damaged() {
    let keys = Keys::fixed();
    let sealed = keys.seal(PLAIN);
    for at in 0..sealed.len() {
        let mut damaged = sealed.clone().into_bytes();
        damaged[at] = if damaged[at] == b'A' { b'B' } else { b'A' };
        if damaged[at] == sealed.as_bytes()[at] {
            continue;
        }
        let damaged = String::from_utf8(damaged).unwrap();
        assert!(keys.open(&damaged).is_err(), "a change at {at} goes unnoticed");
    }
    for part in 0..sealed.len() {
        assert!(keys.open(&sealed[..part]).is_err(), "{part} characters are not all of it");
    }
}

#[test]
fn the_first_key_seals_and_all_keys_open() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (dir.path().join("old"), dir.path().join("new"));
    let old = unnamed(&old).load_or_create(&dir.path().join("lab"), UNIX_EPOCH).map(|keys| (keys, old)).unwrap();
    let new = unnamed(&new).load_or_create(&dir.path().join("lab"), UNIX_EPOCH).map(|keys| (keys, new)).unwrap();
    let sealed = old.0.seal(PLAIN);
    assert!(new.0.open(&sealed).is_err());
    let text = std::fs::read_to_string(&new.1).unwrap() + "\n" + &std::fs::read_to_string(&old.1).unwrap();
    let rotated = Keys::parse(&text, "both").unwrap();
    assert_eq!(rotated.open(&sealed).unwrap(), PLAIN);
    assert_eq!(rotated.recipient(), new.0.recipient());
    assert_eq!(new.0.open(&rotated.seal(PLAIN)).unwrap(), PLAIN);
    assert!(old.0.open(&rotated.seal(PLAIN)).is_err());
}

#[test]
fn the_key_file_is_where_the_user_says_else_in_the_configuration_directory() {
    let locate = |set: &[(&str, &str)]| {
        let set: Vec<(String, OsString)> = set.iter().map(|(name, value)| (name.to_string(), value.into())).collect();
        KeyFile::locate_in(|name| set.iter().find(|(other, _)| other == name).map(|(_, value)| value.clone()))
    };
    let at = |path: &str, named| KeyFile { path: path.into(), named };
    let all = [("LAB_AGE_KEY_FILE", "/keys/lab"), ("XDG_CONFIG_HOME", "/config"), ("HOME", "/home/me")];
    assert_eq!(locate(&all).unwrap(), at("/keys/lab", true));
    assert_eq!(locate(&all[1..]).unwrap(), at("/config/lab/age.key", false));
    assert_eq!(locate(&all[2..]).unwrap(), at("/home/me/.config/lab/age.key", false));
    assert_eq!(locate(&[("LAB_AGE_KEY_FILE", ""), all[2]]).unwrap(), at("/home/me/.config/lab/age.key", false));
    assert_eq!(locate(&[("XDG_CONFIG_HOME", "here"), all[2]]).unwrap(), at("/home/me/.config/lab/age.key", false));
    assert!(matches!(locate(&[]), Err(SealError::Nowhere)));
}

#[test]
fn a_key_is_made_once_for_its_owner_only_and_only_when_something_is_sealed() {
    let dir = tempfile::tempdir().unwrap();
    let lab = dir.path().join("lab");
    let file = unnamed(&dir.path().join("config").join("lab").join("age.key"));
    assert!(matches!(file.load(), Err(SealError::Missing { named: false, .. })));
    assert!(!file.path.parent().unwrap().exists(), "looking for a key makes none");
    let keys = file.load_or_create(&lab, UNIX_EPOCH).unwrap();
    let text = std::fs::read_to_string(&file.path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "# created: 1970-01-01T00:00:00Z");
    assert_eq!(lines[1], format!("# public key: {}", keys.recipient()));
    assert!(lines[2].starts_with("AGE-SECRET-KEY-1") && lines.len() == 3);
    assert_eq!(std::fs::read_dir(file.path.parent().unwrap()).unwrap().count(), 1, "nothing else is left there");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(&file.path).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let again = file.load_or_create(&lab, UNIX_EPOCH).unwrap();
    assert_eq!(again.open(&keys.seal(PLAIN)).unwrap(), PLAIN);
    assert_eq!(std::fs::read_to_string(&file.path).unwrap(), text);
}

#[test]
fn processes_that_make_the_first_key_at_once_agree_on_one() {
    let dir = tempfile::tempdir().unwrap();
    let file = unnamed(&dir.path().join("config").join("age.key"));
    let lab = dir.path().join("lab");
    let all: Vec<Keys> = std::thread::scope(|scope| {
        let runs: Vec<_> = (0..8).map(|_| scope.spawn(|| file.load_or_create(&lab, UNIX_EPOCH).unwrap())).collect();
        runs.into_iter().map(|run| run.join().unwrap()).collect()
    });
    assert!(all.iter().all(|keys| keys.recipient() == all[0].recipient()));
}

#[test]
fn a_key_file_that_the_user_names_is_never_made_up() {
    let dir = tempfile::tempdir().unwrap();
    let file = KeyFile { path: dir.path().join("mistyped"), named: true };
    let error = file.load_or_create(&dir.path().join("lab"), UNIX_EPOCH).unwrap_err();
    assert!(matches!(error, SealError::Missing { named: true, .. }));
    assert!(error.hint().contains("age-keygen"));
    assert!(!file.path.exists());
}

#[test]
fn a_key_in_the_lab_directory_is_refused_however_it_is_spelled() {
    let dir = tempfile::tempdir().unwrap();
    let lab = dir.path().join("lab");
    std::fs::create_dir(&lab).unwrap();
    std::fs::create_dir(dir.path().join("elsewhere")).unwrap();
    let check = |path: &Path| {
        let error = unnamed(path).load_or_create(&lab, UNIX_EPOCH).unwrap_err();
        assert!(matches!(error, SealError::Inside { .. }), "{error}");
    };
    check(&lab.join("age.key"));
    check(&lab.join("deep").join("age.key"));
    check(&dir.path().join("elsewhere").join("..").join("lab").join("age.key"));
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(&lab, dir.path().join("link")).unwrap();
        check(&dir.path().join("link").join("age.key"));
    }
    assert_eq!(std::fs::read_dir(&lab).unwrap().count(), 0);
    unnamed(&dir.path().join("labour.key")).load_or_create(&lab, UNIX_EPOCH).expect("a longer name is another place");
}

#[test]
fn a_key_file_that_cannot_be_understood_is_named_by_line_never_by_content() {
    let error = Keys::parse("# mine\n\nAGE-SECRET-KEY-1NOTREALLY\n", "/keys/lab").unwrap_err();
    let text = format!("{error} {error:?}");
    assert!(text.contains("/keys/lab") && text.contains("line 3"), "{text}");
    assert!(!text.contains("NOTREALLY"), "{text}");
    let error = Keys::parse("# nothing here\n", "/keys/lab").unwrap_err();
    assert!(error.to_string().contains("no key"), "{error}");
}

#[test]
fn nothing_prints_a_key() {
    let keys = format!("{:?} {:#?}", Keys::fixed(), Keys::fixed());
    assert!(keys.contains("[secret]") && !keys.contains("AGE-SECRET-KEY-1"), "{keys}");
    assert_eq!(format!("{:?}", Vault::new([7; 32])), "Vault([secret])");
}

#[test]
fn fingerprints_follow_the_value_and_the_key_and_nothing_else() {
    let vault = Vault::new([7; 32]);
    let value = json!({"b": "token", "a": 1});
    assert_eq!(vault.put(&value), Vault::new(vault.key()).put(&json!({"a": 1, "b": "token"})));
    assert_ne!(vault.put(&value), vault.put(&json!({"a": 1, "b": "Token"})));
    assert_ne!(vault.put(&value), Vault::new([8; 32]).put(&value));
    // Computed with `openssl dgst -sha256 -mac HMAC`, over the quoted string, cut to 32 digits.
    assert_eq!(Vault::new([0x0b; 32]).put(&json!("Hi There")), "6e003fc6371ce81363a33ce3cfa4d419");
}

#[test]
fn ids_are_unique_and_the_same_for_the_same_seed() {
    let take = |ids: &Ids| (0..100).map(|_| ids.next()).collect::<Vec<_>>();
    assert_eq!(take(&Ids::seeded(7)), take(&Ids::seeded(7)));
    let mut all = [take(&Ids::seeded(7)), take(&Ids::seeded(8)), take(&Ids::random()), take(&Ids::random())].concat();
    assert!(all.iter().all(|id| id.len() == 32 && id.bytes().all(|digit| digit.is_ascii_hexdigit())));
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 400);
}
