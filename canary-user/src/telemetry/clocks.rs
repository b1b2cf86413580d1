//! The clocks that a tick is read by, and what happened to them since the one before.

use rustix::time::{ClockId, clock_gettime};

/// Below this the readings were only not taken at the same moment.
const SLEPT_NS: u64 = 10_000_000;
/// Below this the wall clock is only being kept right.
const STEP_MS: i64 = 100;

/// All of them at about one moment.
#[derive(Clone, Copy, Debug)]
pub struct Clocks {
    /// CLOCK_MONOTONIC, the clock of `bpf_ktime_get_ns`: it stands still while the machine sleeps.
    pub monotonic_ns: u64,
    /// CLOCK_BOOTTIME, which does not.
    boot_ns: u64,
    /// CLOCK_REALTIME, which anybody may set.
    wall_ns: u64,
}

/// What happened to them within a tick.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Course {
    pub suspended_ns: u64,
    pub wall_clock_step_ms: i64,
}

impl Clocks {
    pub fn now() -> Self {
        let [monotonic_ns, boot_ns, wall_ns] = [ClockId::Monotonic, ClockId::Boottime, ClockId::Realtime].map(ns);
        Self { monotonic_ns, boot_ns, wall_ns }
    }

    /// Milliseconds since 1970 by the wall clock.
    pub fn unix_ms(&self) -> u64 {
        self.wall_ns / 1_000_000
    }

    /// What happened since a reading before this one.
    pub fn since(&self, before: &Self) -> Course {
        let awake_ns = self.monotonic_ns.saturating_sub(before.monotonic_ns);
        let passed_ns = self.boot_ns.saturating_sub(before.boot_ns);
        let suspended_ns = passed_ns.saturating_sub(awake_ns);
        let expected_ns = before.wall_ns.saturating_add(passed_ns);
        let step_ms = (i128::from(self.wall_ns) - i128::from(expected_ns)) / 1_000_000;
        let step_ms = step_ms.clamp(i64::MIN.into(), i64::MAX.into()) as i64;
        Course {
            suspended_ns: if suspended_ns < SLEPT_NS { 0 } else { suspended_ns },
            wall_clock_step_ms: if step_ms.abs() < STEP_MS { 0 } else { step_ms },
        }
    }
}

/// CLOCK_MONOTONIC.
pub fn monotonic_ns() -> u64 {
    ns(ClockId::Monotonic)
}

/// None of these clocks is ever before its zero, as long as nobody sets the wall clock to before 1970.
fn ns(clock: ClockId) -> u64 {
    let now = clock_gettime(clock);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + now.tv_nsec as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_NS: u64 = 1_000_000_000;

    fn at(monotonic_s: u64, boot_s: u64, wall_s: u64) -> Clocks {
        let ns = |s: u64| s * SECOND_NS;
        Clocks { monotonic_ns: ns(monotonic_s), boot_ns: ns(boot_s), wall_ns: ns(wall_s) }
    }

    #[test]
    fn a_sleep_and_a_step_of_the_wall_clock_are_told_apart() {
        let before = at(100, 150, 1_800_000_000);
        let course = |now: Clocks| now.since(&before);
        assert_eq!(course(at(101, 151, 1_800_000_001)), Course::default(), "a second passed");
        let slept = Course { suspended_ns: 3600 * SECOND_NS, wall_clock_step_ms: 0 };
        assert_eq!(course(at(101, 3751, 1_800_003_601)), slept, "an hour of sleep is no step");
        let back = Course { suspended_ns: 0, wall_clock_step_ms: -86_400_000 };
        assert_eq!(course(at(101, 151, 1_799_913_601)), back, "set back by a day");
        let mut later = at(101, 151, 1_800_000_001);
        (later.boot_ns, later.wall_ns) = (later.boot_ns + 2_000_000, later.wall_ns + 30_000_000);
        assert_eq!(course(later), Course::default(), "readings are not quite at one moment, and clocks are kept right");
    }

    #[test]
    fn the_clocks_of_this_machine_run_on() {
        let before = Clocks::now();
        let now = Clocks::now();
        assert!(now.monotonic_ns >= before.monotonic_ns && now.boot_ns >= now.monotonic_ns);
        assert_eq!(now.since(&before).suspended_ns, 0);
    }
}
