//! `import`: takes over something that exists already, for a resource the program declares.

use crate::arguments;
use crate::asked;
use crate::invocation::Invocation;
use crate::opened::Opened;
use crate::trouble::Trouble;
use crate::up::finish;
use lab_core::Id;
use lab_core::plan::{Observations, Verb};
use std::sync::Arc;

pub(crate) async fn import(invocation: &Invocation<'_>, arguments: &arguments::Import) -> Result<u8, Trouble> {
    let mut target = None;
    let opened = Opened::write(invocation, "import", None, &mut |declared| {
        let resources = declared.nodes.iter().filter(|node| node.resource().is_some()).map(|node| &node.urn);
        let urn = asked::one(&arguments.target, resources, "what the program declares")?.clone();
        for node in declared.nodes.iter_mut().filter(|node| node.urn == urn) {
            Arc::make_mut(&mut node.options).import = Some(Id(arguments.id.clone()));
        }
        target = Some(urn);
        Ok(())
    })?;
    let urn = target.expect("opening has named it or failed");
    if opened.state().records.contains_key(&urn) {
        return Err(Trouble::new(format!("failed to import {} {}", urn.kind(), urn.short()))
            .because("it is in the state already")
            .hint("`state show` tells as what; `state forget` makes room for another"));
    }
    let plan = opened.plan(Verb::Up, &[urn.to_string()], &Observations::default(), opened.now());
    finish(invocation, opened, plan, &arguments.consent, false).await
}
