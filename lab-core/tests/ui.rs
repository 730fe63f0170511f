//! What the compiler says to a person who made a mistake: our own words, kept as they are printed.
//!
//! Half of each message is the compiler's and changes with its version, so the texts are compared on the version that
//! wrote them. On any other this test says that it did not, and passes.

/// The compiler that the texts were written by. Rewrite them with `TRYBUILD=overwrite cargo test --test ui`.
const WRITTEN_BY: &str = "rustc 1.95.";

#[test]
fn mistakes_are_named_in_the_words_of_the_library() {
    let rustc = std::process::Command::new("rustc").arg("--version").output().expect("cargo runs with a rustc");
    let version = String::from_utf8_lossy(&rustc.stdout).into_owned();
    if !version.starts_with(WRITTEN_BY) {
        println!("SKIPPED: the messages were written by {WRITTEN_BY}x, this is {version}");
        return;
    }
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}
