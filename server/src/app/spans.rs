//! Who gets the spans that agents send.

use std::sync::Arc;

use anyhow::Context as _;
use berth_telemetry::metrics::Metrics;
use berth_telemetry::recent::Recent;
use berth_telemetry::relay::Passed;

use super::Settings;
use crate::relay::{Relay, RelayLimits, Takers};

/// What passes agents' spans on, where there is a collector or a console.
pub(super) fn relay(
    settings: &Settings,
    recent: Option<Recent>,
    metrics: &Arc<Metrics>,
) -> anyhow::Result<Option<Arc<Relay>>> {
    let passed = settings.collector.as_ref().map(|endpoint| Passed::to(endpoint, settings.good_joins));
    let passed = passed.transpose().context("preparing to pass agents' spans on")?;
    let takers = Takers { passed, recent };
    Ok(Relay::to(takers, RelayLimits::default(), Arc::clone(metrics)).map(Arc::new))
}
