//! Records of an older type version are upgraded by the type, newer ones refused, and nothing keeps a thing from being
//! deleted.

mod yard;

use lab_core::testing::{Bench, Memory, Thing};
use lab_core::*;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use yard::{problems, settled, steps};

/// What exists: names and what they say.
type Shelf = Mutex<Vec<(String, String)>>;

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Library;

impl Provider for Library {
    const NAME: &'static str = "library";
    type Client = Arc<Shelf>;

    fn realm(&self) -> Realm {
        Realm::Stated("library".into())
    }

    async fn connect(self, link: Link) -> Result<Arc<Shelf>> {
        link.world::<Shelf>().ok_or_else(|| Error::invalid("there is no shelf"))
    }

    // Each test knows the version that it declares.
    fn types(_: &mut Types<Library>) {}
}

/// One version of a book: its number, its shape, and how an older one is read.
macro_rules! book {
    ($name:ident, $version:literal, { $($field:ident: $type:ty),* }, $text:expr, $upgrade:expr) => {
        #[derive(Clone, Debug, Serialize, Deserialize)]
        struct $name {
            name: String,
            $($field: $type),*
        }

        impl Resource<Library> for $name {
            const TYPE: &'static str = "library:book";
            const VERSION: u32 = $version;
            type Outputs = ();

            fn id(&self) -> Option<Id> {
                Some(Id(self.name.clone()))
            }

            fn upgrade(version: u32, inputs: Value) -> Option<Value> {
                let upgrade: fn(u32, Value) -> Option<Value> = $upgrade;
                upgrade(version, inputs)
            }

            async fn find(shelf: &Arc<Shelf>, op: &Op<Self>) -> Result<Found<()>> {
                let id = op.id.clone().ok_or_else(|| Error::invalid("nothing says which"))?;
                let there = shelf.lock().unwrap().iter().any(|(name, _)| *name == id.0);
                let step = || Step::Done(Made::new(id.clone(), ()));
                Ok(if there { Found::Present(Owner::Unmarkable, step()) } else { Found::Absent })
            }

            async fn apply(&self, shelf: &Arc<Shelf>, _: &Op<Self>) -> Result<Step<()>> {
                let text: fn(&Self) -> String = $text;
                let mut shelf = shelf.lock().unwrap();
                shelf.retain(|(name, _)| *name != self.name);
                shelf.push((self.name.clone(), text(self)));
                Ok(Step::Done(Made::new(self.name.as_str(), ())))
            }

            async fn delete(shelf: &Arc<Shelf>, op: &Op<Self>) -> Result<Step<()>> {
                let id = op.id.clone().ok_or_else(|| Error::invalid("nothing says which"))?;
                shelf.lock().unwrap().retain(|(name, _)| *name != id.0);
                Ok(Step::gone())
            }
        }
    };
}

book!(First, 1, { title: String }, |book| book.title.clone(), |_, _| None);
book!(Second, 2, { titles: Vec<String> }, |book| book.titles.join("+"), |version, inputs| {
    (version == 1).then(|| json!({ "name": inputs["name"], "titles": [inputs["title"]] }))
});
book!(Third, 3, { pages: u32 }, |book| book.pages.to_string(), |_, _| None);

fn declare<R: Resource<Library> + 'static>(
    books: Vec<(&'static str, R)>,
) -> impl Fn(&Stack) -> Result<(), ProgramError> {
    move |stack: &Stack| {
        let library = stack.provider("library", Library);
        for (name, book) in &books {
            library.resource(name).add(book.clone());
        }
        Ok(())
    }
}

fn first() -> impl Fn(&Stack) -> Result<(), ProgramError> {
    declare(vec![("it", First { name: "it".into(), title: "a".into() })])
}

fn second(titles: &[&str]) -> impl Fn(&Stack) -> Result<(), ProgramError> {
    let titles = titles.iter().map(|title| (*title).to_owned()).collect();
    declare(vec![("it", Second { name: "it".into(), titles })])
}

fn third(name: &'static str) -> impl Fn(&Stack) -> Result<(), ProgramError> {
    declare(vec![(name, Third { name: name.into(), pages: 7 })])
}

fn applied() -> (Bench, Arc<Shelf>) {
    let shelf = Arc::new(Shelf::default());
    let bench = Bench::new().over(shelf.clone());
    bench.up_whole(first());
    (bench, shelf)
}

fn shelf(shelf: &Shelf) -> Vec<String> {
    shelf.lock().unwrap().iter().map(|(name, text)| format!("{name}={text}")).collect()
}

#[test]
fn a_record_of_an_older_version_is_compared_as_the_type_upgrades_it() {
    let (bench, books) = applied();
    assert_eq!(steps(&bench.preview(second(&["a"]))), [""; 0], "it says the same in another shape");
    bench.up_whole(second(&["a"]));
    let record = bench.state().records.values().next().unwrap().clone();
    assert_eq!((record.spec.version, &record.spec.inputs.value()["titles"]), (2, &json!(["a"])));
    settled(&bench, &second(&["a"]));
    let plan = bench.preview(second(&["a", "b"]));
    assert_eq!(steps(&plan), ["update it"]);
    bench.up_whole(second(&["a", "b"]));
    assert_eq!(shelf(&books), ["it=a+b"]);
}

#[test]
fn a_change_together_with_the_new_version_shows_only_the_change() {
    let (bench, books) = applied();
    let plan = bench.preview(second(&["b"]));
    assert_eq!(steps(&plan), ["update it"]);
    assert_eq!(plan.steps[0].diff.iter().map(|delta| delta.path.as_str()).collect::<Vec<_>>(), ["/titles/0"]);
    bench.up_whole(second(&["b"]));
    assert_eq!(shelf(&books), ["it=b"]);
}

#[test]
fn what_can_no_longer_be_read_is_applied_anew_and_still_deleted_by_its_id() {
    let (bench, books) = applied();
    let plan = bench.preview(third("it"));
    assert_eq!(steps(&plan), ["update it"]);
    assert_eq!(plan.steps[0].reasons, ["what was recorded by version 1 can no longer be read"]);
    bench.up_whole(third("it"));
    assert_eq!(shelf(&books), ["it=7"]);
    settled(&bench, &third("it"));
    let (bench, books) = applied();
    bench.up_whole(third("another"));
    assert_eq!(shelf(&books), ["another=7"], "its line is gone and its record cannot be read");
    assert_eq!(bench.state().records.len(), 1);
}

#[test]
fn a_record_of_a_newer_version_is_refused() {
    let (bench, books) = applied();
    bench.up_whole(second(&["a", "b"]));
    let said = problems(&bench.preview(first()));
    insta::assert_snapshot!(said.join("\n"), @"it was recorded by version 2 of library:book, this program knows version 1; run a program built with the newer version of lab");
    assert!(bench.attempt(first(), plan::Verb::Up, &Default::default()).is_err());
    assert_eq!(shelf(&books), ["it=a+b"]);
}

#[test]
fn a_type_that_is_not_known_any_more_says_what_to_do() {
    let bench = Bench::new();
    bench.up_whole(|stack: &Stack| {
        stack.provider("rack", Memory::at("rack")).resource("it").add(Thing::new("it", "x"));
        Ok(())
    });
    let nothing = |_: &Stack| Ok(());
    insta::assert_snapshot!(problems(&bench.preview(nothing)).join("\n"), @"it is to be deleted, and this program does not know the type memory:thing; name its provider with `.knows::<…>()` on the lab");
    bench.clone().knows::<Memory>().up_whole(nothing);
    assert_eq!(bench.world().count(), 0);
}
