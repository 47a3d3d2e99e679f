//! From a device to the type of its file system.
//!
//! In: the text of a process's `mountinfo`, a device. Out: what the kernel calls the file system. Invariant: total, whatever the text.
//! Deliberately absent: reading it; and file systems whose files have other devices than their mount (btrfs), which are not found.
#![forbid(unsafe_code)]

/// The type of the file system on a device, such as `ext4`; `None` where nothing is mounted from it.
pub(super) fn file_system(mountinfo: &str, device: u64) -> Option<String> {
    let device = format!("{}:{}", libc::major(device), libc::minor(device));
    // proc(5): `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`, with blanks in names as `\\040`.
    let mount = mountinfo.lines().find(|line| line.split(' ').nth(2) == Some(&device))?;
    let (_, after) = mount.split_once(" - ")?;
    after.split(' ').next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::file_system;

    const MOUNTS: &str = "\
21 25 0:19 / /sys rw,nosuid shared:7 - sysfs sysfs rw
25 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 25 254:16 /a\\040-\\040b /data rw master:1 propagate_from:2 - xfs /dev/vdb rw
31 25 0:30 /
";

    #[test]
    fn the_file_system_is_that_of_the_device() {
        let on = |major, minor| file_system(MOUNTS, libc::makedev(major, minor));
        assert_eq!(on(254, 0).as_deref(), Some("ext4"));
        assert_eq!(on(254, 16).as_deref(), Some("xfs"));
        assert_eq!(on(254, 1), None);
        assert_eq!(on(0, 30), None, "a line that is cut");
        assert_eq!(file_system("", 0), None);
    }
}
