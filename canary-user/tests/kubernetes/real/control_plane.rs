//! etcd and kube-apiserver, and where a test asks for it kube-controller-manager, of one test alone; ended when dropped.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use axum::http::Request;
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::json;
use tempfile::TempDir;
use tokio::time::sleep;

/// Of each program's log, where a test fails.
const LAST_LINES: usize = 20;

/// Which programs a test needs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum With {
    ApiServer,
    /// And who makes pods of Deployments and DaemonSets.
    Controllers,
}

impl With {
    fn programs(self) -> &'static [&'static str] {
        match self {
            With::ApiServer => &["kube-apiserver", "etcd"],
            With::Controllers => &["kube-apiserver", "etcd", "kube-controller-manager"],
        }
    }
}

pub struct ControlPlane {
    directory: TempDir,
    children: Vec<(&'static str, Child)>,
    port: u16,
    pub admin: Client,
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        for (program, child) in self.children.iter_mut().rev() {
            let ended = child.try_wait().ok().flatten();
            let _ = child.kill();
            let _ = child.wait();
            if std::thread::panicking() {
                let log = fs::read_to_string(self.directory.path().join(format!("{program}.log"))).unwrap_or_default();
                let last = log.lines().rev().take(LAST_LINES).collect::<Vec<_>>();
                let last = last.into_iter().rev().collect::<Vec<_>>().join("\n");
                println!("{program} {}:\n{last}", ended.map_or("ran".into(), |status| format!("had ended ({status})")));
            }
        }
    }
}

/// Ports that were free just now, no two the same.
fn free_ports<const N: usize>() -> [u16; N] {
    let listeners = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").expect("a port"));
    listeners.map(|listener| listener.local_addr().expect("an address").port())
}

/// The directory with the programs; else the reason, which is printed.
fn assets(test: &str, with: With) -> Option<PathBuf> {
    let Some(assets) = std::env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from) else {
        println!("SKIP {test}: KUBEBUILDER_ASSETS names no directory with {}", with.programs().join(", "));
        return None;
    };
    if let Some(missing) = with.programs().iter().find(|program| !assets.join(program).exists()) {
        println!("SKIP {test}: there is no {missing} in {}", assets.display());
        return None;
    }
    Some(assets)
}

impl ControlPlane {
    /// `None`, and the reason is printed, where there is none to start.
    pub async fn start(test: &str, with: With) -> Option<Self> {
        let assets = assets(test, with)?;
        let directory = TempDir::new().expect("a directory");
        let at = |name: &str| directory.path().join(name).display().to_string();
        let key = Command::new("openssl").args(["genrsa", "-out", &at("key"), "2048"]).stderr(Stdio::null()).status();
        if !key.is_ok_and(|status| status.success()) {
            println!("SKIP {test}: there is no openssl to make a key with");
            return None;
        }
        fs::write(at("tokens"), "admin,admin,1,system:masters\n").expect("write the tokens");
        let [client, peer, port] = free_ports();
        let admin = client_of(&write_kubeconfig(directory.path(), &format!("https://127.0.0.1:{port}"), "admin")).await;
        let mut plane = Self { directory, children: Vec::new(), port, admin };
        let [client, peer] = [client, peer].map(|port| format!("http://127.0.0.1:{port}"));
        let mut arguments = vec![
            format!("--data-dir={}", plane.path("etcd")),
            format!("--listen-client-urls={client}"),
            format!("--advertise-client-urls={client}"),
            format!("--listen-peer-urls={peer}"),
        ];
        plane.spawn(&assets, "etcd", &arguments);
        arguments = vec![
            format!("--etcd-servers={client}"),
            "--bind-address=127.0.0.1".into(),
            format!("--secure-port={port}"),
            format!("--cert-dir={}", plane.path("certificates")),
            format!("--token-auth-file={}", plane.path("tokens")),
            "--authorization-mode=RBAC".into(),
            "--service-cluster-ip-range=10.0.0.0/24".into(),
            "--service-account-issuer=https://localhost".into(),
            format!("--service-account-key-file={}", plane.path("key")),
            format!("--service-account-signing-key-file={}", plane.path("key")),
            // Of containers: the sensor's are privileged.
            "--allow-privileged=true".into(),
        ];
        if with == With::ApiServer {
            // Nobody makes the accounts that it would have pods run as.
            arguments.push("--disable-admission-plugins=ServiceAccount".into());
        }
        plane.spawn(&assets, "kube-apiserver", &arguments);
        plane.wait_until_ready().await;
        if with == With::Controllers {
            plane.start_controllers(&assets);
        }
        Some(plane)
    }

    fn start_controllers(&mut self, assets: &Path) {
        let mut arguments = vec![
            format!("--kubeconfig={}", self.kubeconfig("admin").display()),
            format!("--service-account-private-key-file={}", self.path("key")),
            "--controllers=deployment,replicaset,daemonset,serviceaccount,serviceaccount-token".into(),
            "--leader-elect=false".into(),
            "--secure-port=0".into(),
        ];
        let help = Command::new(assets.join("kube-controller-manager")).arg("--help").output().expect("it runs");
        // Up to 1.23 it has a port without TLS, too, which is the same one for everybody.
        if String::from_utf8_lossy(&help.stdout).contains(" --port ") {
            arguments.push("--port=0".into());
        }
        self.spawn(assets, "kube-controller-manager", &arguments);
    }

    fn spawn(&mut self, assets: &Path, program: &'static str, arguments: &[String]) {
        let log = fs::File::create(self.path(&format!("{program}.log"))).expect("a log");
        let mut command = Command::new(assets.join(program));
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = command.spawn().unwrap_or_else(|e| panic!("start {program}: {e}"));
        self.children.push((program, child));
    }

    async fn wait_until_ready(&mut self) {
        loop {
            let asked = Request::get("/readyz").body(Vec::new()).expect("a request");
            if self.admin.request_text(asked).await.is_ok() {
                return;
            }
            for (program, child) in &mut self.children {
                if let Some(status) = child.try_wait().expect("a child of this process") {
                    let log = self.directory.path().join(format!("{program}.log"));
                    panic!("{program} ended ({status}):\n{}", fs::read_to_string(log).unwrap_or_default());
                }
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    /// A file by which clients find the API server, and show it this token.
    pub fn kubeconfig(&self, token: &str) -> PathBuf {
        write_kubeconfig(self.directory.path(), &format!("https://127.0.0.1:{}", self.port), token)
    }

    /// The same, by way of another server.
    pub fn kubeconfig_by(&self, server: &str, token: &str) -> PathBuf {
        write_kubeconfig(self.directory.path(), server, token)
    }

    pub async fn client(&self, token: &str) -> Client {
        client_of(&self.kubeconfig(token)).await
    }
}

fn write_kubeconfig(directory: &Path, server: &str, token: &str) -> PathBuf {
    let name = server.replace(['/', ':'], "-");
    let end = token.len().saturating_sub(8);
    let path = directory.join(format!("kubeconfig-{name}-{}", &token[end..]));
    let text = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        "clusters": [{ "name": "test", "cluster": { "server": server, "insecure-skip-tls-verify": true } }],
        "users": [{ "name": "test", "user": { "token": token } }],
        "contexts": [{ "name": "test", "context": { "cluster": "test", "user": "test" } }],
    });
    fs::write(&path, text.to_string()).expect("write the kubeconfig");
    path
}

async fn client_of(kubeconfig: &Path) -> Client {
    let read = Kubeconfig::read_from(kubeconfig).expect("a kubeconfig");
    let config = Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await.expect("a configuration");
    Client::try_from(config).expect("a client")
}
