//! The shortest walk through everything.
use lab_core::testing::{Bench, Memory, Thing};
use lab_core::*;

fn program(stack: &Stack) -> Result<Output<String>, ProgramError> {
    let rack = stack.provider("rack", Memory::at("rack"));
    let a = rack.resource("a").add(Thing { calls: 2, ..Thing::new("a", "hello") });
    let b = rack.resource("b").add(Thing::new("b", a.output(|a| a.text)));
    let inside = stack.provider("room", Memory::inside(&b).key(b.output(|b| b.key)));
    let c = inside.resource("c").add(Thing { secret: Some(Secret::from("topsecret").into()), ..Thing::new("c", "in") });
    inside.resource("d").add(Thing { secret: Some(c.output(|c| c.key).into()), ..Thing::new("d", "in") });
    Ok(c.output(|c| c.room))
}

#[test]
fn a_program_is_created_kept_and_destroyed() {
    let bench = Bench::new();
    println!("{}", lab_core::plan::text(&bench.preview(program)));
    bench.up_whole(program);
    println!("{}", bench.world().dump());
    let again = bench.preview(program);
    println!("{}", lab_core::plan::text(&again));
    assert!(again.is_empty());
    let report = bench.destroy(program);
    assert!(report.complete(), "{report:#?}");
    assert_eq!(bench.world().count(), 0, "{}", bench.world().dump());
    println!("{:?}", bench.world().log());
    assert!(bench.state().records.is_empty());
}
