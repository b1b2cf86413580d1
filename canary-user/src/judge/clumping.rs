//! How far events clump: whether stable's counts vary from window to window by more than chance alone.
//!
//! What is learned from is what is judged at once, by the same exposures: a window, or those that were added up because nobody asked
//! for anything. Of two with exposures e1 and e2, n events fall on the first by a binomial of share p = e1/(e1 + e2) if their
//! rate is fixed. Where the rate itself varies with squared coefficient of variation a, the variance of the first count is
//! n p q (1 + 2 a p q n) to first order, which gives a by moments. The same factor then holds for canary against stable.

/// Windows in the longer of the two kinds of pair: clumps may last.
const LONG: u32 = 8;

/// Stable's events of one kind, by one kind of exposure.
#[derive(Clone, Debug, Default)]
pub struct Clumping {
    short: Pairs,
    long: Pairs,
    /// Windows, events and exposure of the long block under way.
    windows: u32,
    events: f64,
    exposure: f64,
}

/// Neighbouring blocks of one length.
#[derive(Clone, Debug, Default)]
struct Pairs {
    /// Events and exposure of the block that waits for its neighbour.
    first: Option<(f64, f64)>,
    /// Sum of (chi square - 1), of 2 p q n, and their number.
    excess: f64,
    weight: f64,
    pairs: f64,
}

impl Clumping {
    /// Learns from one window of stable, or from those that were added up to one. Without any exposure it says nothing.
    pub fn learn(&mut self, events: f64, exposure: f64) {
        if exposure <= 0.0 {
            return;
        }
        self.short.add(events, exposure);
        self.windows += 1;
        self.events += events;
        self.exposure += exposure;
        if self.windows == LONG {
            self.long.add(self.events, self.exposure);
            (self.windows, self.events, self.exposure) = (0, 0.0, 0.0);
        }
    }

    /// Squared coefficient of variation of stable's rate.
    pub fn variation(&self) -> f64 {
        // A long block holds as many windows' events, which enter the formula as its n.
        // Of the few long ones, what exceeds their standard error.
        self.short.variation(0.0).max(f64::from(LONG) * self.long.variation(1.0))
    }
}

/// By how much the variance of the canary's count exceeds a binomial's, as a share of it, given a total of both sides and the
/// canary's share of it, where the rate varies so much.
pub fn excess_variance(variation: f64, share: f64, total: f64) -> f64 {
    2.0 * share * (1.0 - share) * total * variation
}

impl Pairs {
    fn add(&mut self, events: f64, exposure: f64) {
        let Some((first, exposed)) = self.first.take() else {
            self.first = Some((events, exposure));
            return;
        };
        let n = first + events;
        let p = exposed / (exposed + exposure);
        let spread = n * p * (1.0 - p);
        // Without an event, or where one exposure is nothing beside the other, there is nothing to vary.
        if spread <= 0.0 {
            return;
        }
        self.excess += (first - n * p) * (first - n * p) / spread - 1.0;
        self.weight += 2.0 * spread;
        self.pairs += 1.0;
    }

    /// Squared coefficient of variation of the rate, so many standard errors below what the pairs say.
    fn variation(&self, errors: f64) -> f64 {
        if self.pairs == 0.0 {
            return 0.0;
        }
        // A chi square of one degree has variance 2.
        ((self.excess - errors * (2.0 * self.pairs).sqrt()) / self.weight).max(0.0)
    }
}
