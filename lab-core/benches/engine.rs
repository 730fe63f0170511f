//! The parts of a run by themselves: `cargo bench -p lab-core`
//!
//! Nothing here waits for a disk. What a whole run takes is measured by `cargo run --release --example speeds`.

use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use lab_core::execute::journal::{Journal, canonical};
use lab_core::plan::{self, Observations, Request, Verb};
use lab_core::testing::{Bench, Memory, MemoryDisk, Thing, ThingOutputs};
use lab_core::{Handle, ProgramError, Stack, State, Tree, digest};
use serde_json::{Value, json};
use std::sync::Arc;

const SIZES: [usize; 2] = [100, 1_000];

fn main() {
    divan::main();
}

/// Declares `count` things in layers of ten, each of which reads one of the layer above.
fn layers(stack: &Stack, count: usize) -> Result<(), ProgramError> {
    let rack = stack.provider("rack", Memory::at("rack"));
    let mut things: Vec<Handle<ThingOutputs>> = Vec::new();
    for n in 0..count {
        let name = format!("t{n}");
        let thing = match n.checked_sub(10).and_then(|above| things.get(above)) {
            Some(above) => Thing::new(&name, above.output(|above| above.text)),
            None => Thing::new(&name, "first"),
        };
        things.push(rack.resource(&name).add(thing));
    }
    Ok(())
}

/// Returns a bench on which they are there.
fn made(count: usize) -> Bench {
    let bench = Bench::new();
    bench.up_whole(|stack| layers(stack, count));
    bench
}

#[divan::bench(args = SIZES)]
fn declare(bencher: Bencher<'_, '_>, count: usize) {
    let bench = Bench::new();
    bencher.counter(ItemsCount::new(count)).bench_local(|| bench.load(|stack| layers(stack, count)));
}

#[divan::bench(args = SIZES)]
fn plan_of_everything(bencher: Bencher<'_, '_>, count: usize) {
    let bench = Bench::new();
    let (declared, state) = (bench.load(|stack| layers(stack, count)), State::default());
    let request = Request::new(Verb::Up, bench.now());
    bencher
        .counter(ItemsCount::new(count))
        .bench_local(|| plan::plan(&declared, &state, &Observations::default(), &request));
}

#[divan::bench(args = SIZES)]
fn plan_of_nothing(bencher: Bencher<'_, '_>, count: usize) {
    let bench = made(count);
    let (declared, state) = (bench.load(|stack| layers(stack, count)), bench.state());
    let request = Request::new(Verb::Up, bench.now());
    bencher
        .counter(ItemsCount::new(count))
        .bench_local(|| plan::plan(&declared, &state, &Observations::default(), &request));
}

fn tree(changed: bool) -> Value {
    let field =
        |n: usize| (format!("field{n}"), json!({"size": n, "name": format!("name {n}"), "on": changed && n == 7}));
    Value::Object((0..20).map(field).collect())
}

#[divan::bench]
fn diff(bencher: Bencher<'_, '_>) {
    let (before, after) = (Tree::from(tree(false)), Tree::from(tree(true)));
    bencher.bench_local(|| plan::diff(&before, &after));
}

#[divan::bench]
fn hash(bencher: Bencher<'_, '_>) {
    let tree = tree(false);
    bencher.counter(BytesCount::new(canonical(&tree).len())).bench_local(|| digest(&tree));
}

fn journal(disk: &MemoryDisk) -> Journal {
    Journal::open(Arc::new(disk.clone()), "lab").expect("a disk in memory can be read").0
}

#[divan::bench(args = [1, 16, 1_000])]
fn append(bencher: Bencher<'_, '_>, records: usize) {
    let records = vec![tree(false); records];
    let disk = MemoryDisk::new();
    let mut journal = journal(&disk);
    bencher
        .counter(ItemsCount::new(records.len()))
        .bench_local(|| journal.append(&records).expect("a disk in memory takes everything"));
}

#[divan::bench(args = SIZES)]
fn replay_of_frames(bencher: Bencher<'_, '_>, count: usize) {
    let bench = Bench::new().keeping_frames();
    bench.up_whole(|stack| layers(stack, count));
    bencher.counter(ItemsCount::new(count)).bench_local(|| bench.state());
}

#[divan::bench(args = SIZES)]
fn replay_of_a_snapshot(bencher: Bencher<'_, '_>, count: usize) {
    let bench = made(count);
    bencher.counter(ItemsCount::new(count)).bench_local(|| bench.state());
}

#[divan::bench(args = SIZES)]
fn compaction(bencher: Bencher<'_, '_>, count: usize) {
    let snapshot = serde_json::to_value(made(count).state()).expect("a state is JSON");
    let disk = MemoryDisk::new();
    let mut journal = journal(&disk);
    bencher
        .counter(ItemsCount::new(count))
        .bench_local(|| journal.compact(&snapshot).expect("a disk in memory takes everything"));
}
