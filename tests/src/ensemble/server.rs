//! One server: its files, its command line, its process.

use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::spec::{Network, Spec};
use crate::net::{Fabric, Namespace, free_port};
use crate::process::Process;

/// Debian's jars; their manifests name the rest, but for netty, without which 3.8.0 takes no TLS connection.
const JARS: &str = "/usr/share/java/zookeeper.jar:/usr/share/java/slf4j-log4j12.jar:\
                    /usr/share/java/log4j-1.2.jar:/usr/share/java/netty-buffer.jar:\
                    /usr/share/java/netty-codec.jar:/usr/share/java/netty-common.jar:\
                    /usr/share/java/netty-handler.jar:/usr/share/java/netty-transport.jar";

const LOG4J: &str = "log4j.rootLogger=INFO, console\n\
    log4j.appender.console=org.apache.log4j.ConsoleAppender\n\
    log4j.appender.console.layout=org.apache.log4j.PatternLayout\n\
    log4j.appender.console.layout.ConversionPattern=%d{ISO8601} %-5p [%t:%C{1}@%L] - %m%n\n";

/// Accounts of the servers among themselves, in the form of the JVM's login module.
const JAAS: &str = "QuorumServer { org.apache.zookeeper.server.auth.DigestLoginModule required\n  \
    user_quorum=\"secret\";\n};\nQuorumLearner { org.apache.zookeeper.server.auth.DigestLoginModule required\n  \
    username=\"quorum\" password=\"secret\";\n};\n";

/// One server of an ensemble.
#[derive(Debug)]
pub struct Server {
    /// Its id.
    pub sid: u64,
    /// Whether it has no vote.
    pub observer: bool,
    /// Where clients reach it.
    pub client: SocketAddr,
    /// Where its learners reach it while it leads.
    pub quorum: SocketAddr,
    /// Where it takes votes.
    pub election: SocketAddr,
    /// Its zoo.cfg.
    pub config: PathBuf,
    /// Its data directory.
    pub data: PathBuf,
    /// Every pid that it has had.
    pub(super) pids: Vec<u32>,
    directory: PathBuf,
    java: PathBuf,
    jvm: Vec<String>,
    environment: Vec<(String, String)>,
    process: Option<Process>,
}

/// Chooses the addresses of all servers and writes the files of each.
pub(super) fn configure(spec: &Spec, root: &Path, fabric: Option<&Fabric>) -> Result<Vec<Server>> {
    let mut servers = Vec::new();
    for (index, member) in spec.servers.iter().enumerate() {
        let host = match fabric {
            None if spec.network == Network::LoopbackIpv6 => IpAddr::V6(Ipv6Addr::LOCALHOST),
            None => IpAddr::V4(Ipv4Addr::LOCALHOST),
            Some(fabric) => fabric.host(index)?.0,
        };
        let directory = root.join(format!("server-{}", member.sid));
        servers.push(Server {
            sid: member.sid,
            observer: member.observer,
            client: SocketAddr::new(host, free_port()?),
            quorum: SocketAddr::new(host, free_port()?),
            election: SocketAddr::new(host, free_port()?),
            config: directory.join("zoo.cfg"),
            data: directory.join("data"),
            pids: Vec::new(),
            java: spec.java.clone(),
            jvm: jvm_options(spec, member.sid, &directory),
            environment: spec.environment.clone(),
            directory,
            process: None,
        });
    }
    for server in &servers {
        fs::create_dir_all(&server.data)?;
        fs::write(server.data.join("myid"), format!("{}\n", server.sid))?;
        fs::write(server.directory.join("log4j.properties"), LOG4J)?;
        fs::write(server.directory.join("jaas.conf"), JAAS)?;
        fs::write(&server.config, configuration(spec, server, root) + &members(spec, server.sid, &servers)?)?;
    }
    Ok(servers)
}

/// The lines of all servers in the zoo.cfg of one, which may reach the others through relays.
fn members(spec: &Spec, of: u64, servers: &[Server]) -> Result<String> {
    if spec.relays.is_some() && spec.network == Network::Namespaces {
        bail!("relays are made for loopback: in namespaces a token bucket delays the network");
    }
    let lines = servers.iter().map(|server| {
        let relays = spec.relays.as_ref().filter(|_| server.sid != of);
        let quorum = relays.map_or(Ok(server.quorum), |relays| relays.open(of, server.quorum))?;
        // An address prints as zoo.cfg wants it, brackets of IPv6 included.
        let role = if server.observer { ":observer" } else { "" };
        Ok(format!("server.{}={quorum}:{}{role}\n", server.sid, server.election.port()))
    });
    lines.collect()
}

fn jvm_options(spec: &Spec, sid: u64, directory: &Path) -> Vec<String> {
    let mut options = vec![
        "-Xmx192m".to_owned(),
        "-Dzookeeper.admin.enableServer=false".to_owned(),
        "-Dzookeeper.jmx.log4j.disable=true".to_owned(),
    ];
    if spec.sasl {
        let jaas = directory.join("jaas.conf");
        options.push(format!("-Djava.security.auth.login.config={}", jaas.display()));
    }
    options.extend(spec.jvm.iter().cloned());
    options.extend(spec.own_jvm.iter().filter(|(of, _)| *of == sid).map(|(_, option)| option.clone()));
    options
}

fn configuration(spec: &Spec, server: &Server, root: &Path) -> String {
    let mut settings: Vec<(String, String)> = [
        ("tickTime", "2000"),
        ("initLimit", "10"),
        ("syncLimit", "5"),
        ("admin.enableServer", "false"),
        ("4lw.commands.whitelist", "*"),
        ("maxClientCnxns", "0"),
        // In KB; the default makes log files of 64 MB.
        ("preAllocSize", "1024"),
        ("dataDir", &server.data.display().to_string()),
        ("clientPort", &server.client.port().to_string()),
        ("clientPortAddress", &server.client.ip().to_string()),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    if server.observer {
        settings.push(("peerType".to_owned(), "observer".to_owned()));
    }
    if spec.sasl {
        for name in ["enableSasl", "learnerRequireSasl", "serverRequireSasl"] {
            settings.push((format!("quorum.auth.{name}"), "true".to_owned()));
        }
        settings.push(("quorum.auth.learner.saslLoginContext".to_owned(), "QuorumLearner".to_owned()));
        settings.push(("quorum.auth.server.saslLoginContext".to_owned(), "QuorumServer".to_owned()));
        settings.push(("quorum.cnxn.threads.size".to_owned(), "20".to_owned()));
    }
    settings.extend(spec.tls.iter().flat_map(|version| super::tls::settings(root, *version)));
    let own = spec.own_settings.iter().filter(|(of, ..)| *of == server.sid);
    let all = spec.settings.iter().map(|(name, value)| (name, value));
    for (name, value) in all.chain(own.map(|(_, name, value)| (name, value))) {
        settings.retain(|(existing, _)| existing != name);
        settings.push((name.clone(), value.clone()));
    }
    settings.iter().map(|(name, value)| format!("{name}={value}\n")).collect()
}

impl Server {
    /// The pid, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::pid)
    }

    /// The directory of its files, in which it runs.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    pub(super) fn launch(&mut self, namespace: Option<&Namespace>) -> Result<()> {
        if self.process.is_some() {
            bail!("server {} runs already", self.sid);
        }
        let log = File::options().create(true).append(true).open(self.log())?;
        let mut command = Command::new(&self.java);
        command
            .args(&self.jvm)
            .arg("-cp")
            .arg(format!("{}:{JARS}", self.directory.display()))
            .arg("org.apache.zookeeper.server.quorum.QuorumPeerMain")
            .arg(&self.config)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(&self.directory)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let process = Process::spawn(&format!("server {}", self.sid), &mut command, namespace)?;
        self.pids.push(process.pid());
        self.process = Some(process);
        Ok(())
    }

    pub(super) fn kill(&mut self) -> Result<()> {
        // Dropping a process kills it and waits for it.
        drop(self.process.take().with_context(|| format!("server {} does not run", self.sid))?);
        Ok(())
    }

    pub(super) fn terminate(&mut self, patience: Duration) -> Result<()> {
        let mut process = self.process.take().with_context(|| format!("server {} does not run", self.sid))?;
        process.signal(libc::SIGTERM)?;
        process.wait(patience)?;
        Ok(())
    }

    pub(super) fn wipe(&mut self) -> Result<()> {
        if self.process.is_some() {
            bail!("server {} runs: its data cannot be thrown away", self.sid);
        }
        fs::remove_dir_all(&self.data)?;
        fs::create_dir_all(&self.data)?;
        fs::write(self.data.join("myid"), format!("{}\n", self.sid))?;
        Ok(())
    }

    /// Fails if the process has ended by itself.
    pub(super) fn check_alive(&mut self) -> Result<()> {
        if let Some(process) = &mut self.process
            && let Some(status) = process.try_wait()?
        {
            bail!("server {} has ended by itself: {status}", self.sid);
        }
        Ok(())
    }

    pub(super) fn log_end(&self) -> String {
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let end = &lines[lines.len().saturating_sub(15)..];
        format!("--- server {}\n{}\n", self.sid, end.join("\n"))
    }

    fn log(&self) -> PathBuf {
        self.directory.join("server.log")
    }
}
