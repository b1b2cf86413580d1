//! Who of stable comes and goes, and who the canary is compared with meanwhile: those whose offsets are known.

use std::borrow::Cow;

use super::{
    Frame, Pace,
    differences::{Differences, OWN, PLACEBOS, SERIES, StableSide},
    track::Track,
};

impl Pace {
    /// Takes those in whose offsets are known by now.
    pub(super) fn admit(&mut self, frame: &Frame) {
        for (track, d) in self.indicators.iter_mut().zip(frame.differences) {
            self.has_changed |= track.noise.admit(d.present);
        }
    }

    /// The differences to those whose offsets are known: beside others the canary is somewhere else by as much as is not known.
    pub(super) fn beside_known<'a>(&self, frame: &Frame<'a>) -> Cow<'a, [Differences]> {
        let tracks = || self.indicators.iter().zip(frame.differences);
        if !frame.misses_some && !tracks().any(|(track, d)| d.has_others_than(track.noise.members())) {
            return Cow::Borrowed(frame.differences);
        }
        let beside = |(track, d): (&Track, &Differences)| {
            let d = d.among(track.noise.members());
            // Beside fewer than usual each placebo is somewhere else, too: that is no noise of theirs.
            if frame.misses_some { Differences { series: [f64::NAN; SERIES], ..d } } else { d }
        };
        Cow::Owned(tracks().map(beside).collect())
    }

    /// First idea of the offsets of those that are warming up beside `active`. `settling`: their readings as ln, by place, NaN of
    /// who is not among them.
    pub fn prime(&mut self, indicator: usize, active: &StableSide, settling: &[f64; PLACEBOS]) {
        if settling.iter().all(|ln| ln.is_nan()) {
            return;
        }
        let (noise, mut side) = (&mut self.indicators[indicator].noise, *active);
        settling.iter().enumerate().for_each(|(place, ln)| side.add(place, *ln));
        let d = side.pair(f64::NAN).among(noise.members());
        for (place, _) in settling.iter().enumerate().filter(|(_, ln)| !ln.is_nan()) {
            noise.prime(place, d.series[place]);
        }
    }

    /// The stable instance of `series` is gone, or what is known of the canary's own past.
    pub fn free(&mut self, series: usize) {
        let p = &self.parameters;
        self.indicators.iter_mut().for_each(|t| t.noise.free(series, p));
        self.spreads.iter_mut().for_each(|s| s.noise.free(series, p));
        self.mean.noise.free(series, p);
    }

    /// The set of stable instances changed.
    pub fn soften(&mut self) {
        // The canary's past beside some instances says nothing of what to expect of it beside others; nor does what was bet by it.
        let rested = self.indicators.iter().any(|t| t.noise.has_own_past(self.sides));
        self.free(OWN);
        self.has_own_past = false;
        if rested {
            self.drop_evidence();
        }
        self.alone.iter_mut().for_each(|alone| alone.another(&self.parameters));
        self.indicators.iter_mut().for_each(|t| t.noise.soften());
        self.spreads.iter_mut().for_each(|s| s.noise.soften());
        self.mean.noise.soften();
        self.has_changed = true;
    }
}
