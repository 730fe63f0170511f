//! A question is asked of a provider that cannot answer it.

use lab_core::testing::Ping;
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
    cloud.read("ping", Ping { name: "it".into(), expect: None });
}

fn main() {}
