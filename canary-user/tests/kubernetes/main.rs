//! What the orchestrator "kubernetes" does, asked of an API server that keeps versions and the `test` of JSON Patch.

mod cluster;
mod dry_run;
mod held;
mod last_look;
mod lease;
mod next_rollout;
mod real;
mod refusals;
mod rights;
mod rollback;
mod server;
mod takeaway;
mod tls;
mod who;
