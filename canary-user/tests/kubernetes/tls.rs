//! The API server is believed by the certificate that the kubeconfig names, and shown the token that is in it.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use canary_user::{
    config::TlsConfig,
    guard::Action,
    orchestrator::{Orchestrator as _, kubernetes::Kubernetes},
};

use crate::{
    cluster::{config, decision, deployment, pod, replica_set},
    server::Server,
};

fn certificate(directory: &Path, name: &str) -> Option<TlsConfig> {
    let at = |end: &str| directory.join(format!("{name}.{end}"));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"])
        .args(["-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE", "-keyout"])
        .args([&at("key"), Path::new("-out"), &at("crt")])
        .stderr(Stdio::null())
        .status();
    made.is_ok_and(|status| status.success()).then(|| TlsConfig { certificate: at("crt"), key: at("key") })
}

#[tokio::test]
async fn the_server_shows_its_certificate_and_the_guard_its_token() {
    let directory = tempfile::tempdir().expect("a directory");
    let [ours, another] = ["ours", "another"].map(|name| certificate(directory.path(), name));
    let (Some(ours), Some(another)) = (ours, another) else {
        println!("SKIP the_server_shows_its_certificate_and_the_guard_its_token: no openssl that makes certificates");
        return;
    };
    let server = Server::start_with_tls(&ours, "right").await;
    for (name, hash) in [("checkout", "aaa"), ("checkout-canary", "bbb")] {
        let mut store = server.store();
        store.put("deployments", deployment(name, hash, 2));
        store.put("replicasets", replica_set("Deployment", name, hash, 1));
        store.put("pods", pod(name, hash, "11111"));
    }
    let decision = decision(Action::Drain, "checkout", "checkout-canary");
    let hands = |authority: &Path, token: &str| {
        let config = config(server.kubeconfig_with_tls(authority, token), "", "");
        Kubernetes::new(&config.kubernetes, &config.deployments[0])
    };
    let right = hands(&ours.certificate, "right");
    right.describe(&decision).await.expect("possible");
    let wrong = hands(&ours.certificate, "wrong").describe(&decision).await.expect_err("a wrong token");
    assert!(wrong.to_string().contains("status 401"), "{wrong}");
    let stranger = hands(&another.certificate, "right").describe(&decision).await.expect_err("a stranger");
    assert!(stranger.to_string().contains("certificate"), "{stranger}");
}
