//! A secret is printed.

use lab_core::Secret;

fn main() {
    let token = Secret::new("token".to_owned());
    println!("{token}");
}
