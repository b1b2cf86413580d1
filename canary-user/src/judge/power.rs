//! How small a change can be found in how many windows, from the noise that was learned: the judge's own formulas, solved for
//! the change.

use super::{
    pace::Track,
    parameters::{Parameters, Tolerance},
};

/// The smallest rise (as a ratio minus one) of one of `signals` indicators that is usually found within so many windows, if it
/// is there when judging begins. `None` where no rise would be, however large.
///
/// A bet l gains l z - psi(l) a window with z = min(d - margin, clip)/sqrt(LRV); one of the bets has to bring its share
/// of the stake to N/(0.75 alpha), of which a part rests on the indicator's steps where these are bet on. One that begins later starts
/// from a smaller stake and takes somewhat longer.
pub fn smallest_change(
    track: &Track,
    tolerance: &Tolerance,
    signals: f64,
    windows: u64,
    p: &Parameters,
) -> Option<f64> {
    let on_level = if tolerance.steps { 1.0 - p.spread_weight } else { 1.0 };
    let found = |d: f64| {
        let noise = &track.derived;
        let z = (d - track.margin).clamp(-noise.clip, noise.clip) * noise.worse.precision;
        p.bet_shares.iter().zip(noise.worse.discount).enumerate().any(|(a, (share, discount))| {
            let gain = (p.bet(a) * z + libm::log(discount)).min(libm::log(p.gain_limit));
            let needed = signals / ((1.0 - p.p_weight) * p.alpha * p.start_weight * on_level * share);
            gain * windows as f64 >= libm::log(needed)
        })
    };
    let mut high = track.margin + track.derived.clip;
    if !track.noise.is_ready() || !found(high) {
        return None;
    }
    let mut low = 0.0;
    for _ in 0..40 {
        let middle = 0.5 * (low + high);
        if found(middle) { high = middle } else { low = middle }
    }
    Some(libm::expm1(high))
}
