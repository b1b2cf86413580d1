//! Where an instance runs, as those who started it call it, and the commands that they would type.
//!
//! A command that does something else than it says is worse than none: where it is not certain which is right, there is none.

use std::fmt;

/// Digits of a container's id that engines take for the whole.
const SHORT_ID: usize = 12;
/// The kernel's usual period of a CPU limit, and the microseconds of it that are a percent of a CPU.
const PERIOD_USEC: u64 = 100_000;
const PERCENT_USEC: u64 = PERIOD_USEC / 100;

/// Told from the path of a cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A unit of the machine's systemd, or of the one of a user, by number.
    Unit { name: String, user: Option<u32> },
    /// The command line of the engine, and the container's short id.
    Container(&'static str, String),
    /// A cgroup that somebody else made, by the path of its directory.
    Cgroup(String),
}

impl Place {
    /// `None` where commands of this machine do not reach what runs there, or somebody takes back what they do: a kubelet starts
    /// again what ends in a pod and sets its limits, and a user's containers are known to that user's engine alone.
    pub fn parse(path: &str, mount: &str) -> Option<Place> {
        Self::of_kind(path, mount, &[".service"])
    }

    /// Whoever has a limit: besides those, the slices and scopes of a systemd, that limit all that is in them.
    pub fn of_limit(path: &str, mount: &str) -> Option<Place> {
        Self::of_kind(path, mount, &[".service", ".slice", ".scope"])
    }

    /// `units` are the ends of the names that are a unit's.
    fn of_kind(path: &str, mount: &str, units: &[&str]) -> Option<Place> {
        let steps: Vec<&str> = path.split('/').filter(|step| !step.is_empty()).collect();
        let (last, above) = steps.split_last()?;
        if steps.iter().any(|step| step.contains("kubepods")) {
            return None;
        }
        // Some engines put the processes one level deeper.
        let (name, above) = match above.split_last() {
            Some((outer, further)) if *last == "container" => (*outer, further),
            _ => (*last, above),
        };
        // The managers of users are services of the machine's, with their units below them.
        let manager = above.iter().position(|step| !step.ends_with(".slice"));
        let user = manager.and_then(|at| user_of(above[at]));
        let slices = match (manager, user) {
            (Some(at), Some(_)) => &above[at + 1..],
            _ => above,
        };
        // Below anything else somebody else has the say: a systemd in a container, for one.
        let is_managers = slices.iter().all(|step| step.ends_with(".slice"));
        match (container(name), user) {
            (Some((Some("crictl"), _)), _) | (Some((Some(_), _)), Some(_)) => None,
            (Some((Some(engine), id)), None) if is_managers => Some(Place::Container(engine, id)),
            (Some((None, id)), None) if matches!(above, ["docker"]) => Some(Place::Container("docker", id)),
            (None, _) if is_managers && name == *last && units.iter().any(|end| name.ends_with(end)) => {
                Some(Place::Unit { name: name.to_owned(), user })
            }
            _ => Some(Place::Cgroup(format!("{mount}{path}"))),
        }
    }

    /// Ends it, in order.
    pub fn stop(&self) -> String {
        match self {
            Place::Unit { name, user } => format!("{} stop {}", systemctl(*user), quoted(name)),
            Place::Container(engine, id) => format!("{engine} stop {id}"),
            // Its processes may be in cgroups below it.
            Place::Cgroup(path) => {
                format!("find {} -name cgroup.procs -exec cat {{}} + | xargs -r kill -TERM", quoted(path))
            }
        }
    }

    /// Has it end as soon as it has done what it is at.
    pub fn drain(&self) -> String {
        match self {
            Place::Unit { name, user } => format!("{} kill --signal=SIGTERM {}", systemctl(*user), quoted(name)),
            Place::Container(engine, id) => format!("{engine} kill --signal=TERM {id}"),
            Place::Cgroup(_) => self.stop(),
        }
    }

    /// What may undo that.
    pub fn drain_is_undone_by(&self) -> Option<&'static str> {
        match self {
            Place::Unit { .. } => Some("Restart= in its unit may start it again: then stop it"),
            Place::Container(..) => None,
            Place::Cgroup(_) => Some("whoever started it may start it again"),
        }
    }

    /// `None` where nobody knows who started it.
    pub fn restart(&self) -> Option<String> {
        match self {
            Place::Unit { name, user } => Some(format!("{} restart {}", systemctl(*user), quoted(name))),
            Place::Container(engine, id) => Some(format!("{engine} restart {id}")),
            Place::Cgroup(_) => None,
        }
    }

    pub fn memory_limit(&self, bytes: u64) -> String {
        match self {
            Place::Unit { name, user } => set_property(name, *user, &format!("MemoryMax={bytes}")),
            Place::Container(engine, id) => {
                format!("{engine} update --memory {bytes} --memory-swap {bytes} {id}")
            }
            Place::Cgroup(path) => format!("echo {bytes} >{}", quoted(&format!("{path}/memory.max"))),
        }
    }

    pub fn lift_cpu_limit(&self) -> String {
        match self {
            Place::Unit { name, user } => set_property(name, *user, "CPUQuota="),
            // An engine takes no quota for what was started with a number of CPUs: as many as there are limit nothing.
            Place::Container(engine, id) => format!("{engine} update --cpus \"$(nproc)\" {id}"),
            Place::Cgroup(path) => format!("echo max >{}", quoted(&format!("{path}/cpu.max"))),
        }
    }

    /// To so many percent of a CPU.
    pub fn limit_cpu(&self, percent: u64) -> String {
        match self {
            Place::Unit { name, user } => set_property(name, *user, &format!("CPUQuota={percent}%")),
            Place::Container(engine, id) => format!("{engine} update --cpus {:.2} {id}", percent as f64 / 100.0),
            Place::Cgroup(path) => {
                let quota_usec = PERCENT_USEC * percent;
                format!("echo '{quota_usec} {PERIOD_USEC}' >{}", quoted(&format!("{path}/cpu.max")))
            }
        }
    }
}

/// As one calls it.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Unit { name, .. } => f.write_str(name),
            Place::Container(engine, id) => write!(f, "the {engine} container {id}"),
            Place::Cgroup(path) => f.write_str(path),
        }
    }
}

/// Of a unit, until the machine starts anew.
fn set_property(name: &str, user: Option<u32>, property: &str) -> String {
    format!("{} set-property --runtime {} {property}", systemctl(user), quoted(name))
}

/// The systemd that has the unit.
fn systemctl(user: Option<u32>) -> String {
    user.map_or("systemctl".to_owned(), |user| format!("systemctl --user -M {user}@.host"))
}

/// The user of `user@1000.service`.
fn user_of(name: &str) -> Option<u32> {
    name.strip_prefix("user@")?.strip_suffix(".service")?.parse().ok()
}

/// Command line of the engine and short id of a container, by the name of its cgroup. Some drivers name no engine.
fn container(name: &str) -> Option<(Option<&'static str>, String)> {
    let engines = [
        ("docker-", Some("docker")),
        ("libpod-", Some("podman")),
        ("cri-containerd-", Some("crictl")),
        ("crio-", Some("crictl")),
        ("", None),
    ];
    let bare = name.strip_suffix(".scope").unwrap_or(name);
    engines.into_iter().find_map(|(prefix, engine)| {
        let id = bare.strip_prefix(prefix)?;
        let is_id = id.len() >= SHORT_ID && id.bytes().all(|b| b.is_ascii_hexdigit());
        is_id.then(|| (engine, id[..SHORT_ID].to_owned()))
    })
}

/// For a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn place(path: &str) -> Option<Place> {
        Place::parse(path, "/sys/fs/cgroup")
    }

    fn stop(path: &str) -> Option<String> {
        place(path).map(|place| place.stop())
    }

    #[test]
    fn commands_name_what_runs_there() {
        let cases = [
            ("/system.slice/shop-canary@1.service".to_owned(), "systemctl stop 'shop-canary@1.service'"),
            ("/system.slice/system-shop.slice/shop@1.service".to_owned(), "systemctl stop 'shop@1.service'"),
            (
                "/user.slice/user-1000.slice/user@1000.service/app.slice/shop.service".to_owned(),
                "systemctl --user -M 1000@.host stop 'shop.service'",
            ),
            ("/user.slice/user-1000.slice/user@1000.service".to_owned(), "systemctl stop 'user@1000.service'"),
            (format!("/system.slice/docker-{ID}.scope"), "docker stop 0123456789ab"),
            (format!("/docker/{ID}"), "docker stop 0123456789ab"),
            (format!("/machine.slice/libpod-{ID}.scope"), "podman stop 0123456789ab"),
            (format!("/machine.slice/libpod-{ID}.scope/container"), "podman stop 0123456789ab"),
        ];
        for (path, command) in cases {
            assert_eq!(stop(&path).as_deref(), Some(command), "{path}");
        }
    }

    #[test]
    fn a_cgroup_is_ended_with_all_that_is_below_it() {
        let ended = |path: &str| {
            let dir = format!("/sys/fs/cgroup{path}").replace('\'', r"'\''");
            Some(format!("find '{dir}' -name cgroup.procs -exec cat {{}} + | xargs -r kill -TERM"))
        };
        // What lies below a unit or a container is a part of it, and what a container has of systemd is not the machine's.
        let part = format!("/system.slice/docker-{ID}.scope/init");
        let inner = "/machine.slice/systemd-nspawn@a.service/payload/system.slice/shop.service";
        let foreign = format!("/docker/{ID}/docker/{ID}");
        for path in ["/shop/canary-1", "/system.slice/shop.service/worker", &part, inner, &foreign, "/shop's"] {
            assert_eq!(stop(path), ended(path), "{path}");
            assert_eq!(place(path).and_then(|place| place.restart()), None, "nobody knows who started it");
        }
    }

    #[test]
    fn where_somebody_takes_it_back_or_nobody_here_reaches_it_there_is_no_command() {
        let uid = "4b3d2c1e_7f60_4a5b_9c8d_1e2f3a4b5c6d";
        let pod = format!("/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{uid}.slice");
        let kind = format!("/docker/{ID}/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{uid}.slice");
        let by_files = "/kubepods/burstable/pod4b3d2c1e-7f60-4a5b-9c8d-1e2f3a4b5c6d";
        let rootless = "/user.slice/user-1000.slice/user@1000.service/user.slice";
        for path in [
            pod.clone(),
            format!("{pod}/cri-containerd-{ID}.scope"),
            format!("{pod}/docker-{ID}.scope"),
            format!("{pod}/crio-{ID}.scope/container"),
            kind,
            by_files.to_owned(),
            format!("{by_files}/{ID}"),
            format!("/system.slice/crio-{ID}.scope"),
            format!("{rootless}/libpod-{ID}.scope"),
            format!("{rootless}/docker-{ID}.scope"),
        ] {
            assert_eq!(place(&path), None, "{path}");
        }
    }

    #[test]
    fn a_limit_may_be_a_slices_or_a_scopes() {
        let uid = "4b3d2c1e_7f60_4a5b_9c8d_1e2f3a4b5c6d";
        let manager = "/user.slice/user-1000.slice/user@1000.service";
        let unit = |path: &str, command: &str, name: &str| (path.to_owned(), Some(command.to_owned()), name.to_owned());
        let cases = [
            unit("/shop.slice", "systemctl set-property --runtime 'shop.slice' CPUQuota=", "shop.slice"),
            unit(
                "/system.slice/system-shop.slice",
                "systemctl set-property --runtime 'system-shop.slice' CPUQuota=",
                "system-shop.slice",
            ),
            unit(
                "/user.slice/user-1000.slice",
                "systemctl set-property --runtime 'user-1000.slice' CPUQuota=",
                "user-1000.slice",
            ),
            unit(
                &format!("{manager}/app.slice"),
                "systemctl --user -M 1000@.host set-property --runtime 'app.slice' CPUQuota=",
                "app.slice",
            ),
            unit(
                "/user.slice/user-1000.slice/session-3.scope",
                "systemctl set-property --runtime 'session-3.scope' CPUQuota=",
                "session-3.scope",
            ),
            unit(
                &format!("/system.slice/docker-{ID}.scope"),
                "docker update --cpus \"$(nproc)\" 0123456789ab",
                "the docker container 0123456789ab",
            ),
            unit("/shop", "echo max >'/sys/fs/cgroup/shop/cpu.max'", "/sys/fs/cgroup/shop"),
            // What a container has of systemd is not the machine's.
            unit(
                &format!("/docker/{ID}/system.slice"),
                &format!("echo max >'/sys/fs/cgroup/docker/{ID}/system.slice/cpu.max'"),
                &format!("/sys/fs/cgroup/docker/{ID}/system.slice"),
            ),
            (
                format!("/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{uid}.slice"),
                None,
                String::new(),
            ),
        ];
        for (path, command, name) in cases {
            let place = Place::of_limit(&path, "/sys/fs/cgroup");
            assert_eq!(place.as_ref().map(Place::lift_cpu_limit), command, "{path}");
            assert_eq!(place.map(|place| place.to_string()).unwrap_or_default(), name, "{path}");
        }
        assert!(matches!(place("/shop.slice"), Some(Place::Cgroup(_))), "nothing is stopped or drained by its slice");
    }

    #[test]
    fn limits_are_set_in_the_words_of_who_has_them() {
        let place = |path: &str| place(path).expect("a place");
        let unit = place("/system.slice/a.service");
        assert_eq!(unit.memory_limit(1024), "systemctl set-property --runtime 'a.service' MemoryMax=1024");
        assert_eq!(unit.limit_cpu(6), "systemctl set-property --runtime 'a.service' CPUQuota=6%");
        let docker = place(&format!("/docker/{ID}"));
        assert_eq!(docker.limit_cpu(6), "docker update --cpus 0.06 0123456789ab");
        assert_eq!(docker.limit_cpu(250), "docker update --cpus 2.50 0123456789ab");
        assert_eq!(docker.lift_cpu_limit(), "docker update --cpus \"$(nproc)\" 0123456789ab");
        let cgroup = place("/shop/canary-1");
        assert_eq!(cgroup.limit_cpu(250), "echo '250000 100000' >'/sys/fs/cgroup/shop/canary-1/cpu.max'");
        assert_eq!(cgroup.lift_cpu_limit(), "echo max >'/sys/fs/cgroup/shop/canary-1/cpu.max'");
        let of_user = place("/user.slice/user-1000.slice/user@1000.service/app.slice/a.service");
        assert_eq!(
            of_user.limit_cpu(50),
            "systemctl --user -M 1000@.host set-property --runtime 'a.service' CPUQuota=50%"
        );
    }
}
