//! Writes what each target begins with to `corpus/TARGET/`, where cargo-fuzz looks for it.

use lab_core::testing::fuzz::TARGETS;
use std::path::Path;

fn main() -> std::io::Result<()> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for target in TARGETS {
        let dir = corpus.join(target.name);
        std::fs::create_dir_all(&dir)?;
        for (n, seed) in target.seeds().iter().enumerate() {
            std::fs::write(dir.join(format!("seed-{n:02}")), seed)?;
        }
    }
    Ok(())
}
