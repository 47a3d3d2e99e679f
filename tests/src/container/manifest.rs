//! What deploy/daemonset.yaml grants its container.
//!
//! In: the manifest. Out: a [`Grant`]. Invariant: a field of the container's security that is not known
//! here is an error, so that nothing in the manifest goes untested.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

/// Everything that the container may do, and how it is started.
#[derive(Clone, Debug)]
pub struct Grant {
    /// Arguments after the image's entry point.
    pub args: Vec<String>,
    /// The port of its metrics.
    pub port: u16,
    /// It sees the host's processes.
    pub host_pid: bool,
    /// It shares the host's network.
    pub host_network: bool,
    /// Capabilities, without the prefix `CAP_`; every other one is dropped.
    pub capabilities: Vec<String>,
    /// The rest of its security settings.
    pub security: Security,
    /// What it sees of the host: path there, path inside, read only.
    pub mounts: Vec<(PathBuf, PathBuf, bool)>,
    /// The limit of its memory, as Kubernetes writes it.
    pub memory: String,
}

/// `securityContext` of the container.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Security {
    pub(super) privileged: bool,
    pub(super) allow_privilege_escalation: bool,
    pub(super) read_only_root_filesystem: bool,
    pub(super) run_as_user: u32,
    pub(super) run_as_group: u32,
    capabilities: Capabilities,
    pub(super) seccomp_profile: Profile,
    pub(super) app_armor_profile: Profile,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Capabilities {
    drop: Vec<String>,
    add: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Profile {
    #[serde(rename = "type")]
    pub(super) kind: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Pod {
    #[serde(rename = "hostPID")]
    host_pid: bool,
    host_network: bool,
    containers: Vec<Container>,
    volumes: Vec<Volume>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Container {
    args: Vec<String>,
    ports: Vec<Port>,
    security_context: Security,
    volume_mounts: Vec<Mount>,
    resources: Resources,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Port {
    container_port: u16,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Mount {
    name: String,
    mount_path: PathBuf,
    #[serde(default)]
    read_only: bool,
}

#[derive(Deserialize)]
struct Resources {
    limits: Limits,
}

#[derive(Deserialize)]
struct Limits {
    memory: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Volume {
    name: String,
    host_path: HostPath,
}

#[derive(Deserialize)]
struct HostPath {
    path: PathBuf,
}

impl Grant {
    /// What the project's own manifest grants.
    pub fn of_the_daemonset() -> Result<Self> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/daemonset.yaml");
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
        Self::parse(&text).with_context(|| format!("{path} is not as this test knows it"))
    }

    fn parse(text: &str) -> Result<Self> {
        let documents: Vec<serde_yaml_ng::Value> = serde_yaml_ng::Deserializer::from_str(text)
            .map(serde_yaml_ng::Value::deserialize)
            .collect::<Result<_, _>>()?;
        let daemonset = documents.into_iter().find(|document| document["kind"] == "DaemonSet");
        let daemonset = daemonset.context("no DaemonSet")?;
        let pod: Pod = serde_yaml_ng::from_value(daemonset["spec"]["template"]["spec"].clone())?;
        let [container]: [Container; 1] = pod.containers.try_into().ok().context("not one container")?;
        let security = container.security_context;
        ensure!(security.capabilities.drop == ["ALL"], "not every capability is dropped");
        let source = |mount: Mount| {
            let volume = pod.volumes.iter().find(|volume| volume.name == mount.name);
            let volume = volume.with_context(|| format!("no volume {}", mount.name))?;
            Ok((volume.host_path.path.clone(), mount.mount_path, mount.read_only))
        };
        Ok(Self {
            args: container.args,
            port: container.ports.first().context("no port")?.container_port,
            host_pid: pod.host_pid,
            host_network: pod.host_network,
            capabilities: security.capabilities.add.clone(),
            security,
            mounts: container.volume_mounts.into_iter().map(source).collect::<Result<_>>()?,
            memory: container.resources.limits.memory,
        })
    }

    /// The same without one capability.
    pub fn without(&self, capability: &str) -> Result<Self> {
        let mut less = self.clone();
        less.capabilities.retain(|own| own != capability);
        ensure!(less.capabilities.len() + 1 == self.capabilities.len(), "{capability} is not granted");
        Ok(less)
    }
}
