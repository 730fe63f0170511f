//! Writes what each target begins with to `corpus/TARGET/`, where cargo-fuzz looks for it.

#[path = "../../../lab-cli/tests/fuzz/read.rs"]
#[expect(dead_code, reason = "reading is for another program")]
mod configuration;
#[path = "../../../lab-talos/tests/fuzz/read.rs"]
#[expect(dead_code, reason = "reading is for another program")]
mod yaml;

use lab_core::testing::fuzz::TARGETS;
use std::path::Path;

fn main() -> std::io::Result<()> {
    for target in TARGETS {
        keep(target.name, target.seeds())?;
    }
    keep("configuration", configuration::seeds())?;
    keep("yaml", yaml::seeds())
}

fn keep(target: &str, seeds: Vec<impl AsRef<[u8]>>) -> std::io::Result<()> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    std::fs::create_dir_all(&dir)?;
    for (n, seed) in seeds.iter().enumerate() {
        std::fs::write(dir.join(format!("seed-{n:02}")), seed)?;
    }
    Ok(())
}
