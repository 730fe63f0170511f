//! What a program is made with: fetched once, kept by its content, never another content than was pinned.

use lab_core::execute::Shelf;
use lab_core::execute::disk::{Crash, Disk, Fault, FaultyDisk};
use lab_core::testing::{Bench, Memory, Pantry, Thing};
use lab_core::*;
use std::sync::Arc;

const URL: &str = "https://example.org/things.txt";
const THINGS: &str = "lamp\nradio\n";
/// What `sha256sum` says of [`THINGS`].
const DIGEST: &str = "56b6e04dbc045629b97b35036b04189752681f7d4f5a73ca7848080e7ee0547a";
/// And of `lamp`.
const LAMP: &str = "c98e85f249002f03068e2a61e1a1df5c0db035d6cdf41d00ff6056ed63060947";

/// An outside with a shelf before it, on a disk in memory.
fn shelf() -> (Pantry, FaultyDisk, Bench) {
    let (pantry, disk) = (Pantry::new(), FaultyDisk::new());
    pantry.put(URL, THINGS);
    let bench = Bench::new().supplied(Shelf::new(Arc::new(disk.clone()), Arc::new(pantry.clone())));
    (pantry, disk, bench)
}

/// Declares a thing for each line of an asset.
fn declare(stack: &Stack, asset: &Asset) {
    let memory = stack.provider("memory", Memory::at("rack"));
    let bytes = asset.bytes().map(|bytes| String::from_utf8(bytes.to_vec()).unwrap()).unwrap_or_default();
    for line in bytes.lines() {
        memory.resource(line).add(Thing::new(line, "here"));
    }
}

fn program(stack: &Stack) -> std::result::Result<(), ProgramError> {
    declare(stack, &stack.asset(URL, DIGEST));
    Ok(())
}

/// Returns what a program has for problems, each with the file that it is reported in.
fn problems(bench: &Bench, url: &'static str, digest: &'static str) -> Vec<String> {
    let declared = bench.load(|stack: &Stack| {
        stack.asset(url, digest);
        Ok(())
    });
    assert_eq!(declared.lacking, !declared.problems.is_empty());
    declared
        .problems
        .iter()
        .map(|(place, problem)| {
            assert!(place.file.ends_with("assets.rs"), "{place}");
            problem.clone()
        })
        .collect()
}

#[test]
fn an_asset_is_fetched_once_and_then_read_without_a_network() {
    let (pantry, disk, bench) = shelf();
    bench.up_whole(program);
    assert_eq!(pantry.asked(), [format!("fetch {URL}")]);
    assert_eq!(disk.list().unwrap(), [DIGEST]);
    pantry.take(URL);
    assert!(bench.preview(program).is_empty());
    assert_eq!(pantry.asked(), [""; 0]);
    assert_eq!(bench.world().items().len(), 2);
}

#[test]
fn another_content_is_a_problem_that_names_both_digests_and_is_not_kept() {
    let (pantry, disk, bench) = shelf();
    pantry.put(URL, "lamp");
    assert_eq!(
        problems(&bench, URL, DIGEST),
        [format!(
            "{URL} has the SHA-256 {LAMP}, and not {DIGEST}: what is there now is not what was pinned; write the new \
             digest, if you trust it"
        )]
    );
    assert_eq!(disk.list().unwrap(), [""; 0]);
}

#[test]
fn a_digest_that_is_left_empty_is_told() {
    let (_, disk, bench) = shelf();
    assert_eq!(
        problems(&bench, URL, ""),
        [format!(
            "{URL} has the SHA-256 {DIGEST}, and the program does not say which it has to have: write that, if you \
             trust what is there now"
        )]
    );
    assert_eq!(disk.list().unwrap(), [""; 0]);
}

#[test]
fn what_cannot_be_an_address_or_a_digest_is_not_asked_for() {
    let (pantry, _, bench) = shelf();
    assert_eq!(
        problems(&bench, "http://example.org/things.txt", DIGEST),
        ["http://example.org/things.txt is not fetched: an asset's address begins with https://"]
    );
    assert_eq!(
        problems(&bench, URL, "../../etc/passwd"),
        [format!("\"../../etc/passwd\" is not the SHA-256 of {URL}: that has 64 hexadecimal digits")]
    );
    assert_eq!(pantry.asked(), [""; 0]);
}

#[test]
fn a_digest_may_be_written_as_other_tools_print_it() {
    let (_, _, bench) = shelf();
    let printed: &'static str = String::leak(format!("sha256:{}", DIGEST.to_uppercase()));
    assert_eq!(problems(&bench, URL, printed), [""; 0]);
}

#[test]
fn what_was_damaged_where_it_was_kept_is_fetched_anew() {
    let (pantry, disk, bench) = shelf();
    bench.up_whole(program);
    disk.flip(DIGEST, 3, 1);
    assert!(bench.preview(program).is_empty());
    assert_eq!(disk.get(DIGEST).unwrap(), THINGS.as_bytes());
    disk.flip(DIGEST, 3, 1);
    pantry.take(URL);
    assert_eq!(
        problems(&bench, URL, DIGEST),
        [format!("failed to fetch {URL}: it cannot be reached; what was kept in {} is damaged", disk.place(DIGEST))]
    );
}

#[test]
fn nothing_goes_because_an_asset_could_not_be_had() {
    let (pantry, disk, bench) = shelf();
    bench.up_whole(program);
    disk.remove(DIGEST).unwrap();
    pantry.take(URL);
    let plan = bench.preview(program);
    assert_eq!(plan.steps.len(), 0, "{plan:?}");
    assert_eq!(plan.problems.len(), 1);
    // To take everything away nothing is needed.
    bench.destroy(program);
    assert_eq!(bench.world().items().len(), 0);
}

#[test]
fn a_process_that_dies_while_it_keeps_something_leaves_nothing_wrong() {
    let (_, undisturbed, bench) = shelf();
    bench.load(program);
    let operations = undisturbed.operations().len();
    assert!(operations > 4, "{operations}");
    for at in 0..operations {
        for fault in [Fault::StopBefore, Fault::StopWithin(5), Fault::StopAfter, Fault::Broken, Fault::BrokenAfter] {
            for crash in [Crash::Process, Crash::Power, Crash::PowerPartly(7)] {
                let (pantry, disk, bench) = shelf();
                disk.inject(at, fault);
                let seen = bench.load(program);
                assert!(seen.nodes.is_empty() || seen.nodes.len() == 2);
                let after = disk.reopen(crash);
                let again = Bench::new().supplied(Shelf::new(Arc::new(after.clone()), Arc::new(pantry)));
                let seen = again.load(program);
                assert_eq!((seen.nodes.len(), seen.problems.len()), (2, 0), "{fault:?} at {at}, {crash:?}");
                assert_eq!(after.get(DIGEST).unwrap(), THINGS.as_bytes(), "{fault:?} at {at}, {crash:?}");
            }
        }
    }
}

#[test]
fn a_disk_that_is_full_is_said() {
    let (_, disk, bench) = shelf();
    disk.full_from(0);
    let problems = problems(&bench, URL, DIGEST);
    let start = format!("failed to fetch {URL}: it cannot be kept in {}: ", disk.place(DIGEST));
    assert!(problems[0].starts_with(&start), "{problems:?}");
}

#[test]
fn a_file_that_cannot_be_read_is_a_problem_with_its_line() {
    let pantry = Pantry::new();
    pantry.write("things.txt", THINGS);
    let bench = Bench::new().supplied(pantry);
    let declared = bench.load(|stack: &Stack| {
        declare(stack, &stack.file("things.txt"));
        stack.file("others.txt");
        Ok(())
    });
    assert_eq!(declared.nodes.len(), 2);
    let [(place, problem)] = declared.problems.as_slice() else { panic!("{:?}", declared.problems) };
    assert!(place.file.ends_with("assets.rs"));
    assert_eq!(problem, "failed to read others.txt: there is no such file");
}

#[test]
fn a_program_that_was_given_no_outside_gets_nothing() {
    let declared = Bench::new().load(program);
    assert_eq!(declared.problems[0].1, format!("failed to fetch {URL}: nothing is fetched here"));
}

#[test]
fn what_the_executable_holds_needs_nothing() {
    let declared = Bench::new().load(|stack: &Stack| {
        let asset = Asset::given("things.txt", THINGS);
        assert_eq!(asset.digest(), DIGEST);
        declare(stack, &asset);
        Ok(())
    });
    assert_eq!((declared.nodes.len(), declared.problems.len()), (2, 0));
}

#[test]
fn a_program_that_fails_for_lack_of_an_asset_says_that() {
    let failed = Bench::new().try_load(|stack: &Stack| -> std::result::Result<(), ProgramError> {
        let asset = stack.asset(URL, DIGEST);
        asset.bytes().map(|_| ()).ok_or_else(|| ProgramError::new("there are no things"))
    });
    let said = failed.err().unwrap().to_string();
    assert!(said.starts_with(&format!("failed to fetch {URL}: nothing is fetched here (lab-core/tests/assets.rs:")));
    assert!(said.ends_with(")\nthere are no things"), "{said}");
}
