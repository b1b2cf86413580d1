//! What can be wrong with a version, and how a running server is told.

use serde::{Deserialize, Serialize};

/// A fault of the service. Severity 1 means none; what more means is said for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// Severity times the CPU that a request cost before, sockets and all.
    Cpu,
    /// Reads (severity - 1) × 16 pages per request at random from a file that does not fit its memory limit.
    Memory,
    /// The file that requests read from grows by (severity - 1) / 4 pages with each of them, until it no longer fits the
    /// memory limit, and up to its end.
    Thrash,
    /// Keeps (severity - 1) × 1 kB per request: about 1 % of its memory per second at 400 requests/s and severity 2.
    Leak,
    /// Holds severity times the memory that it was started with, from now on and no more.
    WorkingSet,
    /// Answers severity times as large.
    Network,
    /// Waits (severity - 1) × 2 ms before it answers.
    Latency,
    /// What it asks of its upstream takes that (severity - 1) × 2 ms longer.
    Dependency,
    /// Does the work of severity × 2 requests in every fifth, and none in the others: up to 2.5, no more than before in all.
    Tail,
    /// Resets (severity - 1) × 5 % of the connections instead of answering.
    Errors,
    /// Answers (severity - 1) × 5 % of the requests with status 500, after the same work.
    ServerErrors,
    /// In (severity - 1) × 5 % of the requests first asks where nobody listens.
    Unreachable,
    /// Of the helpers that it starts, (severity - 1) × 50 % end with status 1.
    Exits,
    /// Aborts on the next request. A restarted process does it again.
    Crash,
    /// Takes severity × 1 MiB per request and never gives them back, until the kernel kills it.
    Oom,
}

/// One line on the server's standard input.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// `None` makes the server healthy again; memory that leaked stays.
    pub fault: Option<Fault>,
    #[serde(default = "one")]
    pub severity: f64,
}

fn one() -> f64 {
    1.0
}
