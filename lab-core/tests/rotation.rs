//! Another key in the place of the one that seals: nothing is lost wherever it stops, and nothing changes but the key.

use lab_core::execute::disk::{Crash, Disk, Fault, RealDisk, Verb as DiskVerb};
use lab_core::execute::lock::Lock;
use lab_core::execute::seal::{KeyFile, Keys, SealError};
use lab_core::execute::{KeySource, LabDir, LabError, Rotated, SavedPlan, Store, rotate, state_digest};
use lab_core::plan::{Observations, Verb};
use lab_core::testing::{Bench, Memory, MemoryDisk, Search, Thing};
use lab_core::{ProgramError, Secret, Stack};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const KEY: &str = "AGE-SECRET-KEY-1V4MX2UNEVFHKG7FQDDHX7AMNYP6XS6TNYPKXZC38WVSXKETEYYSSWQAH65";
const STACKS: [&str; 2] = ["lab", "lab-test"];
const SECRET: &str = "correct-horse-battery";

fn program(stack: &Stack) -> Result<Secret<String>, ProgramError> {
    let rack = stack.provider("rack", Memory::at(stack.name()));
    let a = rack.resource("a").add(Thing { secret: Some(Secret::from(SECRET).into()), ..Thing::new("a", "x") });
    rack.resource("b").add(Thing { secret: Some(a.output(|a| a.key).into()), ..Thing::new("b", "x") });
    Ok(Secret::from("returned-and-secret"))
}

fn search() -> Search {
    Search::of([("an input", SECRET), ("an output", "key-of-a-"), ("what was returned", "returned-and-secret")])
}

/// Two stacks on one disk, and the key file beside them.
fn lab() -> Bench {
    let bench = Bench::new().keeping_frames();
    STACKS.iter().for_each(|stack| bench.clone().named(stack).up_whole(program));
    bench.disk().put("age.key", format!("# mine\n{KEY}\n").as_bytes());
    bench.fork()
}

fn turn(disk: &MemoryDisk, to: Option<Keys>) -> Result<Rotated, LabError> {
    let stacks = STACKS.map(str::to_owned);
    rotate(Arc::new(disk.clone()), &stacks, disk, "age.key", to, UNIX_EPOCH)
}

fn text(disk: &MemoryDisk, name: &str) -> String {
    String::from_utf8(disk.get(name).unwrap_or_default()).unwrap()
}

/// The keys as whoever reads the files has them.
fn keys(disk: &MemoryDisk) -> Keys {
    Keys::parse(&format!("{}\n{}", text(disk, "age.key"), text(disk, "age.key.old")), "the test").unwrap()
}

/// Returns which of the keys alone opens all of a stack.
fn opens(disk: &dyn Disk, stack: &str, keys: &Keys) -> bool {
    let Ok(look) = Store::look(disk, stack, &KeySource::Given(keys.clone())) else { return false };
    assert!(look.state.secrets.len() > 2, "there is something to open");
    look.state.secrets.values().all(|sealed| keys.open(sealed).is_ok())
}

/// Everything is sealed for the key in the key file and no other, and nothing else is another than before.
fn turned(before: &Bench, bench: &Bench, story: &str) {
    let new = Keys::parse(&text(bench.disk(), "age.key"), "the test").unwrap();
    assert_eq!(new.recipients().len(), 1, "{story}");
    assert!(text(bench.disk(), "age.key.old").contains(KEY), "{story}: the key before is kept");
    for stack in STACKS {
        assert!(opens(bench.disk(), stack, &new), "{story}: {stack} is sealed for the new key");
        assert!(!opens(bench.disk(), stack, &Keys::fixed()), "{story}: {stack} is not sealed for the old one");
        let (was, bench) = (before.clone().named(stack), bench.clone().named(stack).with_keys(new.clone()));
        assert!(bench.preview(program).is_empty(), "{story}: another key is no change");
        let (mut was, mut is) = (was.state(), bench.state());
        assert!(was.secrets.keys().eq(is.secrets.keys()), "{story}: the fingerprints are the same");
        for state in [&mut was, &mut is] {
            (state.key, state.secrets) = (None, Default::default());
        }
        assert_eq!(was, is, "{story}");
    }
    for file in bench.disk().everything() {
        search().clean(story, &file);
    }
}

#[test]
fn a_rotation_seals_every_stack_anew_and_changes_no_plan() {
    let before = lab();
    let bench = before.fork();
    let rotated = turn(bench.disk(), None).unwrap();
    turned(&before, &bench, "a rotation");
    assert!(rotated.new && rotated.stacks.keys().eq(STACKS.iter()), "{rotated:?}");
    assert!(rotated.stacks.values().all(|count| *count > 3), "{rotated:?}");
    assert!(text(bench.disk(), "age.key").contains(&rotated.recipient));
    assert!(text(bench.disk(), "age.key.old").contains("# mine"), "remarks are kept, too");
    for stack in STACKS {
        let bench = bench.clone().named(stack).with_keys(keys(bench.disk()));
        bench.up_whole(program);
        assert!(bench.destroy(program).complete());
    }
}

#[test]
fn a_rotation_can_be_made_to_a_key_that_one_has_and_back() {
    let before = lab();
    let bench = before.fork();
    let mine = Keys::throwaway();
    let rotated = turn(bench.disk(), Some(mine.clone())).unwrap();
    assert_eq!(rotated.recipient, mine.recipient());
    turned(&before, &bench, "to a given key");
    let again = turn(bench.disk(), Some(mine)).unwrap();
    assert!(!again.new && again.stacks.values().all(|count| *count == 0), "{again:?}");
    let other = turn(bench.disk(), None).unwrap();
    assert!(other.new && other.recipient != rotated.recipient);
    turned(&before, &bench, "to a third key");
    turn(bench.disk(), Some(Keys::fixed())).unwrap();
    assert!(STACKS.iter().all(|stack| opens(bench.disk(), stack, &Keys::fixed())));
    assert_eq!(keys(bench.disk()).recipients()[0], Keys::fixed().recipient());
    let kept = Keys::parse(&text(bench.disk(), "age.key.old"), "the test").unwrap();
    assert!(kept.recipients().contains(&rotated.recipient) && kept.recipients().contains(&other.recipient));
}

#[test]
fn a_rotation_that_stops_anywhere_loses_nothing_and_the_next_one_finishes_it() {
    let before = lab();
    let undisturbed = before.fork();
    turn(undisturbed.disk(), None).unwrap();
    let operations = undisturbed.disk().operations();
    assert!(operations.iter().filter(|operation| operation.verb == DiskVerb::Rename).count() >= 4, "{operations:?}");
    let all = [
        Fault::StopBefore,
        Fault::StopWithin(9),
        Fault::StopAfter,
        Fault::NoSpace,
        Fault::Short(30),
        Fault::Broken,
        Fault::BrokenAfter,
    ];
    for (n, operation) in operations.iter().enumerate() {
        let reads = matches!(operation.verb, DiskVerb::Read | DiskVerb::List);
        for (m, fault) in if reads { &[Fault::Broken][..] } else { &all }.iter().enumerate() {
            let seed = (n * all.len() + m) as u64;
            let crashes = [Crash::Process, Crash::Power, Crash::PowerPartly(seed), Crash::PowerPartly(!seed)];
            // Each fault meets each crash somewhere; all of them everywhere, when more is asked for.
            let usual = &crashes[(n + m) % 4..][..1];
            let more = std::env::var_os("LAB_TEST_SEEDS").is_some();
            for crash in if more { &crashes[..] } else { usual } {
                let story = format!("{fault:?} at {n} {operation:?}, then {crash:?}");
                let bench = before.fork();
                bench.disk().inject(n, *fault);
                let first = turn(bench.disk(), None);
                if let Err(error) = &first {
                    search().clean(&story, format!("{error} {error:?}"));
                    assert!(!format!("{error} {error:?}").contains("AGE-SECRET-KEY-1"), "{story}: {error}");
                }
                let bench = bench.crashed(*crash);
                let there = keys(bench.disk());
                for stack in STACKS {
                    let (old, new) = (Keys::fixed(), Keys::parse(&text(bench.disk(), "age.key"), "new").unwrap());
                    assert!(opens(bench.disk(), stack, &old) || opens(bench.disk(), stack, &new), "{story}: {stack}");
                    assert!(opens(bench.disk(), stack, &there), "{story}: {stack} opens with what is there");
                    let bench = bench.clone().named(stack).with_keys(there.clone());
                    assert!(bench.preview(program).is_empty(), "{story}");
                }
                let done = |stack: &&str| {
                    opens(bench.disk(), stack, &Keys::parse(&text(bench.disk(), "age.key"), "").unwrap())
                };
                let begun = !text(bench.disk(), "age.key").contains(KEY);
                let half = begun && !STACKS.iter().all(done);
                let again = turn(bench.disk(), None).unwrap_or_else(|error| panic!("{story}: {error}"));
                assert!(!half || (!again.new && again.recipient == there.recipient()), "{story}: it is finished");
                turned(&before, &bench, &story);
                assert!(!bench.disk().list().unwrap().iter().any(|name| name.ends_with(".tmp")), "{story}");
            }
        }
    }
}

#[test]
fn a_run_between_the_halves_of_a_rotation_goes_on_with_the_new_key() {
    let bench = lab();
    let undisturbed = bench.fork();
    turn(undisturbed.disk(), None).unwrap();
    let key = |operation: &lab_core::execute::disk::Operation| {
        operation.verb == DiskVerb::Rename && operation.name == "age.key"
    };
    let n = undisturbed.disk().operations().iter().position(key).unwrap();
    bench.disk().inject(n, Fault::StopAfter);
    assert!(turn(bench.disk(), None).is_err());
    let bench = bench.crashed(Crash::Process);
    let bench = bench.clone().with_keys(keys(bench.disk()));
    let another = |stack: &Stack| {
        let returned = program(stack)?;
        let rack = stack.provider("more", Memory::at(stack.name()));
        rack.resource("c").add(Thing { secret: Some(Secret::from("another-secret").into()), ..Thing::new("c", "x") });
        Ok::<_, ProgramError>(returned)
    };
    bench.up_whole(another);
    let again = turn(bench.disk(), None).unwrap();
    assert!(!again.new, "the first one is finished");
    let new = Keys::parse(&text(bench.disk(), "age.key"), "the test").unwrap();
    assert!(STACKS.iter().all(|stack| opens(bench.disk(), stack, &new)));
    assert!(bench.with_keys(new).preview(another).is_empty());
}

#[test]
fn what_no_key_opens_is_told_before_anything_is_changed() {
    let bench = lab();
    let stranger = Bench::new().named("lab-test").with_keys(Keys::throwaway());
    stranger.up_whole(program);
    bench.disk().put("lab-test.journal", &stranger.disk().get("lab-test.journal").unwrap());
    let names = |bench: &Bench| bench.disk().list().unwrap();
    let files = |bench: &Bench| names(bench).iter().map(|name| bench.disk().get(name)).collect::<Vec<_>>();
    let (all, was) = (names(&bench), files(&bench));
    let error = turn(bench.disk(), None).unwrap_err();
    assert!(error.to_string().contains("stack lab-test") && error.to_string().contains("no key of"), "{error}");
    assert_eq!((names(&bench), files(&bench)), (all, was), "nothing was changed");
}

/// A lab directory on a real disk, its key elsewhere.
struct Home {
    held: tempfile::TempDir,
    dir: LabDir,
    file: KeyFile,
}

impl Home {
    fn new() -> Home {
        let held = tempfile::tempdir().unwrap();
        let dir = LabDir::new(held.path().join("lab"));
        let file = KeyFile { path: held.path().join("config").join("age.key"), named: true };
        std::fs::create_dir(held.path().join("config")).unwrap();
        std::fs::write(&file.path, KEY).unwrap();
        let bench = lab();
        std::fs::create_dir(dir.path()).unwrap();
        for stack in STACKS {
            let name = format!("{stack}.journal");
            std::fs::write(dir.path().join(&name), bench.disk().get(&name).unwrap()).unwrap();
        }
        Home { held, dir, file }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.held.path().join(name)
    }

    fn keys(&self) -> KeySource {
        KeySource::File { file: self.file.clone(), lab: self.dir.path().to_owned() }
    }

    fn open(&self) -> Result<(), LabError> {
        self.dir.open("lab", self.keys()).map(drop)
    }

    fn rotate(&self, to: Option<&Path>) -> Result<Rotated, LabError> {
        let to = to.map(|path| KeyFile { path: path.to_owned(), named: true });
        self.dir.rotate(&self.file, to.as_ref(), SystemTime::now())
    }
}

#[test]
fn a_state_opened_with_a_wrong_a_missing_or_a_rotated_key_says_what_to_try() {
    let home = Home::new();
    let old = std::fs::read_to_string(&home.file.path).unwrap();
    let refused = |what: &str, hint: &str| {
        let error = home.open().unwrap_err();
        let LabError::Store(error) = error else { panic!("{error}") };
        let (text, hinted) = (error.to_string(), error.hint());
        assert!(text.starts_with("open the secrets of stack lab: ") && text.contains(what), "{text}");
        assert!(hinted.contains(hint), "{text}: {hinted}");
        assert_eq!(text.lines().count(), 1, "one message: {text}");
        search().clean("a refusal", format!("{error} {error:?} {hinted}"));
        assert!(!format!("{error:?}").contains("AGE-SECRET-KEY-1"));
    };
    std::fs::write(&home.file.path, lines_of(&home, "other")).unwrap();
    refused("no key of", "add the key that sealed it as another line");
    std::fs::remove_file(&home.file.path).unwrap();
    refused("there is no key file", "point LAB_AGE_KEY_FILE at an existing key file");
    std::fs::write(&home.file.path, &old).unwrap();
    home.open().unwrap();
    let copied = std::fs::read(home.dir.path().join("lab.journal")).unwrap();
    home.rotate(None).unwrap();
    home.open().unwrap();
    // A copy from before is still opened by the key that was put aside; without that, it is said which keys there are.
    std::fs::write(home.dir.path().join("lab.journal"), copied).unwrap();
    home.open().unwrap();
    std::fs::remove_file(home.file.earlier()).unwrap();
    let recipient = home.file.load().unwrap().recipient();
    refused(&recipient, ".old");
    std::fs::write(&home.file.path, old).unwrap();
    home.open().unwrap();
}

/// Returns the text of a key file that fits nothing.
fn lines_of(home: &Home, name: &str) -> String {
    let file = KeyFile { path: home.path(name), named: false };
    file.load_or_create(home.dir.path(), UNIX_EPOCH).unwrap();
    std::fs::read_to_string(home.path(name)).unwrap()
}

#[test]
fn a_rotation_on_a_real_disk_keeps_keys_to_their_owner_and_follows_links() {
    let home = Home::new();
    #[cfg(unix)]
    {
        std::fs::rename(&home.file.path, home.path("dotfiles.key")).unwrap();
        std::os::unix::fs::symlink(home.path("dotfiles.key"), &home.file.path).unwrap();
    }
    let rotated = home.rotate(None).unwrap();
    home.open().unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert!(home.file.path.is_symlink(), "the link is not replaced, what it leads to is");
        assert_eq!(rotated.file, home.path("dotfiles.key").canonicalize().unwrap().display().to_string());
        for path in [&rotated.file, &rotated.earlier] {
            assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600, "{path}");
        }
    }
    assert!(std::fs::read_to_string(&rotated.earlier).unwrap().contains(KEY));
    let given = home.path("given.key");
    let text = lines_of(&home, "given.key");
    home.rotate(Some(&given)).unwrap();
    assert_eq!(std::fs::read_to_string(&given).unwrap(), text, "the file that the key is taken from stays as it is");
    let disk = RealDisk::new(home.dir.path());
    let given = Keys::parse(&text, "given").unwrap();
    assert!(STACKS.iter().all(|stack| opens(&disk, stack, &given)));
}

#[test]
fn a_rotation_refuses_keys_in_the_lab_directory_and_a_key_file_that_is_not_there() {
    let home = Home::new();
    let inside = home.dir.path().join("new.key");
    std::fs::write(&inside, KEY).unwrap();
    let error = home.rotate(Some(&inside)).unwrap_err();
    assert!(matches!(error, LabError::Keys(SealError::Inside { .. })), "{error}");
    let error = home.rotate(Some(&home.path("nowhere"))).unwrap_err();
    assert!(matches!(error, LabError::Keys(SealError::Missing { .. })), "{error}");
    std::fs::remove_file(&home.file.path).unwrap();
    let error = home.rotate(None).unwrap_err();
    assert!(matches!(error, LabError::Keys(SealError::Missing { .. })), "{error}");
    assert!(!home.file.path.exists(), "nothing is made up");
}

#[cfg(unix)]
#[test]
fn of_two_rotations_of_one_key_file_the_second_waits_for_the_first() {
    let home = Home::new();
    // What another lab's rotation holds.
    let held = std::fs::File::open(home.path("config")).unwrap();
    held.try_lock().unwrap();
    let error = home.rotate(None).unwrap_err();
    assert!(matches!(error, LabError::Keys(SealError::Busy { .. })), "{error}");
    held.unlock().unwrap();
    home.rotate(None).unwrap();
    drop(Lock::take(home.dir.path(), "up", UNIX_EPOCH + Duration::from_secs(1)).unwrap());
}

#[test]
fn a_plan_saved_before_a_rotation_is_refused_and_says_so() {
    let bench = lab();
    let make = |bench: &Bench| {
        let declared = bench.load(program);
        let plan = bench.plan(program, Verb::Destroy, &Observations::default(), &[]);
        let (seen, state) = (Observations::default(), state_digest(&bench.state()));
        SavedPlan::new(plan, seen, Vec::new(), 1, state, "exe".into(), &declared.vault, &Keys::fixed()).unwrap()
    };
    let saved = make(&bench);
    saved.check(&saved.plan, &state_digest(&bench.state()), "exe").unwrap();
    turn(bench.disk(), None).unwrap();
    let bench = bench.clone().with_keys(keys(bench.disk()));
    saved.vault(&keys(bench.disk())).expect("the key that was put aside opens it");
    let refused = saved.check(&saved.plan, &state_digest(&bench.state()), "exe").unwrap_err();
    assert!(refused.to_string().contains("the state has changed"), "{refused}");
    assert!(refused.hint().contains("preview --out"), "{}", refused.hint());
    // With the new key alone it cannot even be opened.
    let new = Keys::parse(&text(bench.disk(), "age.key"), "the key file").unwrap();
    let refused = saved.vault(&new).unwrap_err();
    assert!(refused.to_string().contains("no key of the key file fits"), "{refused}");
    assert!(refused.hint().contains("preview --out"), "{}", refused.hint());
}
