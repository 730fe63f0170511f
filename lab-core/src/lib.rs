//! The engine of `lab`.
pub mod model { 
//! Pure data.
pub mod link; pub use link::{Link, Route, Clock}; }
pub mod execute {
//! The only effects.
 mod dial; pub use dial::dial; }
pub use model::*;
