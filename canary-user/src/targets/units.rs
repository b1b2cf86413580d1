//! Targets that are units of systemd: which run, by what name and invocation, and in which cgroup.

use std::{sync::Arc, time::Duration};

use futures_util::StreamExt as _;
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};

use super::{
    Identity, Role,
    cgroup::Root,
    located::{Instance, Located},
};
use crate::{
    config::{Config, Pattern},
    orchestrator::systemd::bus::{Session, Unit},
};

/// systemd is asked again at least this often, also where no signal came.
const AT_LEAST_EVERY: Duration = Duration::from_secs(2);
/// And no more often than this, however many signals come.
const AT_MOST_EVERY: Duration = Duration::from_millis(100);
/// How long after a failure it is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// Which units a role means.
#[derive(Clone, Debug)]
struct Wanted {
    deployment: Arc<str>,
    role: Role,
    pattern: Pattern,
}

/// Follows the units that the configuration names, for as long as it is polled; returns at once where it names none.
///
/// While systemd cannot be reached, what it said last is what counts: a unit that is gone is missed by its cgroup anyway.
pub async fn follow(config: Config, root: Root, located: Located) {
    let wanted: Vec<Wanted> = config
        .deployments
        .iter()
        .flat_map(|d| [Role::Stable, Role::Canary].map(|role| (d, role)))
        .filter_map(|(d, role)| {
            Some(Wanted { deployment: d.name.clone(), role, pattern: d.role(role).units()?.clone() })
        })
        .collect();
    if wanted.is_empty() {
        return;
    }
    let mut told = None;
    loop {
        let Err(error) = watch(&config.systemd_bus, &wanted, &root, &located).await else { return };
        let text = format!("{error:#}");
        if told.as_ref() != Some(&text) {
            tracing::error!("targets by unit are not followed: {text}; tried again every second");
            told = Some(text);
        }
        sleep(AGAIN).await;
    }
}

async fn watch(bus: &str, wanted: &[Wanted], root: &Root, located: &Located) -> anyhow::Result<()> {
    let session = Session::open(bus).await?;
    let prefix = session.cgroup_prefix().await;
    let mut signals = session.unit_signals().await?;
    let news = Notify::new();
    // Read at all times: a queue of signals that is full holds up the answers, too.
    let listen = async {
        while let Some(signal) = signals.next().await {
            if signal.is_ok_and(|message| is_news(&message, wanted)) {
                news.notify_one();
            }
        }
        anyhow::bail!("the bus closed the connection")
    };
    let look = async {
        loop {
            for role in wanted {
                let instances = instances(&session, role, &prefix, root).await?;
                located.replace(&role.deployment, role.role, instances);
            }
            sleep(AT_MOST_EVERY).await;
            // No news in that time is no failure: then it is asked in any case.
            let _ = timeout(AT_LEAST_EVERY, news.notified()).await;
        }
    };
    tokio::select! {
        ended = listen => ended,
        failed = look => failed,
    }
}

/// Whether a signal is about a unit that is wanted. Its object path has the unit's name, escaped.
fn is_news(message: &zbus::Message, wanted: &[Wanted]) -> bool {
    let header = message.header();
    let Some(path) = header.path() else { return false };
    let escaped = path.as_str().rsplit('/').next().unwrap_or_default();
    wanted.iter().any(|w| w.pattern.matches(&unescape(escaped)))
}

/// `checkout_40v1_2eservice` is "checkout@v1.service": bytes that object paths do not allow stand as two hex digits after
/// an underscore (`sd_bus_path_encode(3)`).
fn unescape(path: &str) -> String {
    let mut name = Vec::new();
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        let code = (byte == b'_').then(|| [bytes.next(), bytes.next()]);
        name.push(match code {
            Some([Some(a), Some(b)]) => {
                let digits = [a, b];
                std::str::from_utf8(&digits).ok().and_then(|d| u8::from_str_radix(d, 16).ok()).unwrap_or(byte)
            }
            _ => byte,
        });
    }
    String::from_utf8_lossy(&name).into_owned()
}

async fn instances(session: &Session, wanted: &Wanted, prefix: &str, root: &Root) -> anyhow::Result<Vec<Instance>> {
    // systemd's patterns know no {a,b}: there all services are asked for.
    let pattern = if wanted.pattern.text.contains('{') { "*.service" } else { &wanted.pattern.text };
    let listed = session.manager.list_units_by_patterns(&[], &[pattern]).await?;
    let mut found = Vec::new();
    for (name, _, _, active, ..) in listed {
        if active == "inactive" || active == "failed" || !wanted.pattern.matches(&name) {
            continue;
        }
        let unit = session.unit(&name).await?;
        let identity = |unit: &Unit| Identity {
            name: name.as_str().into(),
            run: unit.invocation().into(),
            restarts: unit.number("NRestarts"),
        };
        // Between two of its lives it has no cgroup.
        if unit.text("SubState") == "auto-restart" {
            let cgroup = format!("{prefix}{}/{name}", path_of_slice(unit.text("Slice")));
            found.push(Instance { cgroup, incarnation: None, identity: identity(&unit) });
            continue;
        }
        let cgroup = format!("{prefix}{}", unit.text("ControlGroup"));
        let Some(incarnation) = root.id(&cgroup).filter(|_| !unit.text("ControlGroup").is_empty()) else { continue };
        // Read once more: a restart in between would pair one run's name with another's cgroup.
        if session.unit(&name).await?.invocation() == unit.invocation() {
            found.push(Instance { cgroup, incarnation: Some(incarnation), identity: identity(&unit) });
        }
    }
    Ok(found)
}

/// "a-b.slice" lies in "a.slice", and "-.slice" is the root (systemd.slice(5)). Names that systemd would have to escape, such as
/// "memory.service", are not: nothing is expected of them then.
fn path_of_slice(slice: &str) -> String {
    let stem = slice.strip_suffix(".slice").unwrap_or_default();
    if stem == "-" {
        return String::new();
    }
    let ends = stem.match_indices('-').map(|(at, _)| at).chain([stem.len()]);
    ends.map(|end| format!("/{}.slice", &stem[..end])).collect()
}

#[cfg(test)]
mod tests {
    use super::{path_of_slice, unescape};

    #[test]
    fn a_slices_path_is_in_its_name() {
        assert_eq!(path_of_slice("system.slice"), "/system.slice");
        assert_eq!(path_of_slice("system-shop-a.slice"), "/system.slice/system-shop.slice/system-shop-a.slice");
        assert_eq!(path_of_slice("-.slice"), "");
    }

    #[test]
    fn a_units_name_is_read_from_its_path() {
        assert_eq!(unescape("checkout_40v1_2eservice"), "checkout@v1.service");
        assert_eq!(unescape("a_2db_5cx2d"), "a-b\\x2d");
        assert_eq!(unescape("plain"), "plain");
    }
}
