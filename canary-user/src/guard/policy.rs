//! What is done about what: for each signal that may condemn a canary, how far the guard may go. Pure.

use std::collections::BTreeMap;

use super::{
    Mode,
    facts::{Signal, condemning},
};
use crate::{
    judge::{HardFact, Verdict},
    window::{Event, Indicator},
};

/// The name of [`HardFact::Silent`]; the other hard facts go by the names of their events.
const SILENT: &str = "silent";

/// Modes by the name of the signal that leads the causes. Nothing in it goes further than the deployment's own mode.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy(BTreeMap<&'static str, Mode>);

impl Policy {
    /// The names that may be written.
    pub fn signals() -> impl Iterator<Item = &'static str> {
        Indicator::ALL.map(Indicator::name).into_iter().chain(Event::ALL.map(Event::name)).chain([SILENT])
    }

    pub fn set(&mut self, signal: &'static str, mode: Mode) {
        self.0.insert(signal, mode);
    }

    pub fn entries(&self) -> impl Iterator<Item = (&'static str, Mode)> {
        self.0.iter().map(|(signal, mode)| (*signal, *mode))
    }

    /// How far to go about what condemns, where that is less far than `mode`: with the name of the signal.
    pub fn limits(&self, mode: Mode, verdict: &Verdict) -> Option<(&'static str, Mode)> {
        let name = match condemning(verdict).first()? {
            Signal::Indicator(indicator) => indicator.name(),
            Signal::Event(event) => event.name(),
            Signal::Hard(HardFact::OomKill) => Event::OomKills.name(),
            Signal::Hard(HardFact::CrashLoop) => Event::Crashes.name(),
            Signal::Hard(HardFact::Silent) => SILENT,
        };
        let limit = *self.0.get(name)?;
        (limit < mode).then_some((name, limit))
    }
}
