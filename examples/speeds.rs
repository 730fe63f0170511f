//! How fast it is here: `cargo run --release --example speeds`
//!
//! Makes graphs for `scale`, runs its command line on them, a process each, and prints a table: how long `up`, an empty
//! plan (the middle of three) and `destroy` take from start to exit, how often `up` waited for the disk, how much memory
//! was in use at the most, and how large the state is. `... speeds -- 1000 10000` measures these sizes; `--state DIR` uses that
//! disk.

#[path = "scale.rs"]
mod scale;

use lab::Surroundings;
use serde_json::json;
use std::error::Error;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

const HELP: &str = "Usage: speeds [--state DIR] [COUNT]...

Prints how long `up`, an empty plan and `destroy` take for graphs of COUNT resources: 1000, 10000 and 100000.
DIR is where graphs and states are kept meanwhile, on the disk that is to be measured; else a temporary directory.
";
/// What makes this program be `scale`, and write down the most memory that it used.
const BE_SCALE: &str = "LAB_SPEEDS_MEMORY";
/// How wide a layer is.
const WIDE: usize = 10;

fn main() -> ExitCode {
    if let Some(file) = std::env::var_os(BE_SCALE) {
        let exit = scale::lab().run_with(std::env::args_os(), Surroundings::process());
        // Where the system does not tell, the table does not either.
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let most = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
        return match fs::write(file, most.trim().trim_end_matches(" kB")) {
            Ok(()) => ExitCode::from(exit),
            Err(_) => ExitCode::FAILURE,
        };
    }
    match measure() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Which graph is measured.
#[derive(Clone, Copy)]
enum Shape {
    /// Each reads two of the layer above.
    Layered,
    /// None needs another.
    Flat,
    /// Each reads the one before.
    Chain,
}

impl Shape {
    fn name(self) -> &'static str {
        match self {
            Shape::Layered => "layers of ten",
            Shape::Flat => "flat",
            Shape::Chain => "one chain",
        }
    }

    fn depth(self, count: usize) -> usize {
        match self {
            Shape::Layered => count.div_ceil(WIDE),
            Shape::Flat => 1,
            Shape::Chain => count,
        }
    }

    fn needs(self, k: usize) -> Vec<usize> {
        match self {
            Shape::Layered if k >= WIDE => {
                let above = (k / WIDE - 1) * WIDE;
                vec![above + k % WIDE, above + (k + 1) % WIDE]
            }
            Shape::Chain if k >= 1 => vec![k - 1],
            Shape::Layered | Shape::Flat | Shape::Chain => Vec::new(),
        }
    }

    fn graph(self, count: usize) -> serde_json::Value {
        let entry = |k: usize| {
            let inputs = json!({"image": format!("app:1.{}", k % 10), "size": k % 7, "tags": ["a", "b"], "zone": "z1"});
            json!({"k": k, "name": format!("n{k}"), "inputs": inputs, "deps": self.needs(k)})
        };
        (0..count).map(entry).collect()
    }
}

/// What one run of the command line took.
struct Took {
    time: Duration,
    /// In KiB; nothing where the system does not tell.
    memory: Option<u64>,
    last_line: String,
}

/// Where a graph and its state are kept.
struct Bench {
    dir: PathBuf,
}

impl Bench {
    fn run(&self, arguments: &[&str]) -> Result<Took, Box<dyn Error>> {
        let (out, memory) = (self.dir.join("out"), self.dir.join("memory"));
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(self.dir.join("graph.json")).arg("--state").arg(self.dir.join("state")).args(arguments);
        command.env(BE_SCALE, &memory).stdout(File::create(&out)?);
        let began = Instant::now();
        let status = command.status()?;
        let time = began.elapsed();
        if !status.success() {
            return Err(format!("`scale {}` ended with {status}", arguments.join(" ")).into());
        }
        let last_line = fs::read_to_string(out)?.lines().last().unwrap_or_default().to_owned();
        Ok(Took { time, memory: fs::read_to_string(memory)?.parse().ok(), last_line })
    }
}

fn measure() -> Result<(), Box<dyn Error>> {
    let (mut counts, mut state) = (Vec::new(), None);
    let mut arguments = std::env::args_os().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.to_str() {
            Some("--help" | "-h") => {
                print!("{HELP}");
                return Ok(());
            }
            Some("--state") => state = Some(arguments.next().ok_or("--state needs a directory")?),
            text => counts.push(text.and_then(|text| text.parse().ok()).ok_or("a COUNT is a number; see --help")?),
        }
    }
    if counts.is_empty() {
        counts = vec![1_000, 10_000, 100_000];
    }
    let scratch = tempfile::tempdir()?;
    let dir = state.map_or_else(|| scratch.path().to_owned(), |state: OsString| state.into());
    println!("A flush takes {:.2} ms here (the middle of 200).\n", flush(&dir)?.as_secs_f64() * 1000.0);
    println!(
        "| graph | resources | depth | up | flushes | empty plan | destroy | memory of up | of the plan | state | each |"
    );
    println!("|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|");
    for count in counts {
        for shape in [Shape::Layered, Shape::Flat, Shape::Chain] {
            println!("{}", line(&dir, shape, count)?);
            std::io::stdout().flush()?;
        }
    }
    Ok(())
}

fn line(dir: &Path, shape: Shape, count: usize) -> Result<String, Box<dyn Error>> {
    let dir = dir.join(format!("{}-{count}", shape.name().replace(' ', "-")));
    fs::create_dir_all(&dir)?;
    let bench = Bench { dir };
    fs::write(bench.dir.join("graph.json"), shape.graph(count).to_string())?;
    let up = bench.run(&["up", "--yes"])?;
    let size = fs::metadata(bench.dir.join("state/scale.journal"))?.len();
    // It changes nothing, so it can be had more than once: the middle of three.
    let mut plans = Vec::new();
    for _ in 0..3 {
        plans.push(bench.run(&["preview", "--exit-code"])?);
    }
    plans.sort_by_key(|plan| plan.time);
    let plan = plans.swap_remove(1);
    let destroy = bench.run(&["destroy", "--yes"])?;
    let flushes = match flushes(&up.last_line) {
        Some(flushes) => flushes,
        None => {
            fs::remove_dir_all(bench.dir.join("state"))?;
            let again = bench.run(&["up", "--yes", "--json"])?;
            flushes(&again.last_line).ok_or("`up` does not say how often it waited for the disk")?
        }
    };
    fs::remove_dir_all(&bench.dir)?;
    let seconds = |took: &Took| format!("{:.2} s", took.time.as_secs_f64());
    let memory = |took: &Took| took.memory.map_or("-".into(), |kib| format!("{} MB", (kib * 1024).div_ceil(1_000_000)));
    Ok(format!(
        "| {} | {count} | {} | {} | {flushes} | {} | {} | {} | {} | {:.1} MB | {} B |",
        shape.name(),
        shape.depth(count),
        seconds(&up),
        seconds(&plan),
        seconds(&destroy),
        memory(&up),
        memory(&plan),
        size as f64 / 1e6,
        size / count.max(1) as u64,
    ))
}

/// Returns how often an `up` waited for the disk. Its last line says so, of a few steps only in JSON, which is no measure of
/// its time: ten thousand steps in JSON take twice as long.
fn flushes(last_line: &str) -> Option<u64> {
    match serde_json::from_str::<serde_json::Value>(last_line) {
        Ok(event) => event["flushes"].as_u64(),
        Err(_) => last_line.split([',', '.']).find_map(|part| part.trim().strip_suffix(" flushes")?.parse().ok()),
    }
}

/// Returns what making 4 kB durable in `dir` takes: the middle of many times.
fn flush(dir: &Path) -> Result<Duration, Box<dyn Error>> {
    fs::create_dir_all(dir)?;
    let place = dir.join("flush");
    let mut file = File::create(&place)?;
    let mut times = Vec::new();
    for _ in 0..200 {
        let began = Instant::now();
        file.write_all(&[b'x'; 4096])?;
        file.sync_data()?;
        times.push(began.elapsed());
    }
    fs::remove_file(place)?;
    times.sort();
    Ok(times[times.len() / 2])
}
