//! What a lab directory lies on, and whether a lock holds there.
//!
//! Whether a file system keeps a lock cannot be tried: one that does not may grant it to everybody who asks. So it is
//! told by its type. What is deliberately not here: a probe with a second process, which would prove something about
//! this machine only.

use std::path::{Path, PathBuf};

/// The file systems of this machine, as the kernel lists them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mounts(Vec<Mount>);

/// One mounted file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Where.
    pub at: PathBuf,
    /// Its type: `ext4`, `nfs4`, `fuse.sshfs` ...
    pub kind: String,
    /// Its options.
    pub options: Vec<String>,
}

impl Mounts {
    /// Returns the file systems of this machine. Where there is no `/proc`, none are known.
    pub fn here() -> Mounts {
        // A name that is no Unicode is the name of no type.
        let text = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
        Mounts::parse(&String::from_utf8_lossy(&text))
    }

    /// Reads the text of `/proc/self/mountinfo`; see proc_pid_mountinfo(5). Lines that are not understood are left out.
    pub fn parse(text: &str) -> Mounts {
        let mount = |line: &str| {
            // 36 35 98:0 /root /at rw,noatime shared:1 - ext4 /dev/sda1 rw,errors=continue
            let (before, after) = line.split_once(" - ")?;
            let mut before = before.split(' ').skip(4);
            let mut after = after.split(' ');
            let (at, own, kind) = (before.next()?, before.next()?, after.next()?);
            let theirs = after.nth(1).unwrap_or_default();
            let options = own.split(',').chain(theirs.split(',')).map(str::to_owned).collect();
            Some(Mount { at: unescaped(at).into(), kind: kind.to_owned(), options })
        };
        Mounts(text.lines().filter_map(mount).collect())
    }

    /// Returns what `dir` lies on, as far as it exists; nothing when that is not known.
    pub fn under(&self, dir: &Path) -> Option<&Mount> {
        let dir = super::seal::resolved(dir);
        // The last of those with the longest path: it lies on top of the others.
        self.0.iter().filter(|mount| dir.starts_with(&mount.at)).max_by_key(|mount| mount.at.components().count())
    }
}

impl Mount {
    /// Returns why a lock that is taken here is not known to keep other machines out; nothing when it is.
    pub fn doubt(&self) -> Option<String> {
        let kind = self.kind.as_str();
        let option = |names: &[&str]| self.options.iter().find(|option| names.contains(&option.as_str())).cloned();
        let among = |names: &[&str]| names.contains(&kind);
        if among(&["nfs", "nfs4"]) {
            // Otherwise the kernel asks the server for every lock; see nfs(5).
            let local = option(&["nolock", "local_lock=all", "local_lock=flock"])?;
            return Some(format!("it is NFS mounted with `{local}`, so locks are this machine's own"));
        }
        if kind == "lustre" {
            return (option(&["flock"]).is_none())
                .then(|| "it is Lustre mounted without `flock`, so locks are nobody's or this machine's own".into());
        }
        // A block device under a driver that is a process; whoever has the device, has it alone.
        if kind == "fuseblk" {
            return None;
        }
        let what = match kind {
            "cifs" | "smb3" | "smbfs" => "SMB",
            "9p" | "virtiofs" | "vboxsf" | "vmhgfs" | "prl_fs" => "a directory of the host, shared with a guest",
            "afs" | "coda" | "ncpfs" | "beegfs" => "a network file system",
            _ if kind == "fuse" || kind.starts_with("fuse.") => "a driver of somebody else's (FUSE)",
            _ => return None,
        };
        Some(format!("it is {what} (`{kind}`), which is not known to tell other machines of a lock"))
    }
}

/// Undoes the kernel's `\040` for a blank.
fn unescaped(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let code = (*first == b'\\').then(|| after.get(..3)).flatten();
        let code = code.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        match code {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
