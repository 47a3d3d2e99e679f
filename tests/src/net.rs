//! Network namespaces without names: each is held by a descriptor, so it and its devices vanish with
//! the last process in it, however the test ends. Free ports on loopback.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use crate::process::Process;

/// Ports of the tests: below the range from which the kernel picks a client's port (32768 and up), so
/// that no outgoing connection takes one between the choice and the use.
const PORTS: std::ops::RangeInclusive<u16> = 22_000..=22_999;

/// Ports of servers that come and go.
const RESERVED_PORTS: std::ops::RangeInclusive<u16> = 24_000..=24_999;

/// How long a connection may take to come about.
const CONNECT_PATIENCE: Duration = Duration::from_secs(2);

/// A network namespace.
#[derive(Debug)]
pub struct Namespace {
    file: File,
}

impl Namespace {
    /// Makes a new namespace with its loopback up.
    pub fn new() -> Result<Self> {
        let file = std::thread::spawn(|| -> Result<File> {
            // SAFETY: changes the network namespace of this short-lived thread alone.
            if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
                return Err(std::io::Error::last_os_error())
                    .context("cannot make a network namespace: run the tests as root");
            }
            File::open("/proc/thread-self/ns/net").context("cannot open the new network namespace")
        })
        .join()
        .map_err(|_| anyhow::anyhow!("the thread that makes a namespace panicked"))??;
        let namespace = Self { file };
        namespace.ip(&["link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// The network namespace of a process.
    pub fn of(pid: u32) -> Result<Self> {
        let path = format!("/proc/{pid}/ns/net");
        Ok(Self { file: File::open(&path).with_context(|| format!("cannot open {path}"))? })
    }

    /// A second descriptor of the same namespace.
    pub fn try_clone(&self) -> Result<Self> {
        Ok(Self { file: self.file.try_clone()? })
    }

    /// The descriptor that holds the namespace.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Runs `ip ARGS` inside.
    pub fn ip(&self, args: &[&str]) -> Result<()> {
        self.run("ip", args)
    }

    /// Runs a program of the network inside: ip and tc (package iproute2), nft (package nftables).
    pub fn run(&self, program: &str, args: &[&str]) -> Result<()> {
        let mut command = Command::new(program);
        command.args(args).stdout(Stdio::null());
        let mut process = Process::spawn(program, &mut command, Some(self))
            .with_context(|| format!("is {program} installed? `cargo xtask setup` does that"))?;
        let status = process.wait(Duration::from_secs(10))?;
        ensure!(status.success(), "`{program} {}` failed: {status}", args.join(" "));
        Ok(())
    }

    /// Connects from inside.
    pub fn connect(&self, address: SocketAddr) -> Result<TcpStream> {
        self.inside(|| connect(address))
    }

    /// A socket for datagrams that leave from inside.
    pub fn datagrams(&self) -> Result<UdpSocket> {
        self.inside(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).context("cannot bind a socket"))
    }

    /// Does something on a thread that is inside; a socket stays where it was made.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let fd = self.file.as_raw_fd();
        std::thread::scope(|scope| {
            scope
                .spawn(move || {
                    // SAFETY: moves this short-lived thread alone; the descriptor is alive.
                    if unsafe { libc::setns(fd, libc::CLONE_NEWNET) } != 0 {
                        return Err(std::io::Error::last_os_error()).context("cannot enter a namespace");
                    }
                    work()
                })
                .join()
                .map_err(|_| anyhow::anyhow!("the thread inside of a namespace panicked"))?
        })
    }

    /// The path by which `ip link ... netns` names this namespace.
    fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd())
    }
}

/// A bridge in a namespace of its own, with one namespace per host plugged into it.
#[derive(Debug)]
pub struct Fabric {
    hub: Namespace,
    hosts: Vec<(IpAddr, Namespace)>,
}

impl Fabric {
    /// The bridge, seen from the hub: everything between two hosts passes it.
    pub const BRIDGE: &str = "bridge0";

    /// Makes `hosts` namespaces, at 10.77.0.1 and up.
    pub fn new(hosts: u8) -> Result<Self> {
        let hub = Namespace::new()?;
        hub.ip(&["link", "add", Self::BRIDGE, "type", "bridge"])?;
        hub.ip(&["address", "add", "10.77.0.254/24", "dev", Self::BRIDGE])?;
        hub.ip(&["link", "set", Self::BRIDGE, "up"])?;
        let hosts = (1..=hosts)
            .map(|index| {
                let host = Namespace::new()?;
                let (port, address) = (port(usize::from(index)), Ipv4Addr::new(10, 77, 0, index));
                let path = host.path();
                hub.ip(&["link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &path])?;
                hub.ip(&["link", "set", &port, "master", Self::BRIDGE, "up"])?;
                host.ip(&["address", "add", &format!("{address}/24"), "dev", "eth0"])?;
                host.ip(&["link", "set", "eth0", "up"])?;
                Ok((IpAddr::V4(address), host))
            })
            .collect::<Result<_>>()?;
        Ok(Self { hub, hosts })
    }

    /// The namespace of the bridge, which reaches every host.
    pub fn hub(&self) -> &Namespace {
        &self.hub
    }

    /// The bridge's port behind which the host of an address is.
    pub fn port_of(&self, address: IpAddr) -> Result<String> {
        let index = self.hosts.iter().position(|(of, _)| *of == address);
        let index = index.with_context(|| format!("{address} is no host of the fabric"))?;
        Ok(port(index + 1))
    }

    /// A host's address and namespace.
    pub fn host(&self, index: usize) -> Result<(IpAddr, &Namespace)> {
        let (address, namespace) = self.hosts.get(index).context("the fabric has no such host")?;
        Ok((*address, namespace))
    }
}

/// The name of a bridge's port; hosts are counted from 1.
fn port(host: usize) -> String {
    format!("port{host}")
}

/// A connection from the test's own namespace.
pub fn connect(address: SocketAddr) -> Result<TcpStream> {
    TcpStream::connect_timeout(&address, CONNECT_PATIENCE)
        .with_context(|| format!("cannot connect to {address}"))
}

/// A port of loopback on which nobody listens now; each call gives another one.
pub fn free_port() -> Result<u16> {
    free_port_in(PORTS)
}

/// A port that is to be a server's for long though nobody may listen on it: no other test takes it meanwhile.
pub fn reserved_port() -> Result<u16> {
    free_port_in(RESERVED_PORTS)
}

fn free_port_in(ports: std::ops::RangeInclusive<u16>) -> Result<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let span = ports.end() - ports.start() + 1;
    // Two test programs at once start at different places of the range.
    let first = u16::try_from(std::process::id() % u32::from(span)).unwrap_or(0);
    for _ in 0..span {
        let offset = first.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % span;
        let port = ports.start() + offset;
        if TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port in {ports:?}");
}
