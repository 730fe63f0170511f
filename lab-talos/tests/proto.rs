//! The committed code of the machine API is what the generator makes of `proto/*.proto`.
//!
//! Run with `REGENERATE=1` to rewrite it after a change of a definition.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

fn sources(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .collect();
    files.sort();
    files
}

fn contents(dir: &Path) -> BTreeMap<String, String> {
    sources(dir, "rs")
        .into_iter()
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read_to_string(&path).unwrap()))
        .collect()
}

#[test]
fn the_committed_code_is_what_the_generator_makes() {
    let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    let definitions = crate_dir.join("proto");
    let committed = crate_dir.join("src/proto");
    let descriptors = protox::compile(sources(&definitions, "proto"), [&definitions]).unwrap();

    let fresh = tempfile::tempdir().unwrap();
    tonic_prost_build::configure().build_transport(false).out_dir(fresh.path()).compile_fds(descriptors).unwrap();

    let fresh = contents(fresh.path());
    if std::env::var_os("REGENERATE").is_some() {
        for stale in sources(&committed, "rs") {
            fs::remove_file(stale).unwrap();
        }
        for (name, code) in &fresh {
            fs::write(committed.join(name), code).unwrap();
        }
    }
    let committed = contents(&committed);
    assert_eq!(fresh.keys().collect::<Vec<_>>(), committed.keys().collect::<Vec<_>>());
    for (name, code) in &fresh {
        assert!(*code == committed[name], "{name} is stale: run this test with REGENERATE=1");
    }
}
