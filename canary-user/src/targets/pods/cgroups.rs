//! What kubelets and container runtimes call the cgroups of pods and containers.

/// The id in a container's address, "containerd://ID".
pub fn container_id(address: &str) -> Option<&str> {
    address.split_once("://").map(|(_, id)| id).filter(|id| !id.is_empty())
}

/// The pod's cgroup among these, or that of one of its containers.
pub fn find(paths: impl Iterator<Item = String>, uid: &str, container: Option<&str>) -> Option<String> {
    paths.into_iter().find(|path| {
        let (above, last) = path.rsplit_once('/').unwrap_or_default();
        match container {
            None => is_pod(last, uid),
            Some(id) => is_container(last, id) && is_pod(above.rsplit('/').next().unwrap_or_default(), uid),
        }
    })
}

/// `podUID` by the driver "cgroupfs"; `kubepods-burstable-podUID.slice` by "systemd", with underscores in the UID, since a dash is
/// a level in the name of a slice (`pkg/kubelet/cm/cgroup_manager_linux.go` of kubernetes).
fn is_pod(name: &str, uid: &str) -> bool {
    if uid.is_empty() {
        return false;
    }
    match name.strip_suffix(".slice") {
        Some(slice) => slice.rsplit_once("-pod").is_some_and(|(_, written)| written == uid.replace('-', "_")),
        None => name.strip_prefix("pod") == Some(uid),
    }
}

/// `ID`, `crio-ID`, `cri-containerd-ID.scope`, `crio-ID.scope`, `docker-ID.scope`; not `crio-conmon-ID.scope`, which is CRI-O's
/// own process beside the container.
fn is_container(name: &str, id: &str) -> bool {
    let bare = name.strip_suffix(".scope").unwrap_or(name);
    let runtime = bare.strip_suffix(id).filter(|_| !id.is_empty());
    runtime.is_some_and(|runtime| matches!(runtime, "" | "crio-" | "cri-containerd-" | "docker-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "4b3d2c1e-7f60-4a5b-9c8d-1e2f3a4b5c6d";
    const ID: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
    const POD_SLICE: &str = "kubepods-burstable-pod4b3d2c1e_7f60_4a5b_9c8d_1e2f3a4b5c6d.slice";

    fn found(paths: &[String], container: Option<&str>) -> Option<String> {
        find(paths.iter().cloned(), UID, container)
    }

    /// As they stand below /sys/fs/cgroup: driver and runtime, the pod's, the container's, and what lies beside it.
    fn nodes() -> Vec<(String, String, Vec<String>)> {
        let systemd = format!("/kubepods.slice/kubepods-burstable.slice/{POD_SLICE}");
        let kind = format!(
            "/docker/0a1b/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/kubelet-{POD_SLICE}"
        );
        let guaranteed = "/kubepods.slice/kubepods-pod4b3d2c1e_7f60_4a5b_9c8d_1e2f3a4b5c6d.slice".to_owned();
        let cgroupfs = format!("/kubepods/besteffort/pod{UID}");
        let crio =
            |pod: &str| vec![format!("{pod}/crio-conmon-{ID}.scope"), format!("{pod}/crio-{ID}.scope/container")];
        vec![
            (systemd.clone(), format!("{systemd}/cri-containerd-{ID}.scope"), vec![]),
            (systemd.clone(), format!("{systemd}/crio-{ID}.scope"), crio(&systemd)),
            (systemd.clone(), format!("{systemd}/docker-{ID}.scope"), vec![]),
            (kind.clone(), format!("{kind}/cri-containerd-{ID}.scope"), vec![]),
            (guaranteed.clone(), format!("{guaranteed}/cri-containerd-{ID}.scope"), vec![]),
            (cgroupfs.clone(), format!("{cgroupfs}/{ID}"), vec![]),
            (cgroupfs.clone(), format!("{cgroupfs}/crio-{ID}"), vec![format!("{cgroupfs}/crio-conmon-{ID}")]),
        ]
    }

    #[test]
    fn a_pod_and_its_container_are_found_with_both_drivers_and_each_runtime() {
        for (pod, container, beside) in nodes() {
            let mut paths = beside;
            paths.extend(["/kubepods.slice".into(), pod.clone(), format!("{pod}/other"), container.clone()]);
            assert_eq!(found(&paths, None), Some(pod));
            assert_eq!(found(&paths, Some(ID)), Some(container));
        }
    }

    #[test]
    fn another_pods_cgroup_is_not_taken_for_this_ones() {
        let other = "/kubepods/burstable/pod4b3d2c1e-7f60-4a5b-9c8d-1e2f3a4b5c6e";
        let longer = format!("/kubepods/burstable/pod{UID}0");
        // The same container id below another pod cannot be; without the pod it is not believed.
        let paths = [other.to_owned(), longer, format!("{other}/{ID}"), "/system.slice/pod.slice".into()];
        assert_eq!(found(&paths, None), None);
        assert_eq!(found(&paths, Some(ID)), None);
        assert_eq!(find(["/kubepods/pod".to_owned()].into_iter(), "", None), None);
    }

    #[test]
    fn a_containers_id_is_what_follows_the_runtimes_name() {
        assert_eq!(container_id("containerd://9f86"), Some("9f86"));
        assert_eq!(container_id("cri-o://9f86"), Some("9f86"));
        assert_eq!(container_id("containerd://"), None);
        assert_eq!(container_id(""), None);
    }
}
