//! Which of several guards acts, by a Lease (coordination.k8s.io/v1).
//!
//! It is asked for only while somebody wants to know: a guard with nothing to do does not keep those from acting that have.
//! A Lease fences nothing (two may believe that they hold it for a moment), so that every change has its own precondition too.

use std::{
    fs,
    path::PathBuf,
    process,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use anyhow::Context as _;
use kube::{ResourceExt as _, api::DynamicObject};
use serde_json::json;
use tokio::{
    sync::Notify,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use super::{
    api::{Api, Kind, told},
    workload::{number, string},
};

/// How long a Lease holds that is not renewed.
const DURATION: Duration = Duration::from_secs(15);
/// It is not relied on in the second half of that.
const RELY: Duration = Duration::from_millis(7_500);
const RENEW: Duration = Duration::from_secs(2);
/// How long it is kept after somebody wanted to know for the last time.
const WANTED: Duration = Duration::from_secs(60);

/// A name for one life of one guard: of two on one node, as during an update of the DaemonSet, one leads.
pub fn holder(node: &str) -> String {
    let uuid = fs::read_to_string("/proc/sys/kernel/random/uuid");
    let life = uuid.map_or_else(|_| process::id().to_string(), |uuid| uuid.trim().to_owned());
    format!("{node}_{life}")
}

/// What is known of the Lease.
#[derive(Debug)]
struct Standing {
    wanted_until: Option<Instant>,
    /// Since when this guard holds it, by its last renewal; `None` = it does not.
    renewed: Option<Instant>,
    /// Who holds it, or what is wrong.
    told: String,
}

/// A part in the election of one Lease; ended by dropping it.
pub struct Lease {
    name: String,
    standing: Arc<Mutex<Standing>>,
    wanted: Arc<Notify>,
    task: JoinHandle<()>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Lease {
    /// Takes part as `holder` from now on, in a task of its own.
    pub fn campaign(kubeconfig: Option<PathBuf>, namespace: String, name: String, holder: String) -> Self {
        let asked = format!("the Lease {namespace}/{name} is asked for once something is to be done");
        let standing = Arc::new(Mutex::new(Standing { wanted_until: None, renewed: None, told: asked }));
        let wanted = Arc::new(Notify::new());
        let election = Election { kubeconfig, namespace, name: name.clone(), holder, seen: None };
        let task = tokio::spawn(election.run(standing.clone(), wanted.clone()));
        Self { name, standing, wanted, task }
    }

    /// Whether this guard holds it, as far as is known now. Asking makes it try.
    pub fn ask(&self) -> Result<String, String> {
        lock(&self.standing).wanted_until = Some(Instant::now() + WANTED);
        self.wanted.notify_one();
        self.standing()
    }

    /// The same, and nothing is tried.
    pub fn standing(&self) -> Result<String, String> {
        let standing = lock(&self.standing);
        match standing.renewed {
            Some(renewed) if renewed.elapsed() < RELY => Ok(format!("this guard holds the Lease {}", self.name)),
            Some(_) => Err(format!("the Lease {} was not renewed in time: {}", self.name, standing.told)),
            None => Err(standing.told.clone()),
        }
    }
}

fn lock(standing: &Mutex<Standing>) -> std::sync::MutexGuard<'_, Standing> {
    standing.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What another one's Lease was when it was last seen to change, on this machine's own clock: clocks of others are not
/// compared (as client-go's leader election does it).
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    resource_version: Option<String>,
    since: Instant,
}

struct Election {
    kubeconfig: Option<PathBuf>,
    namespace: String,
    name: String,
    holder: String,
    seen: Option<Seen>,
}

/// How a round ended.
enum Round {
    Held,
    HeldBy(String),
}

impl Election {
    async fn run(mut self, standing: Arc<Mutex<Standing>>, wanted: Arc<Notify>) {
        let mut api = None;
        loop {
            let until = lock(&standing).wanted_until;
            let holds = lock(&standing).renewed.is_some();
            if until.is_none_or(|until| until <= Instant::now()) {
                if holds {
                    // Left to run out: whoever wants it then takes it.
                    lock(&standing).renewed = None;
                }
                wanted.notified().await;
                continue;
            }
            let began = Instant::now();
            let round = timeout(RELY, self.round(&mut api)).await;
            let round = round.unwrap_or_else(|_| Err(anyhow::anyhow!("the API server does not answer")));
            {
                let mut standing = lock(&standing);
                match round {
                    // As of before the call: the server counts from when it got it.
                    Ok(Round::Held) => standing.renewed = Some(began),
                    Ok(Round::HeldBy(other)) => {
                        standing.renewed = None;
                        standing.told = format!("{other} holds the Lease {}/{}", self.namespace, self.name);
                    }
                    Err(e) => standing.told = format!("{e:#}"),
                }
            }
            sleep(RENEW).await;
        }
    }

    async fn round(&mut self, api: &mut Option<Api>) -> anyhow::Result<Round> {
        let api = match api {
            Some(api) => api,
            None => api.insert(Api::open(self.kubeconfig.as_deref()).await?),
        };
        let (namespace, name) = (self.namespace.clone(), self.name.clone());
        let mut lease = api.get(Kind::Lease, &namespace, &name).await?.with_context(|| {
            format!("there is no Lease {namespace}/{name}: make it (deploy/kubernetes/components/kubernetes), the guard may not")
        })?;
        let holder = string(&lease.data, "/spec/holderIdentity").unwrap_or_default().to_owned();
        if !holder.is_empty() && holder != self.holder && !self.has_run_out(&lease) {
            return Ok(Round::HeldBy(holder));
        }
        self.take(&mut lease, &holder);
        match api.replace(Kind::Lease, &namespace, &name, &lease).await {
            Ok(_) => Ok(Round::Held),
            Err(kube::Error::Api(status)) if status.code == 409 => {
                Ok(Round::HeldBy("another guard, which was faster,".into()))
            }
            Err(e) => Err(told(e, format!("take the Lease {namespace}/{name}"))),
        }
    }

    /// Whether its holder has not renewed it for as long as it holds.
    fn has_run_out(&mut self, lease: &DynamicObject) -> bool {
        let resource_version = lease.resource_version();
        let seen = self.seen.take().filter(|seen| seen.resource_version == resource_version);
        let seen = seen.unwrap_or(Seen { resource_version, since: Instant::now() });
        let seconds = number(&lease.data, "/spec/leaseDurationSeconds").and_then(|s| u64::try_from(s).ok());
        let holds = seconds.map_or(DURATION, Duration::from_secs);
        let run_out = seen.since.elapsed() > holds;
        self.seen = Some(seen);
        run_out
    }

    fn take(&self, lease: &mut DynamicObject, before: &str) {
        let now = humantime::format_rfc3339_micros(SystemTime::now()).to_string();
        let transitions = number(&lease.data, "/spec/leaseTransitions").unwrap_or_default();
        let is_new = before != self.holder;
        let acquired = string(&lease.data, "/spec/acquireTime").filter(|_| !is_new).unwrap_or(&now).to_owned();
        lease.data = json!({ "spec": {
            "holderIdentity": self.holder,
            "leaseDurationSeconds": DURATION.as_secs(),
            "acquireTime": acquired,
            "renewTime": now,
            "leaseTransitions": transitions + i64::from(is_new),
        }});
    }
}
