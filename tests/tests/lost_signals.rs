//! What the kernel does not give is named, and absent in everything that is shown; the rest works on.

use std::process::Stdio;

use canary_e2e::{
    Sandbox, bpf,
    guard::{self, Configuration, Guard, canary},
    kernel_available,
    openmetrics::Series,
    service::{Service, Traffic, outside},
};
use serde_json::Value;

/// Ends by executing what follows it where the kernel shows no BTF, in a mount namespace of its own.
const WITHOUT_BTF: [&str; 6] =
    ["unshare", "--mount", "sh", "-c", "mount -t tmpfs none /sys/kernel/btf && exec \"$@\"", "sh"];

/// Two instances with traffic on both.
struct Shop {
    sandbox: Sandbox,
    _services: [Service; 2],
    _traffic: Traffic,
}

impl Shop {
    fn open(sandbox: Sandbox) -> anyhow::Result<Self> {
        let service = |name: &str| Service::start(&sandbox, &sandbox.cgroup(name)?);
        let services = [service("stable-0")?, service("canary-0")?];
        let traffic = Traffic::start(&services.each_ref().map(|s| s.address))?;
        Ok(Self { _services: services, _traffic: traffic, sandbox })
    }
}

fn has(series: &[Series], name: &str) -> bool {
    series.iter().any(|s| s.name == name)
}

fn hooks_missing(window: &Value) -> String {
    window["quality"]["hooks_missing"].to_string()
}

#[test]
fn check_tells_what_a_kernel_without_btf_loses() -> anyhow::Result<()> {
    if !kernel_available("check_tells_what_a_kernel_without_btf_loses") {
        return Ok(());
    }
    let output = canary(&WITHOUT_BTF).arg("check").output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "what is left is worth running: {said}");
    let line = |what: &str| said.lines().find(|l| l.contains(what)).unwrap_or_default().to_owned();
    let btf = line("  BTF ");
    assert!(btf.starts_with("limited") && btf.contains("CONFIG_DEBUG_INFO_BTF=y"), "{said}");
    assert!(line("hook sched_switch").contains("there are no on-CPU time"), "{said}");
    assert!(line("hook sched_process_exit").contains("there are no process exits"), "{said}");
    for hook in ["hook ingress", "hook egress"] {
        assert!(line(hook).starts_with("ok"), "{said}");
    }
    Ok(())
}

/// The hooks of cgroups are attached, to a cgroup that is gone afterwards. Where none can be made it is the process's own: here one
/// that refuses what goes out.
#[test]
fn check_attaches_the_hooks_of_cgroups_for_real() -> anyhow::Result<()> {
    if !kernel_available("check_attaches_the_hooks_of_cgroups_for_real") {
        return Ok(());
    }
    let sandbox = Sandbox::new()?;
    let line = |said: &str, hook: &str| said.lines().find(|l| l.contains(hook)).unwrap_or_default().to_owned();
    let hooks = ["hook ingress", "hook egress", "hook connections"];
    let check = outside(|| canary(&[]).arg("check").stdout(Stdio::piped()).spawn())?;
    let made = sandbox.root.dir(&format!("/canary-check-{}", check.id()));
    let said = String::from_utf8(check.wait_with_output()?.stdout)?;
    for hook in hooks {
        assert!(line(&said, hook).starts_with("ok") && !line(&said, hook).contains("tried on"), "{said}");
    }
    assert!(!made.exists(), "{} is left", made.display());

    let refusing = sandbox.cgroup("refusing")?;
    bpf::occupy(sandbox.root.open(&refusing)?, bpf::Attach::Egress)?;
    let (root, procs) = (sandbox.root.path().display(), sandbox.root.dir(&refusing).join("cgroup.procs"));
    let script = format!("echo $$ > {} && mount -o remount,bind,ro {root} && exec \"$@\"", procs.display());
    let wrapper = ["unshare", "--mount", "sh", "-c", script.as_str(), "sh"];
    let output = outside(|| canary(&wrapper).arg("check").output())?;
    let said = String::from_utf8(output.stdout)?;
    assert_eq!(output.status.code(), Some(0), "{said}{}", String::from_utf8_lossy(&output.stderr));
    for (hook, mark) in hooks.into_iter().zip(["ok", "limited", "ok"]) {
        let line = line(&said, hook);
        assert!(line.starts_with(mark) && line.contains(&format!("tried on {refusing}")), "{hook}: {said}");
    }
    assert!(line(&said, "hook egress").contains("not permitted"), "{said}");
    Ok(())
}

#[test]
fn without_btf_the_socket_hooks_work_on() -> anyhow::Result<()> {
    if !kernel_available("without_btf_the_socket_hooks_work_on") {
        return Ok(());
    }
    let shop = Shop::open(Sandbox::new()?)?;
    // Events are compared from the end of the warm-up on.
    let configuration = Configuration::new(&format!("[judge]\nwarmup_windows = 0\n{}", guard::shop(&shop.sandbox)))?;
    let mut guard = Guard::start_as(&WITHOUT_BTF, &configuration, &[])?;
    let window = guard.until("turnarounds of both", |w| {
        let mean = &w["indicators"]["turnaround_mean"];
        mean["stable"].is_number() && mean["canary"].is_number() && w["events"]["resets_out"]["canary"].is_number()
    })?;
    assert!(guard.said().contains("CONFIG_DEBUG_INFO_BTF=y"), "{}", guard.said());
    let missing = hooks_missing(&window);
    for (hook, lost) in [("sched_switch", "on-CPU time"), ("mark_victim", "OOM kills"), ("tcp_retransmit_skb", "TCP")] {
        assert!(missing.contains(hook) && missing.contains(lost), "{hook}: {missing}");
    }
    for role in ["stable", "canary"] {
        for lost in ["cpu_per_work", "run_queue_wait", "run_queue_wait_p95"] {
            assert_eq!(window["indicators"][lost][role], Value::Null, "{lost} is absent, not zero: {window:#}");
        }
        for lost in ["crashes", "error_exits", "oom_kills", "retransmits"] {
            assert_eq!(window["events"][lost][role], Value::Null, "{lost} is absent, not zero: {window:#}");
        }
        assert!(window["indicators"]["bytes_per_work"][role].is_number(), "{window:#}");
        assert!(window["events"]["resets_out"][role].is_number(), "{window:#}");
    }

    let series = guard.pages.metrics()?;
    for absent in ["canary_cpu_usage_seconds_total", "canary_process_exits_total", "canary_oom_kills_total"] {
        assert!(!has(&series, absent), "{absent} is there though nothing counts it");
    }
    assert!(has(&series, "canary_network_receive_bytes_total") && has(&series, "canary_memory_in_use_bytes"));
    let count = series.iter().find(|s| s.name == "canary_hooks_missing").map(|s| s.value);
    assert_eq!(count, window["quality"]["hooks_missing"].as_array().map(|a| a.len() as f64));
    assert!(guard.stop()?.success());
    Ok(())
}

/// Another program that is attached alone makes this kernel refuse ours on that cgroup.
#[test]
fn a_cgroup_that_refuses_the_socket_hooks_loses_its_network_only() -> anyhow::Result<()> {
    if !kernel_available("a_cgroup_that_refuses_the_socket_hooks_loses_its_network_only") {
        return Ok(());
    }
    let sandbox = Sandbox::new()?;
    let refusing = sandbox.cgroup("canary-0")?;
    bpf::occupy(sandbox.root.open(&refusing)?, bpf::Attach::Egress)?;
    let shop = Shop::open(sandbox)?;
    let mut guard = Guard::start(&Configuration::shop(&shop.sandbox)?)?;
    let window = guard.until("readings of both", |w| {
        let memory = &w["indicators"]["memory_in_use"];
        memory["stable"].is_number() && memory["canary"].is_number()
    })?;
    let missing = hooks_missing(&window);
    assert!(
        missing.contains("egress") && missing.contains(&refusing) && missing.contains("not permitted"),
        "{missing}"
    );
    assert!(!missing.contains("stable-0"), "{missing}");
    assert_eq!(window["indicators"]["turnaround_mean"]["canary"], Value::Null);
    assert!(window["indicators"]["turnaround_mean"]["stable"].is_number(), "{window:#}");
    assert!(window["indicators"]["cpu_per_work"]["stable"].is_number(), "{window:#}");

    let series = guard.pages.metrics()?;
    let of_canary = |name: &str| series.iter().any(|s| s.name == name && s.labels["role"] == "canary");
    assert!(!of_canary("canary_network_receive_bytes_total") && of_canary("canary_cpu_usage_seconds_total"));
    let canary = guard.pages.version("canary")?;
    assert_eq!(canary["network_usage"]["rx_bytes_per_second"], Value::Null, "{canary:#}");
    assert!(canary["cpu_usage"].is_number(), "{canary:#}");
    assert!(guard.stop()?.success());
    Ok(())
}
