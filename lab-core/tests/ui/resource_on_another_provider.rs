//! A thing of one provider is declared on another.

use lab_core::testing::Thing;
use lab_core::{Link, Provider, Realm, Stack, Types};

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

fn program(stack: &Stack) {
    let cloud = stack.provider("cloud", Cloud);
    cloud.resource("it").add(Thing::new("it", "x"));
}

fn main() {}
