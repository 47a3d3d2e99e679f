//! Stock Debian kernels: from a name of ours to an uncompressed kernel on this host's disk.
//!
//! In: the answers of apt about metapackages. Out: a vmlinux in the cache. Invariant: no version is written down
//! here, the metapackage tells it; and what it leads to is of the series that was asked for. Not here: booting.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, bail};

use super::vmlinux;
use crate::{host, invoke};

/// A kernel by our name for it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Kernel {
    /// What it is called on the command line and in tables.
    pub(crate) name: &'static str,
    /// The package that depends on the newest kernel of this kind.
    pub(crate) metapackage: &'static str,
    /// How that kernel's package begins.
    pub(crate) series: &'static str,
}

/// All of them: the two series that Debian 12 has, in three flavours each.
pub(crate) static KERNELS: [Kernel; 6] = [
    Kernel { name: "6.1", metapackage: "linux-image-amd64", series: "linux-image-6.1." },
    Kernel { name: "6.1-cloud", metapackage: "linux-image-cloud-amd64", series: "linux-image-6.1." },
    Kernel { name: "6.1-rt", metapackage: "linux-image-rt-amd64", series: "linux-image-6.1." },
    Kernel { name: "6.12", metapackage: "linux-image-6.12-amd64", series: "linux-image-6.12." },
    Kernel { name: "6.12-cloud", metapackage: "linux-image-6.12-cloud-amd64", series: "linux-image-6.12." },
    Kernel { name: "6.12-rt", metapackage: "linux-image-6.12-rt-amd64", series: "linux-image-6.12." },
];

/// The kernel of that name.
pub(crate) fn parse(name: &str) -> Result<&'static Kernel, String> {
    KERNELS.iter().find(|kernel| kernel.name == name).ok_or_else(|| {
        let names: Vec<&str> = KERNELS.iter().map(|kernel| kernel.name).collect();
        format!("there are {}", names.join(", "))
    })
}

/// A package of one version.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Package {
    name: String,
    version: String,
}

impl Package {
    /// As apt-get takes it.
    fn pinned(&self) -> String {
        format!("{}={}", self.name, self.version)
    }

    /// As a directory's name.
    fn directory(&self) -> String {
        format!("{}_{}", self.name, self.version)
    }
}

/// The uncompressed kernel, taken from the cache or downloaded into it.
pub(crate) fn fetch(kernel: &Kernel, cache: &Path) -> anyhow::Result<PathBuf> {
    if host::program("apt-get").is_none() {
        bail!("stock kernels come from Debian's archive: there is no apt-get on this host to ask");
    }
    match obtain(kernel, cache) {
        Ok(file) => Ok(file),
        Err(error) => {
            // A fresh container has no lists yet, an old one lists packages that are no longer there.
            println!("      asking the archives for their lists, because {error:#}");
            invoke::run(invoke::command("apt-get").args(["-qq", "update"]))?;
            obtain(kernel, cache)
        }
    }
}

/// The newest kernel by apt's present lists.
fn obtain(kernel: &Kernel, cache: &Path) -> anyhow::Result<PathBuf> {
    let package = resolve(kernel)?;
    let place = cache.join("kernels").join(package.directory());
    let file = place.join("vmlinux");
    if !file.exists() {
        println!("      downloading {}", package.pinned());
        download(&package, &place)
            .with_context(|| format!("cannot get the kernel {} ({})", kernel.name, package.pinned()))?;
    }
    Ok(file)
}

fn resolve(kernel: &Kernel) -> anyhow::Result<Package> {
    let output = invoke::command("apt-cache")
        .args(["show", "--no-all-versions", kernel.metapackage])
        .env("LC_ALL", "C")
        .output()
        .context("cannot start apt-cache")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let found = dependency(&text, "linux-image-")
        .with_context(|| format!("apt knows no package {} that depends on a kernel", kernel.metapackage))?;
    if !found.name.starts_with(kernel.series) {
        bail!(
            "{} of this host's distribution is {}, not of the series {}: Debian 12 has it",
            kernel.metapackage,
            found.name,
            kernel.series.trim_start_matches("linux-image-").trim_end_matches('.'),
        );
    }
    Ok(found)
}

/// The package of that kind which the first record of `apt-cache show` depends on, with its exact version.
fn dependency(records: &str, prefix: &str) -> Option<Package> {
    let record = records.split("\n\n").next()?;
    let depends = record.lines().find_map(|line| line.strip_prefix("Depends: "))?;
    depends.split(',').map(str::trim).filter(|one| one.starts_with(prefix)).find_map(|one| {
        let (name, version) = one.split_once(" (= ")?;
        Some(Package { name: name.to_owned(), version: version.strip_suffix(')')?.to_owned() })
    })
}

/// Downloads the package and keeps the kernel of it.
fn download(package: &Package, place: &Path) -> anyhow::Result<()> {
    let work = place.with_added_extension("new");
    if work.exists() {
        fs::remove_dir_all(&work)?;
    }
    fs::create_dir_all(&work).with_context(|| format!("cannot create {}", work.display()))?;
    invoke::run(invoke::command("apt-get").args(["-qq", "download", &package.pinned()]).current_dir(&work))?;
    let deb = only_file(&work)?;
    let boot = work.join("boot");
    unpack_boot(&deb, &work)?;
    let image = fs::read(only_file(&boot)?)?;
    fs::write(work.join("vmlinux"), vmlinux::unpack(&image)?)?;
    fs::remove_file(&deb)?;
    fs::remove_dir_all(&boot)?;
    fs::rename(&work, place).with_context(|| format!("cannot move the kernel to {}", place.display()))
}

/// The image of a kernel package; its modules are left in it.
fn unpack_boot(deb: &Path, into: &Path) -> anyhow::Result<()> {
    let mut unpacking = invoke::command("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(deb)
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start dpkg-deb")?;
    let tar = unpacking.stdout.take().context("dpkg-deb has no output")?;
    let status = invoke::command("tar")
        .arg("-C")
        .arg(into)
        .args(["-x", "--wildcards", "./boot/vmlinuz-*"])
        .stdin(tar)
        .status()
        .context("cannot start tar")?;
    let deb_status = unpacking.wait()?;
    if !status.success() || !deb_status.success() {
        bail!("cannot unpack {} (dpkg-deb: {deb_status}, tar: {status})", deb.display());
    }
    Ok(())
}

fn only_file(directory: &Path) -> anyhow::Result<PathBuf> {
    let mut files = fs::read_dir(directory)
        .with_context(|| format!("cannot list {}", directory.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.is_file());
    match (files.next(), files.next()) {
        (Some(file), None) => Ok(file),
        _ => bail!("there is not exactly one file in {}", directory.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_metapackage_tells_the_version() {
        let records = "Package: linux-image-cloud-amd64\nVersion: 6.1.192-2\nDepends: foo, \
                       linux-image-6.1.0-56-cloud-amd64 (= 6.1.192-2)\nSize: 1504\n\nPackage: \
                       linux-image-cloud-amd64\nDepends: linux-image-6.1.0-50-cloud-amd64 (= 6.1.176-1)\n";
        let package = dependency(records, "linux-image-").expect("a package");
        assert_eq!(package.pinned(), "linux-image-6.1.0-56-cloud-amd64=6.1.192-2");
        assert_eq!(dependency("Package: x\nDepends: linux-base (>= 4)\n", "linux-image-"), None);
        assert_eq!(dependency("", "linux-image-"), None);
    }

    #[test]
    fn kernels_go_by_name() {
        assert_eq!(parse("6.12-rt").map(|kernel| kernel.metapackage), Ok("linux-image-6.12-rt-amd64"));
        assert_eq!(
            parse("5.10").map(|kernel| kernel.name),
            Err("there are 6.1, 6.1-cloud, 6.1-rt, 6.12, 6.12-cloud, 6.12-rt".to_owned())
        );
        assert!(super::super::TESTED.iter().all(|name| parse(name).is_ok()));
    }
}
