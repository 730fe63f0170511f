//! A lab directory on a file system that does not keep locks is refused unless somebody says otherwise.
//!
//! Which that are is told by the type: a lock that everybody is granted cannot be told from one that holds. The lines
//! are written as proc_pid_mountinfo(5) says, with types and options of mount(8), nfs(5) and the kernel's file systems.

use lab_core::execute::lock::LockError;
use lab_core::execute::{LabDir, LabError, Mount, Mounts};
use std::path::Path;
use std::time::UNIX_EPOCH;

const ROOT: &str = "22 1 259:2 / / rw,relatime shared:1 - ext4 /dev/nvme0n1p2 rw,errors=remount-ro\n";

/// What is held against a lock on a file system of this type with these options.
fn doubt(kind: &str, options: &str) -> Option<String> {
    let text = format!("{ROOT}36 22 0:45 / /mnt/lab rw,relatime shared:5 - {kind} source {options}\n");
    let mounts = Mounts::parse(&text);
    let mount = mounts.under(Path::new("/mnt/lab/state")).expect("it is mounted");
    assert_eq!(mount.kind, kind);
    mount.doubt()
}

#[test]
fn what_keeps_a_lock_is_trusted() {
    for kind in ["ext4", "xfs", "btrfs", "zfs", "tmpfs", "overlay", "f2fs", "vfat", "ceph", "fuseblk", "gfs2"] {
        assert_eq!(doubt(kind, "rw"), None, "{kind}");
    }
    // The server is asked for every lock.
    assert_eq!(doubt("nfs4", "rw,vers=4.2,hard,proto=tcp,local_lock=none,addr=10.0.0.5"), None);
    assert_eq!(doubt("nfs", "rw,vers=3,hard,local_lock=none,addr=10.0.0.5"), None);
    assert_eq!(doubt("nfs", "rw,vers=3,local_lock=posix,addr=10.0.0.5"), None, "ours is not of that kind");
    assert_eq!(doubt("lustre", "rw,flock,lazystatfs"), None);
}

#[test]
fn what_does_not_keep_a_lock_is_doubted_by_its_type() {
    for kind in
        ["cifs", "smb3", "9p", "virtiofs", "vboxsf", "vmhgfs", "fuse", "fuse.sshfs", "fuse.rclone", "afs", "beegfs"]
    {
        let why = doubt(kind, "rw").unwrap_or_else(|| panic!("{kind} is trusted"));
        assert!(why.contains(&format!("`{kind}`")), "{why}");
    }
    for option in ["nolock", "local_lock=all", "local_lock=flock"] {
        let why = doubt("nfs", &format!("rw,vers=3,{option},addr=10.0.0.5")).expect("it is doubted");
        assert!(why.contains(option), "{why}");
    }
    assert!(doubt("lustre", "rw,localflock").is_some(), "for this machine only");
    assert!(doubt("lustre", "rw").is_some());
}

#[test]
fn the_innermost_and_last_mount_counts() {
    let text = format!(
        "{ROOT}36 22 0:45 / /mnt rw - cifs //nas/lab rw\n37 36 8:1 / /mnt/disk\\040one rw - ext4 /dev/sda1 rw\n\
         38 22 0:46 / /over rw - ext4 /dev/sdb1 rw\n39 22 0:47 / /over rw - 9p host rw\nnot a line of it\n"
    );
    let mounts = Mounts::parse(&text);
    let kind = |path: &str| mounts.under(Path::new(path)).map(|mount| mount.kind.as_str());
    assert_eq!(kind("/mnt/state"), Some("cifs"));
    assert_eq!(kind("/mnt/disk one/state"), Some("ext4"), "a blank in a path is written as \\040");
    assert_eq!(kind("/mntx/state"), Some("ext4"), "a beginning of a name is no directory");
    assert_eq!(kind("/over/state"), Some("9p"), "what was mounted later lies on top");
    assert_eq!(Mounts::parse("").under(Path::new("/mnt")), None);
}

#[test]
fn a_directory_that_is_doubted_is_refused_before_anything_is_made_and_locked_when_somebody_vouches_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let lab = dir.path().canonicalize().unwrap().join("lab");
    let mounts =
        Mounts::parse(&format!("{ROOT}36 22 0:45 / {} rw - fuse.sshfs me@nas: rw\n", lab.parent().unwrap().display()));
    let refused = LabDir::new(&lab).among(mounts.clone()).lock("up", UNIX_EPOCH).map(drop).unwrap_err();
    assert!(!lab.exists(), "nothing was made");
    let LabError::Lock(error) = &refused else { panic!("{refused:?}") };
    assert!(matches!(error, LockError::Doubtful { .. }));
    assert_eq!(
        error.to_string(),
        format!(
            "lock {}: it is a driver of somebody else's (FUSE) (`fuse.sshfs`), which is not known to tell other machines of a lock",
            lab.display()
        )
    );
    assert!(error.hint().unwrap().contains("--trust-lock"));
    let trusted = LabDir::new(&lab).among(mounts.clone()).trusted();
    let _lock = trusted.lock("up", UNIX_EPOCH).unwrap();
    // It is a lock all the same, for this machine.
    let again = LabDir::new(&lab).among(mounts).trusted().lock("up", UNIX_EPOCH).map(drop).unwrap_err();
    assert!(matches!(again, LabError::Lock(LockError::Held { .. })));
}

#[test]
fn what_this_machine_says_is_understood() {
    if !Path::new("/proc/self/mountinfo").exists() {
        return;
    }
    let mounts = Mounts::here();
    let root: &Mount = mounts.under(Path::new("/")).expect("something is mounted at /");
    assert_eq!(root.at, Path::new("/"));
    assert!(!root.kind.is_empty());
}
