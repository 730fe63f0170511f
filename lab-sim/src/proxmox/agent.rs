//! The guest agent.

use super::power::has_agent;
use super::vm::Config;

/// Whether a configuration has the guest agent.
pub(super) fn enabled(config: &Config) -> bool {
    has_agent(config)
}
