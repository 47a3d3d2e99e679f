//! What an ensemble is to look like. Values only.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::relay::Relays;
use crate::tls::Version;

/// Where the servers live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// All on 127.0.0.1.
    Loopback,
    /// All on ::1.
    LoopbackIpv6,
    /// Each in a network namespace of its own, behind one bridge.
    Namespaces,
}

/// One server to be.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) sid: u64,
    pub(super) observer: bool,
}

/// An ensemble to be.
#[derive(Clone, Debug)]
pub struct Spec {
    pub(super) servers: Vec<Member>,
    pub(super) network: Network,
    pub(super) settings: Vec<(String, String)>,
    pub(super) java: PathBuf,
    pub(super) jvm: Vec<String>,
    pub(super) environment: Vec<(String, String)>,
    pub(super) own_settings: Vec<(u64, String, String)>,
    pub(super) own_jvm: Vec<(u64, String)>,
    pub(super) relays: Option<Arc<Relays>>,
    pub(super) sasl: bool,
    pub(super) tls: Option<Version>,
    pub(super) place: PathBuf,
}

impl Spec {
    /// Voters 1 to `count`, on loopback.
    pub fn voters(count: u64) -> Self {
        Self {
            servers: (1..=count).map(|sid| Member { sid, observer: false }).collect(),
            network: Network::Loopback,
            settings: Vec::new(),
            java: PathBuf::from("java"),
            jvm: Vec::new(),
            environment: Vec::new(),
            own_settings: Vec::new(),
            own_jvm: Vec::new(),
            relays: None,
            sasl: false,
            tls: None,
            place: std::env::temp_dir(),
        }
    }

    /// Other server ids than 1, 2, 3: the probe cannot get them right by counting.
    pub fn with_sids(mut self, sids: &[u64]) -> Self {
        self.servers = sids.iter().map(|sid| Member { sid: *sid, observer: false }).collect();
        self
    }

    /// One more server, which observes.
    pub fn with_observer(mut self, sid: u64) -> Self {
        self.servers.push(Member { sid, observer: true });
        self
    }

    /// Each server in a network namespace of its own.
    pub fn in_namespaces(mut self) -> Self {
        self.network = Network::Namespaces;
        self
    }

    /// All on ::1.
    pub fn on_ipv6(mut self) -> Self {
        self.network = Network::LoopbackIpv6;
        self
    }

    /// One more line of zoo.cfg, in place of the default of that name.
    pub fn with_setting(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The same in the zoo.cfg of one server only.
    pub fn with_setting_for(mut self, sid: u64, name: &str, value: &str) -> Self {
        self.own_settings.push((sid, name.to_owned(), value.to_owned()));
        self
    }

    /// Another JVM than the host's default.
    pub fn with_java(mut self, java: &Path) -> Self {
        java.clone_into(&mut self.java);
        self
    }

    /// One more option of every JVM; the same one twice counts once.
    pub fn with_jvm_option(mut self, option: &str) -> Self {
        if !self.jvm.iter().any(|existing| existing == option) {
            self.jvm.push(option.to_owned());
        }
        self
    }

    /// One more option of one server's JVM, after those of all.
    pub fn with_jvm_option_for(mut self, sid: u64, option: &str) -> Self {
        self.own_jvm.push((sid, option.to_owned()));
        self
    }

    /// One more variable in the environment of every server, in place of another value of that name.
    pub fn with_environment(mut self, name: &str, value: &str) -> Self {
        self.environment.retain(|(existing, _)| existing != name);
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The ids of the servers to be.
    pub fn sids(&self) -> Vec<u64> {
        self.servers.iter().map(|member| member.sid).collect()
    }

    /// Learners reach their leader through relays. On IPv4's or IPv6's loopback only.
    pub fn with_relays(mut self, relays: &Arc<Relays>) -> Self {
        self.relays = Some(Arc::clone(relays));
        self
    }

    /// All files below another directory than the one for temporary files.
    pub fn in_directory(mut self, place: &Path) -> Self {
        place.clone_into(&mut self.place);
        self
    }

    /// Servers authenticate each other by SASL (DIGEST-MD5).
    pub fn with_sasl(mut self) -> Self {
        self.sasl = true;
        self
    }

    /// The quorum speaks TLS.
    pub fn with_tls(mut self, version: Version) -> Self {
        self.tls = Some(version);
        self
    }
}
