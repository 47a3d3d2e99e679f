//! The Debian packages that this project uses, each with its reason: the one place to add another.
//!
//! Invariant: a package is recognised by what it brings, not by its name, so that the same tool from
//! elsewhere (another JDK, another distribution) counts. Not here: how packages are installed.

use std::path::Path;

use crate::host;

/// What a package is needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Compiling bpf-linker; not needed once that is installed.
    Linker,
    /// Building the probe.
    Build,
    /// The real tests.
    Test,
    /// Building and running the container image, which a test does.
    Deploy,
    /// What `bench` compares with. It does without, and counts what it could not compare.
    Bench,
}

/// How to see that a package, or its equal, is there.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Sign {
    /// These programs are in PATH.
    Programs(&'static [&'static str]),
    /// At least one of these files exists.
    AnyFile(&'static [&'static str]),
}

/// One Debian package.
#[derive(Debug)]
pub(crate) struct Package {
    /// Debian's name for it.
    pub(crate) name: &'static str,
    /// What needs it.
    pub(crate) purpose: Purpose,
    /// Why, as part of a sentence.
    pub(crate) why: &'static str,
    /// How it is recognised.
    pub(crate) sign: Sign,
    /// Files that dpkg is told to leave out: those that would start a service, now or at boot.
    pub(crate) services: &'static [&'static str],
}

impl Package {
    /// Whether it, or its equal, is there.
    pub(crate) fn is_present(&self) -> bool {
        match self.sign {
            Sign::Programs(names) => names.iter().all(|name| host::program(name).is_some()),
            Sign::AnyFile(paths) => paths.iter().any(|path| Path::new(path).exists()),
        }
    }
}

const fn program(
    name: &'static str,
    purpose: Purpose,
    why: &'static str,
    programs: &'static [&'static str],
) -> Package {
    Package { name, purpose, why, sign: Sign::Programs(programs), services: &[] }
}

const fn file(
    name: &'static str,
    purpose: Purpose,
    why: &'static str,
    paths: &'static [&'static str],
) -> Package {
    Package { name, purpose, why, sign: Sign::AnyFile(paths), services: &[] }
}

/// Every package, in the order in which they are shown.
#[rustfmt::skip]
pub(crate) static PACKAGES: &[Package] = &[
    program("gcc", Purpose::Build, "rustc links with cc", &["cc"]),
    file("libc6-dev", Purpose::Build, "start files and libc for what runs on the host: build scripts, tests",
        &["/usr/lib/x86_64-linux-gnu/crt1.o", "/usr/lib64/crt1.o", "/usr/lib/crt1.o"]),
    file("llvm-22-dev", Purpose::Linker, "bpf-linker links with LLVM 22, which reads the bitcode of rustc",
        &["/usr/lib/llvm-22/lib/libLLVM.so"]),
    file("openjdk-17-jre-headless", Purpose::Test, "runs ZooKeeper",
        &["/usr/bin/java"]),
    program("openjdk-17-jdk-headless", Purpose::Test, "compiles the agent that makes a JVM pause",
        &["javac", "jar"]),
    file("libzookeeper-java", Purpose::Test, "the real ensemble: ZooKeeper's jars without its service",
        &["/usr/share/java/zookeeper.jar"]),
    program("e2fsprogs", Purpose::Test, "filesystems of our own under the log of a server", &["mkfs.ext4"]),
    program("mount", Purpose::Test, "mounts them", &["mount", "umount"]),
    program("nftables", Purpose::Test, "drops segments on the way to a follower", &["nft"]),
    program("tcpdump", Purpose::Test, "the independent measurement of the quorum traffic", &["tcpdump"]),
    program("iproute2", Purpose::Test, "network namespaces and traffic control", &["ip", "tc"]),
    program("openssl", Purpose::Test, "a connection that is TLS", &["openssl"]),
    program("qemu-system-x86", Purpose::Test, "runs other kernels", &["qemu-system-x86_64"]),
    file("busybox-static", Purpose::Test, "the shell of the virtual machines", &["/bin/busybox"]),
    program("lz4", Purpose::Test, "unpacks their cloud kernels of 6.1", &["lz4"]),
    program("xz-utils", Purpose::Test, "unpacks their other kernels of 6.1", &["xz"]),
    program("zstd", Purpose::Test, "unpacks their kernels of 6.12", &["zstd"]),
    program("curl", Purpose::Test, "asks the metrics endpoint like any client", &["curl"]),
    Package {
        name: "prometheus",
        purpose: Purpose::Test,
        why: "scrapes the probe for real, and promtool checks the metrics",
        sign: Sign::Programs(&["prometheus", "promtool"]),
        services: &["/lib/systemd/system/prometheus.service", "/etc/init.d/prometheus"],
    },
    program("buildah", Purpose::Deploy, "builds the image", &["buildah"]),
    program("podman", Purpose::Deploy, "runs the image", &["podman"]),
    program("runc", Purpose::Deploy, "the runtime that podman is told to use", &["runc"]),
    program("bpftrace", Purpose::Bench, "for `bench` only: runs the script that the scheduler hooks are compared with",
        &["bpftrace"]),
];
