//! The manifests' types, for each test program that looks at them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use k8s_openapi::api::{
    apps::v1::DaemonSet,
    coordination::v1::Lease,
    core::v1::{ConfigMap, Namespace, Service, ServiceAccount},
    networking::v1::NetworkPolicy,
    rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding},
    scheduling::v1::PriorityClass,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

/// A guard that acts on the API server itself; in no overlay unless somebody names it there.
pub const ACTING: &str = "components/kubernetes";
pub const OVERLAYS: [&str; 4] = ["observe", "advise", "enforce", "least-privilege"];

pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").join("deploy/kubernetes")
}

pub fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("read {}: {error}", path.display()))
}

/// The documents of a YAML text.
pub fn parse(text: &str, place: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(text).unwrap_or_else(|error| panic!("{place}: {error}"))
}

/// Reads a document as its type and writes it again: a field that the type does not know is gone then. What a patch leaves
/// out of a required field is written empty, and is no mistake.
fn typed<T: DeserializeOwned + Serialize>(object: &Value, place: &str) {
    let read: T = serde_json::from_value(object.clone()).unwrap_or_else(|error| panic!("{place}: {error}"));
    assert_kept(object, &serde_json::to_value(read).expect("JSON"), place);
}

fn assert_kept(wanted: &Value, written: &Value, place: &str) {
    match (wanted, written) {
        (Value::Object(wanted), Value::Object(written)) => {
            for (key, value) in wanted {
                let kept = written.get(key).unwrap_or_else(|| panic!("{place}.{key}: its type has no such field"));
                assert_kept(value, kept, &format!("{place}.{key}"));
            }
        }
        (Value::Array(wanted), Value::Array(written)) if wanted.len() == written.len() => {
            wanted.iter().zip(written).for_each(|(wanted, written)| assert_kept(wanted, written, place));
        }
        _ => assert_eq!(wanted, written, "{place}"),
    }
}

pub fn check_type(object: &Value, place: &str) {
    match object["kind"].as_str().unwrap_or_default() {
        "DaemonSet" => typed::<DaemonSet>(object, place),
        "ConfigMap" => typed::<ConfigMap>(object, place),
        "Namespace" => typed::<Namespace>(object, place),
        "Service" => typed::<Service>(object, place),
        "ServiceAccount" => typed::<ServiceAccount>(object, place),
        "NetworkPolicy" => typed::<NetworkPolicy>(object, place),
        "PriorityClass" => typed::<PriorityClass>(object, place),
        "Role" => typed::<Role>(object, place),
        "RoleBinding" => typed::<RoleBinding>(object, place),
        "ClusterRole" => typed::<ClusterRole>(object, place),
        "ClusterRoleBinding" => typed::<ClusterRoleBinding>(object, place),
        "Lease" => typed::<Lease>(object, place),
        // Defined by others, and held against the DaemonSet where it is built.
        "PodMonitor" => assert_eq!(object["apiVersion"], "monitoring.coreos.com/v1", "{place}"),
        other => panic!("{place}: no type is known for kind {other:?}"),
    }
}
