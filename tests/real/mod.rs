//! Where the binaries of a real control plane are.

use lab::sim::Assets;
use std::io::Write as _;

/// Returns the binaries of a whole control plane; without them says so past the test runner, which keeps what passes
/// quiet.
pub(crate) fn assets(test: &str) -> Option<Assets> {
    let assets = Assets::find().unwrap().filter(Assets::are_complete);
    if assets.is_none() {
        let how = "tests/control-plane/build DIRECTORY makes one; then set KUBEBUILDER_ASSETS=DIRECTORY";
        let _ = writeln!(std::io::stderr(), "SKIPPED {test}: there is no real control plane. {how}");
    }
    assets
}
