//! What the kubelet asks pods while they run: turnarounds that go on although no user's request comes.

use anyhow::Context as _;
use k8s_openapi::api::core::v1::{Container, PodSpec, Probe};
use kube::{ResourceExt as _, api::DynamicObject};

use crate::orchestrator::Background;

/// Where a probe says nothing else (`periodSeconds`).
const PERIOD_SECONDS: i32 = 10;
/// Of a probe that first shakes hands, by TLS or for HTTP/2, each of which is answered too.
const WITH_HANDSHAKES: u64 = 3;

/// The most that probes make: so many turnarounds at once, and so many a second.
#[derive(Clone, Copy, Debug, Default)]
struct Most {
    burst: u64,
    per_second: f64,
}

impl Most {
    fn and(self, other: Self) -> Self {
        Self { burst: self.burst + other.burst, per_second: self.per_second + other.per_second }
    }
}

/// What the probes of these pods make. Each probe runs by a clock of its own (`pkg/kubelet/prober` of kubernetes), so that all may
/// come at once.
///
/// # Errors
/// Where a pod is not one as this client knows them.
pub fn background(pods: &[DynamicObject]) -> anyhow::Result<Background> {
    let mut most = Most::default();
    for pod in pods {
        let spec = pod.data.get("spec").cloned().unwrap_or_default();
        let spec: PodSpec =
            serde_json::from_value(spec).with_context(|| format!("read the probes of pod {}", pod.name_any()))?;
        // Containers that are started first and run on (sidecars) have probes as the others do.
        let all = spec.containers.iter().chain(spec.init_containers.iter().flatten());
        most = all.map(of_container).fold(most, Most::and);
    }
    let Most { burst, per_second } = most;
    Ok(Background { whose: "the kubelet's probes".into(), burst, turnarounds_per_second: per_second })
}

/// Until a container has started it is asked only for that, and from then on for the rest: whichever is more.
fn of_container(container: &Container) -> Most {
    let of = |probe: &Option<Probe>| probe.as_ref().map(of_probe).unwrap_or_default();
    let starting = of(&container.startup_probe);
    let running = of(&container.liveness_probe).and(of(&container.readiness_probe));
    if starting.per_second > running.per_second { starting } else { running }
}

/// Each probe opens a connection of its own.
fn of_probe(probe: &Probe) -> Most {
    let turnarounds = match probe {
        Probe { http_get: Some(http), .. } if http.scheme.as_deref() == Some("HTTPS") => WITH_HANDSHAKES,
        Probe { http_get: Some(_), .. } => 1,
        Probe { grpc: Some(_), .. } => WITH_HANDSHAKES,
        // A program in the container, which may well ask the service: curl, redis-cli.
        Probe { exec: Some(_), .. } => 1,
        // Connects, says nothing and leaves.
        _ => 0,
    };
    let period = probe.period_seconds.filter(|seconds| *seconds > 0).unwrap_or(PERIOD_SECONDS);
    Most { burst: turnarounds, per_second: turnarounds as f64 / f64::from(period) }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(spec: Value) -> DynamicObject {
        serde_json::from_value(json!({ "metadata": { "name": "checkout" }, "spec": spec })).expect("a pod")
    }

    /// Turnarounds at once, and in 60 s.
    fn made_by(specs: &[Value]) -> (u64, f64) {
        let pods: Vec<DynamicObject> = specs.iter().cloned().map(pod).collect();
        let background = background(&pods).expect("pods");
        (background.burst, (60.0 * background.turnarounds_per_second).round())
    }

    fn one(probes: Value) -> Value {
        let mut container = probes;
        container["name"] = json!("app");
        json!({ "containers": [container] })
    }

    #[test]
    fn a_probe_is_a_turnaround_in_each_period_if_it_asks_for_an_answer() {
        let http = json!({ "httpGet": { "port": 8080, "path": "/live" }, "periodSeconds": 5 });
        assert_eq!(made_by(&[one(json!({ "livenessProbe": http }))]), (1, 12.0));
        let usual = json!({ "httpGet": { "port": "http" } });
        assert_eq!(made_by(&[one(json!({ "readinessProbe": usual }))]), (1, 6.0), "every 10 s where nothing is said");
        let tls = json!({ "httpGet": { "port": 8443, "scheme": "HTTPS" }, "periodSeconds": 10 });
        assert_eq!(made_by(&[one(json!({ "livenessProbe": tls }))]), (3, 18.0));
        let grpc = json!({ "grpc": { "port": 9000 }, "periodSeconds": 20 });
        assert_eq!(made_by(&[one(json!({ "livenessProbe": grpc }))]), (3, 9.0));
        let program = json!({ "exec": { "command": ["curl", "localhost"] }, "periodSeconds": 30 });
        assert_eq!(made_by(&[one(json!({ "livenessProbe": program }))]), (1, 2.0));
        let connects = json!({ "tcpSocket": { "port": 8080 }, "periodSeconds": 1 });
        assert_eq!(made_by(&[one(json!({ "livenessProbe": connects }))]), (0, 0.0));
        assert_eq!(made_by(&[one(json!({}))]), (0, 0.0));
    }

    #[test]
    fn containers_and_pods_add_up_and_starting_comes_before_running() {
        let every = |seconds: i32| json!({ "httpGet": { "port": 8080 }, "periodSeconds": seconds });
        let app = json!({
            "name": "app", "livenessProbe": every(10), "readinessProbe": every(5), "startupProbe": every(6),
        });
        let sidecar = json!({ "name": "proxy", "restartPolicy": "Always", "readinessProbe": every(30) });
        let spec = json!({ "containers": [app], "initContainers": [sidecar] });
        let two = [spec.clone(), spec];
        assert_eq!(made_by(&two[..1]), (3, 20.0));
        assert_eq!(made_by(&two), (6, 40.0));
        let slow = json!({ "livenessProbe": every(10), "startupProbe": every(1) });
        assert_eq!(made_by(&[one(slow)]), (1, 60.0), "it may be started again");
    }

    #[test]
    fn each_probe_has_had_its_turn_after_a_round() {
        let http = json!({ "httpGet": { "port": 8080 }, "periodSeconds": 15 });
        let both = one(json!({ "livenessProbe": http, "readinessProbe": http }));
        assert_eq!(background(&[pod(both)]).expect("a pod").round().as_secs(), 15);
        assert_eq!(background(&[pod(one(json!({})))]).expect("a pod").round().as_secs(), 0);
        assert!(background(&[pod(json!({ "containers": "none" }))]).is_err());
    }
}
