//! How far events clump: whether stable's counts vary from window to window by more than chance alone.
//!
//! What is learned from is a window of stable, or those that were added up because nobody asked it for anything. Of two
//! with exposures e1 and e2, n events fall on the first by a binomial of share p = e1/(e1 + e2) if their rate is fixed.
//! Where the rate itself varies with squared coefficient of variation a, the variance of the first count is
//! n p q (1 + 2 a p q n) to first order, which gives a by moments. Source: overdispersion as in McCullagh and Nelder,
//! "Generalized Linear Models", 1989, chapter 4.5.
//!
//! **How a bet is tempered.** Let the c events of the canary and the s of stable be Poisson with means m p Z and m q Z',
//! where Z and Z' follow a gamma distribution of mean 1 and variance a. The log of the likelihood ratio of a share b > p
//! against p is g = c u - s v, with u = ln(b/p) and v = ln(q/(1 - b)). Divided by 1 + r = 1/w it has
//!
//! ```text
//! E e^(w g) = [(1 - a m p (e^(w u) - 1)) (1 + a m q (1 - e^(-w v)))]^(-1/a)
//! ```
//!
//! which is at most 1 where 1/(p (e^(w u) - 1)) - 1/(q (1 - e^(-w v))) is at least a m. That is so for
//!
//! ```text
//! r = a m max(2 p q, (b - p)^2/KL(b, p)),   KL(b, p) = b ln(b/p) + (1 - b) ln((1 - b)/q)
//! ```
//!
//! The first is what it takes to second order in b - p, whatever distribution the rates follow; the second is what it
//! takes to first order in r. That the larger one suffices everywhere is shown by the test below, on a grid. So the
//! evidence is a supermartingale as far as a and m are known, and both before the window. The n of the window itself is not: where rates
//! vary it tells who has the clump, and windows with many events, mostly of the larger side, would count for less than
//! those with few. A bet that wins by the canary's few would win on average.
//!
//! In place of m, which changes with time, stands E n^2/E n of stable's blocks, scaled to the exposures. Where rates vary
//! for both sides alike that is what second order asks for. It makes up for the estimate of a, too, which is a/(1 + a/2)
//! where clumps are large, and less where events are few: on average the product is a m at least.

/// Windows in the longer of the two kinds of pair: clumps may last.
const LONG: u32 = 8;
/// Blocks with events after which those before them count for little in how many events come at once: an hour in which
/// everything failed is not to hide a canary in the next one.
const MEMORY: f64 = 30.0;

/// Stable's events of one kind, by one kind of exposure.
#[derive(Clone, Debug, Default)]
pub struct Clumping {
    short: Pairs,
    long: Pairs,
    /// Windows, events and exposure of the long block under way.
    windows: u32,
    events: f64,
    exposure: f64,
    /// Sums of n^2 and of n times exposure over the latest [`MEMORY`] blocks or so, those without events left out.
    squares: f64,
    exposed: f64,
}

/// What was learned of that as of a moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clumps {
    /// Squared coefficient of variation of stable's rate.
    variation: f64,
    /// Events that stable has at once for each unit of exposure, as one of these events sees it.
    per_exposure: f64,
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
        if events > 0.0 {
            let kept = 1.0 - 1.0 / MEMORY;
            self.squares = kept * self.squares + events * events;
            self.exposed = kept * self.exposed + events * exposure;
        }
        self.windows += 1;
        self.events += events;
        self.exposure += exposure;
        if self.windows == LONG {
            self.long.add(self.events, self.exposure);
            (self.windows, self.events, self.exposure) = (0, 0.0, 0.0);
        }
    }

    /// As of now.
    pub fn clumps(&self) -> Clumps {
        // A long block holds as many windows' events, which enter the formula as its n.
        // Of the few long ones, what exceeds their standard error.
        let variation = self.short.variation(0.0).max(f64::from(LONG) * self.long.variation(1.0));
        Clumps { variation, per_exposure: if self.exposed > 0.0 { self.squares / self.exposed } else { 0.0 } }
    }
}

impl Clumps {
    /// What the logarithm of a likelihood ratio is to be divided by, less 1, where stable has so much exposure. The shares
    /// of canary and stable are those by which nothing is wrong, and those that are bet on.
    pub fn excess(&self, stable: f64, (null, null_rest): (f64, f64), (bet, bet_rest): (f64, f64)) -> f64 {
        let total = self.per_exposure * stable / null_rest;
        self.variation * total * spread(null, null_rest, bet, bet_rest)
    }
}

/// By how much one more of a m makes the divisor larger: see the head of this file.
fn spread(null: f64, null_rest: f64, bet: f64, bet_rest: f64) -> f64 {
    let divergence = bet * libm::log(bet / null) + bet_rest * libm::log(bet_rest / null_rest);
    let far = (bet - null) * (bet - null) / divergence;
    // Not a number where the shares are equal to all digits: `max` takes the other one.
    far.max(2.0 * null * null_rest)
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The inequality at the head of this file, over shares from a ten thousandth to all but that.
    #[test]
    fn a_tempered_bet_wins_nothing_on_average_however_far_rates_vary() {
        let shares = (0..=40).flat_map(|i| {
            let p = 0.5 * libm::pow(10.0, -f64::from(i) / 10.0);
            [(p, 1.0 - p), (1.0 - p, p)]
        });
        for (p, q) in shares {
            for ratio in [1.1, 1.5 / 1.1, 2.0 / 1.1, 4.0 / 1.1, 8.0 / 1.1, 20.0] {
                let all = ratio * p + q;
                let (b, rest) = (ratio * p / all, q / all);
                let (u, v) = (libm::log(b / p), libm::log(q / rest));
                for i in -20..=40 {
                    let am = libm::pow(10.0, f64::from(i) / 10.0);
                    let w = 1.0 / (1.0 + am * spread(p, q, b, rest));
                    let has = 1.0 / (p * libm::expm1(w * u)) + 1.0 / (q * libm::expm1(-w * v));
                    assert!(has >= 0.999 * am, "share {p}, ratio {ratio}, a m {am}: {has}");
                }
            }
        }
        // With 2 p q alone, as for small bets, a share of a tenth would win by a ratio of 8.
        let (p, b) = (0.1, 0.8 / 1.7);
        let w = 1.0 / (1.0 + 2.0 * p * (1.0 - p));
        let x = p * libm::expm1(w * libm::log(b / p));
        let y = -(1.0 - p) * libm::expm1(w * libm::log((1.0 - b) / (1.0 - p)));
        assert!(1.0 / x - 1.0 / y < 0.9);
    }
}
