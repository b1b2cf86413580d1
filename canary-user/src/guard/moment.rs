//! A point in time on both clocks.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A point in time: the wall clock for people, and the clock that only runs on for what has to last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Moment {
    /// Milliseconds since 1970.
    pub unix_ms: u64,
    /// CLOCK_MONOTONIC; it begins anew at boot, and stands still while the machine sleeps.
    pub t_ns: u64,
}

impl Moment {
    pub fn after(self, duration: Duration) -> Self {
        Self {
            unix_ms: self.unix_ms.saturating_add(duration.as_millis().try_into().unwrap_or(u64::MAX)),
            t_ns: self.t_ns.saturating_add(duration.as_nanos().try_into().unwrap_or(u64::MAX)),
        }
    }

    /// The same point of the wall clock, on the monotonic clock of this boot.
    pub fn rebooted(self, now: Moment) -> Self {
        let ns = |ms: u64| ms.saturating_mul(1_000_000);
        let t_ns = if self.unix_ms >= now.unix_ms {
            now.t_ns.saturating_add(ns(self.unix_ms - now.unix_ms))
        } else {
            now.t_ns.saturating_sub(ns(now.unix_ms - self.unix_ms))
        };
        Self { t_ns, ..self }
    }

    /// As RFC 3339 in UTC; "the end of time" where no calendar reaches.
    pub fn wall_clock(self) -> String {
        // 9999-12-31T23:59:59Z, the last that RFC 3339 can write.
        const LAST_MS: u64 = 253_402_300_799_000;
        if self.unix_ms > LAST_MS {
            return "the end of time".into();
        }
        humantime::format_rfc3339_seconds(std::time::UNIX_EPOCH + Duration::from_millis(self.unix_ms)).to_string()
    }
}
