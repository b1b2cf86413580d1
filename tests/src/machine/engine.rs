//! A real Docker or Podman in the machine.

use std::{fs, path::PathBuf, process::Command};

use super::{Machine, PATIENCE};
use crate::wait_until;

/// What runs containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    Docker,
    Podman,
}

/// systemd drives the cgroups, as on Debian. There is no network but that of the machine.
const DOCKER: &str = "[Service]\nType=notify\nDelegate=yes\nKillMode=process\n\
                      ExecStart=dockerd --host=unix:///run/docker.sock --exec-opt native.cgroupdriver=systemd \
                      --bridge=none --iptables=false --ip6tables=false --ip-forward=false --ip-masq=false \
                      --storage-driver=vfs --oom-score-adjust=0\n";
/// What answers Docker's API for Podman; its containers live without it.
const PODMAN: &str = "[Service]\nDelegate=yes\nKillMode=process\n\
                      Environment=CONTAINERS_CONF=/run/containers.conf CONTAINERS_STORAGE_CONF=/run/storage.conf\n\
                      ExecStart=podman system service --time=0 unix:///run/podman.sock\n";
/// Without a limit of processes: cgroup v2 may have no such controller.
const PODMAN_CONFIGURATION: &str = "[containers]\npids_limit = 0\n\
                                    [engine]\nruntime = \"runc\"\ncgroup_manager = \"systemd\"\nevents_logger = \"file\"\n";
const PODMAN_STORAGE: &str =
    "[storage]\ndriver = \"vfs\"\ngraphroot = \"/run/podman-storage\"\nrunroot = \"/run/podman-run\"\n";

impl Engine {
    fn command(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Podman => "podman",
        }
    }

    /// Programs, and the packages that have them.
    fn needs(self) -> (&'static [&'static str], &'static str) {
        match self {
            Self::Docker => (&["dockerd", "docker", "busybox"], "docker.io busybox-static"),
            Self::Podman => (&["podman", "runc", "busybox"], "podman runc busybox-static"),
        }
    }
}

impl Machine {
    /// A machine with an engine in it; `None` where it cannot be had here, after saying why.
    ///
    /// # Errors
    /// Where it could be had and fails.
    pub fn boot_with(engine: Engine, test: &str) -> anyhow::Result<Option<Self>> {
        let unit = match engine {
            Engine::Docker => DOCKER,
            Engine::Podman => PODMAN,
        };
        Self::boot_with_unit(engine, unit, test)
    }

    /// The same with a Docker that keeps its images on this machine's disk, in layers that share what is equal: for such as
    /// memory is too small for.
    ///
    /// # Errors
    /// Where it could be had and fails.
    pub fn boot_to_build(test: &str) -> anyhow::Result<Option<Self>> {
        let on_disk = "--storage-driver=overlay2 --data-root=/run/docker-data";
        Self::boot_with_unit(Engine::Docker, &DOCKER.replace("--storage-driver=vfs", on_disk), test)
    }

    fn boot_with_unit(engine: Engine, unit: &str, test: &str) -> anyhow::Result<Option<Self>> {
        let (needed, packages) = engine.needs();
        for program in needed {
            let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).output()?.status.success();
            if !found {
                println!("SKIP {test}: there is no {program}: apt-get install {packages}");
                return Ok(None);
            }
        }
        let Some(machine) = Self::boot(test)? else { return Ok(None) };
        if engine == Engine::Podman {
            fs::write(machine.run_dir().join("containers.conf"), PODMAN_CONFIGURATION)?;
            fs::write(machine.run_dir().join("storage.conf"), PODMAN_STORAGE)?;
        }
        let socket = machine.engine_socket(engine);
        machine.units(&[("engine.service", unit)])?;
        let up = machine.systemctl(&["start", "engine.service"]).and_then(|_| {
            wait_until("it answers", PATIENCE, || socket.exists() && machine.engine(engine, &["version"]).is_ok())
        });
        if let Err(error) = up {
            let why = format!("{error:#}").replace('\n', " / ");
            println!("SKIP {test}: {} does not come up in namespaces here: {why}", engine.command());
            return Ok(None);
        }
        Ok(Some(machine))
    }

    /// Where it answers Docker's API, seen from outside.
    pub fn engine_socket(&self, engine: Engine) -> PathBuf {
        self.run_dir().join(engine.command()).with_extension("sock")
    }

    /// Its command line.
    ///
    /// # Errors
    /// Where the command fails, with what it said.
    pub fn engine(&self, engine: Engine, arguments: &[&str]) -> anyhow::Result<String> {
        match engine {
            Engine::Docker => self.inside("docker", arguments),
            Engine::Podman => {
                let podman =
                    ["CONTAINERS_CONF=/run/containers.conf", "CONTAINERS_STORAGE_CONF=/run/storage.conf", "podman"];
                self.inside("env", &[&podman, arguments].concat())
            }
        }
    }

    pub fn docker(&self, arguments: &[&str]) -> anyhow::Result<String> {
        self.engine(Engine::Docker, arguments)
    }

    /// Makes an image of busybox and nothing else.
    ///
    /// # Errors
    /// Where the engine does not take it.
    pub fn image(&self, engine: Engine, name: &str) -> anyhow::Result<()> {
        let script = "mkdir -p /tmp/image/bin && cp \"$(command -v busybox)\" /tmp/image/bin/busybox && \
                      for applet in sh sleep touch echo kill test; do ln -sf busybox /tmp/image/bin/$applet; done && \
                      tar -C /tmp/image -cf /tmp/image.tar .";
        self.inside("sh", &["-c", script])?;
        self.engine(engine, &["import", "/tmp/image.tar", name]).map(drop)
    }
}
