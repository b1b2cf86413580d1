//! One deployment's line over recorded ticks: what was told live is told again.

use std::{collections::BTreeMap, sync::Arc};

use anyhow::Context as _;

use crate::{
    guard::Standing,
    judge::{Earlier, Judge, Parameters, Verdict},
    telemetry::Tick,
    window::Windower,
};

/// Windows, judge, and the condemnations that stood in for what it found, by decision.
pub struct Recorded {
    deployment: Arc<str>,
    windower: Windower,
    judge: Judge,
    standing: BTreeMap<String, Standing>,
}

impl Recorded {
    /// `earlier`: what was known of the service when the recording began.
    pub fn new(deployment: Arc<str>, parameters: Parameters, earlier: &Earlier) -> Self {
        let (windower, judge) = super::line(deployment.clone(), parameters, earlier);
        Self { deployment, windower, judge, standing: BTreeMap::new() }
    }

    /// The verdict after one more tick.
    ///
    /// # Errors
    /// Where the canary was under limits, and the recording does not say, or not so that it can be read, what had condemned it.
    pub fn push(&mut self, tick: &Tick) -> anyhow::Result<Verdict> {
        let limits = tick.limits.get(&self.deployment);
        if limits.is_some_and(|limits| limits.ended) {
            self.judge.reset_evidence();
        }
        let found = self.judge.observe(&self.windower.push(tick));
        let Some((limits, decision)) = limits.and_then(|limits| Some((limits, limits.under.as_ref()?))) else {
            return Ok(found);
        };
        if let Some(condemned) = &limits.condemned {
            let standing = serde_json::from_value(condemned.clone())
                .with_context(|| format!("t_ns {}: what condemned the canary in {decision}", tick.t_ns))?;
            self.standing.insert(decision.clone(), standing);
        }
        let standing = self.standing.get(decision).with_context(|| {
            format!("t_ns {}: nothing before it says what condemned the canary in {decision}", tick.t_ns)
        })?;
        Ok(standing.in_place_of(found))
    }
}
