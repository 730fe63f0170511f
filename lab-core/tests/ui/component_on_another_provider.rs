//! A component of one provider is declared on another.

use lab_core::testing::{Memory, Thing};
use lab_core::{Component, Link, Provider, Realm, Scope, Stack, Types};

#[derive(Clone, serde::Serialize, serde::Deserialize)]
struct Cloud;

impl Provider for Cloud {
    const NAME: &'static str = "cloud";
    type Client = ();

    fn realm(&self) -> Realm {
        Realm::Stated("cloud".into())
    }

    async fn connect(self, _: Link) -> lab_core::Result<()> {
        Ok(())
    }

    fn types(_: &mut Types<Cloud>) {}
}

struct Shelf;

impl Component<Memory> for Shelf {
    type Handle = ();
    fn declare(self, scope: &Scope<'_, Memory>) {
        scope.resource("it").add(Thing::new("it", "x"));
    }
}

fn program(stack: &Stack) {
    let cloud = stack.provider("cloud", Cloud);
    cloud.component("shelf").add(Shelf);
}

fn main() {}
