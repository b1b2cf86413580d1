//! The same on a real kube-apiserver with etcd, as the service account that `deploy/kubernetes/components/kubernetes/rbac.yaml`
//! makes: the server's own defaults, versions, JSON Patch and RBAC. Where kube-controller-manager is there too, its controllers
//! carry Deployments out; in the other tests nobody does, and what is looked at is what they want.

mod changes;
mod control_plane;
mod controllers;
mod definitions;
mod kubelet;
mod lease;
mod manifests;
mod meanwhile;
mod objects;
mod rights;
