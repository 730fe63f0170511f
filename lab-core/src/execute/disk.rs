//! The seam between what is stored and where: a few verbs over one directory.
//!
//! [`RealDisk`] is a directory of the file system. [`FaultyDisk`] is one in memory that stops, fails and forgets when
//! it is told to; it is public test support. What is deliberately not here: any knowledge of what the bytes mean, and
//! writing in the middle of a file. Files grow at their end or are replaced as a whole, so those are the only two
//! things that can be half done.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

/// A directory of files, seen as everything that can go wrong with one.
///
/// Names are plain file names. Nothing is promised to survive a power loss before [`File::flush`] (for the bytes) and
/// [`Disk::sync_dir`] (for the names) have returned.
pub trait Disk: Send + Sync {
    /// Returns how a message calls the file `name`: its path.
    fn place(&self, name: &str) -> String;
    /// Returns the content of a file, or nothing when there is no such file.
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>>;
    /// Opens a file to be read and reads how it begins, up to so many bytes; nothing when there is no such file.
    fn open(&self, name: &str, most: usize) -> io::Result<Option<Reading>>;
    /// Returns the names of all files, sorted.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Creates an empty file, in place of one of that name.
    fn create(&self, name: &str) -> io::Result<Box<dyn File>>;
    /// Gives the file `from` the name `to`, in place of the file of that name. An open [`File`] follows.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Gives the file `from` a second name `to`. An error of the kind `AlreadyExists` when there is a file of that name.
    fn link(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes all names durable.
    fn sync_dir(&self) -> io::Result<()>;
}

/// A file of which the beginning was read. What is read of it is the file that was opened, as long as it was then, whatever
/// has taken its name meanwhile.
pub struct Reading {
    /// How it begins.
    pub head: Vec<u8>,
    /// How many bytes it has.
    pub length: u64,
    rest: Box<Rest>,
}

type Rest = dyn FnOnce(&mut Vec<u8>) -> io::Result<()>;

impl Reading {
    /// Returns a file that begins with `head` and has so many bytes; `rest` appends the others.
    pub fn new(head: Vec<u8>, length: u64, rest: impl FnOnce(&mut Vec<u8>) -> io::Result<()> + 'static) -> Reading {
        Reading { head, length, rest: Box::new(rest) }
    }

    /// Reads all of it.
    pub fn all(self) -> io::Result<Vec<u8>> {
        let mut all = self.head;
        (self.rest)(&mut all)?;
        Ok(all)
    }
}

/// A file that grows at its end.
pub trait File: Send {
    /// Appends all of `bytes`. After an error any part of them may have been appended.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Makes everything written so far durable. After an error nothing is known about the bytes since the last
    /// success, and flushing again proves nothing: kernels forget what they failed to write.
    fn flush(&mut self) -> io::Result<()>;
}

/// Replaces the file `name` by `bytes`, durably and all at once: after a crash there is the old one or the new one.
///
/// Returns the new file, open at its end. After an error either may be there.
pub fn replace(disk: &dyn Disk, name: &str, bytes: &[u8]) -> io::Result<Box<dyn File>> {
    let file = stage(disk, name, bytes)?;
    publish(disk, name)?;
    Ok(file)
}

/// Returns the name under which a replacement of `name` is prepared. Whoever finds such a file may remove it.
pub fn temporary(name: &str) -> String {
    format!("{name}.tmp")
}

/// The first half of [`replace`]: a failure here has not touched the file `name`.
pub(crate) fn stage(disk: &dyn Disk, name: &str, bytes: &[u8]) -> io::Result<Box<dyn File>> {
    let staged = temporary(name);
    let mut file = disk.create(&staged)?;
    if let Err(error) = file.write(bytes).and_then(|()| file.flush()) {
        drop(file);
        // The next replacement would overwrite it anyway; on a full disk its room is wanted now.
        let _ = disk.remove(&staged);
        return Err(error);
    }
    Ok(file)
}

/// The second half of [`replace`]: a failure here leaves open which of the two files is there.
pub(crate) fn publish(disk: &dyn Disk, name: &str) -> io::Result<()> {
    disk.rename(&temporary(name), name)?;
    disk.sync_dir()
}

/// A directory of the file system. It is made when the first file is created: looking leaves no trace.
#[derive(Clone, Debug)]
pub struct RealDisk {
    dir: PathBuf,
}

impl RealDisk {
    /// Returns the disk of the directory `dir`, which need not exist yet.
    pub fn new(dir: impl Into<PathBuf>) -> RealDisk {
        RealDisk { dir: dir.into() }
    }

    /// Returns the directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn path(&self, name: &str) -> io::Result<PathBuf> {
        let plain = Path::new(name).file_name().is_some_and(|file| file == name);
        let refused = || io::Error::new(io::ErrorKind::InvalidInput, format!("`{name}` is not a plain file name"));
        if plain { Ok(self.dir.join(name)) } else { Err(refused()) }
    }
}

impl Disk for RealDisk {
    fn place(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        match fs::read(self.path(name)?) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn open(&self, name: &str, most: usize) -> io::Result<Option<Reading>> {
        let file = match fs::File::open(self.path(name)?) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let length = file.metadata()?.len();
        let mut head = Vec::new();
        (&file).take(most as u64).read_to_end(&mut head)?;
        let left = length.saturating_sub(head.len() as u64);
        let rest = move |all: &mut Vec<u8>| {
            all.reserve_exact(usize::try_from(left).unwrap_or_default());
            file.take(left).read_to_end(all).map(|_| ())
        };
        Ok(Some(Reading::new(head, length, rest)))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry?;
            if entry.file_type()?.is_file()
                && let Ok(name) = entry.file_name().into_string()
            {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn File>> {
        let path = self.path(name)?;
        make_dir(&self.dir)?;
        let mut options = fs::OpenOptions::new();
        options.write(true).create(true).truncate(true);
        // Secrets in it are sealed; what a lab consists of is still nobody else's business.
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        Ok(Box::new(RealFile(options.open(path)?)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path(from)?, self.path(to)?)
    }

    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        fs::hard_link(self.path(from)?, self.path(to)?)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path(name)?)
    }

    fn sync_dir(&self) -> io::Result<()> {
        sync_dir(&self.dir)
    }
}

/// Makes a directory and its parents, each durable in the directory above it.
pub(crate) fn make_dir(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    let parent = match dir.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => Path::new("/"),
    };
    make_dir(parent)?;
    match fs::create_dir(dir) {
        // Another process may have been faster.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => {}
        made => made?,
    }
    sync_dir(parent)
}

/// Makes the names in a directory durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    // Elsewhere a directory cannot be opened as a file; there the file system's own journal has to do.
    if cfg!(unix) { fs::File::open(dir)?.sync_all() } else { Ok(()) }
}

struct RealFile(fs::File);

impl File for RealFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.sync_data()
    }
}

/// A directory in memory that fails on demand. Clones are the same directory.
///
/// A test runs undisturbed, takes the number of [`FaultyDisk::operations`], then runs again for each of them with a
/// [`Fault`] there, and looks at what [`FaultyDisk::reopen`] finds after the [`Crash`].
///
/// Faults it may inject: the process stops before, within or after any operation; an operation fails without effect,
/// in part, or after it took effect; the disk is full from some operation on; a failed flush forgets the bytes it was
/// to make durable: they stay readable until the power goes, any part of them may have been written, and a later flush
/// does not bring back the rest; a power loss takes any subset of the unflushed sectors (a lost one before a kept one
/// reads as zeros, and so may the end of a file that had grown) and any subset of the names changed since the directory
/// was flushed, in order; any bit flips.
///
/// Faults it never injects: a flush that reports success and did nothing, a rename that is seen half done, bytes of
/// one file in another, a directory that is flushed successfully after a flush of it has failed and still forgets (names
/// are in the file system's own journal: one that cannot write that stops taking writes).
#[derive(Clone, Default)]
pub struct FaultyDisk {
    world: Arc<Mutex<World>>,
    watch: Option<Watch>,
}

type Watch = Arc<dyn Fn(usize) + Send + Sync>;

/// Something that goes wrong at one operation of a [`FaultyDisk`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The process stops before the operation.
    StopBefore,
    /// The process stops within a write, after so many bytes of it. With any other operation: before it.
    StopWithin(usize),
    /// The process stops after the operation, before it learns that it succeeded.
    StopAfter,
    /// The operation fails without effect: no space left.
    NoSpace,
    /// The operation fails without effect: input/output error.
    Broken,
    /// A write appends so many bytes and then fails: no space left. Any other operation fails without effect.
    Short(usize),
    /// The operation takes effect and reports an input/output error.
    BrokenAfter,
}

/// What ended the process whose files [`FaultyDisk::reopen`] looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// The process died; the kernel still has everything that was written.
    Process,
    /// The power went, and everything unflushed with it.
    Power,
    /// The power went, and a part of the unflushed with it; the seed says which.
    PowerPartly(u64),
    /// The power went. Of the unflushed, in the order of [`FaultyDisk::unflushed`], what has its bit set was kept; beyond
    /// 64 the bits begin anew.
    PowerKeeps(u64),
}

/// One operation that a [`FaultyDisk`] was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// What was asked.
    pub verb: Verb,
    /// The file; empty for the directory itself.
    pub name: String,
    /// How many bytes a write has; otherwise 0.
    pub bytes: usize,
}

/// The operations of a [`Disk`] and its [`File`]s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "named like the methods")]
pub enum Verb {
    Read,
    List,
    Create,
    Rename,
    Link,
    Remove,
    SyncDir,
    Write,
    Flush,
}

/// How many bytes a power loss keeps or loses together. Small, so that short test files have many.
const SECTOR: usize = 32;

#[derive(Debug, Default)]
struct World {
    inodes: Vec<Inode>,
    /// What the process sees, and what a power loss leaves.
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    unsynced_names: Vec<Change>,
    operations: Vec<Operation>,
    faults: BTreeMap<usize, Fault>,
    full_from: Option<usize>,
    stopped: bool,
    /// Bytes in a sector; [`SECTOR`] when 0.
    sector: usize,
}

#[derive(Clone, Debug, Default)]
struct Inode {
    cached: Vec<u8>,
    durable: Vec<u8>,
    /// Byte ranges that are dirty in the cache.
    dirty: Vec<(usize, usize)>,
    /// Byte ranges whose flush has failed: clean in the cache, and on the disk perhaps.
    forgotten: Vec<(usize, usize)>,
}

#[derive(Clone, Debug)]
enum Change {
    Link(String, usize),
    Rename(String, String, usize),
    Unlink(String),
}

impl FaultyDisk {
    /// Returns an empty directory without faults.
    pub fn new() -> FaultyDisk {
        FaultyDisk::default()
    }

    /// Returns the same directory on a disk with sectors of so many bytes.
    pub fn with_sector(self, bytes: usize) -> FaultyDisk {
        self.world().sector = bytes;
        self
    }

    /// Returns the same directory, with `watch` called before each operation with its number.
    pub fn watched(mut self, watch: impl Fn(usize) + Send + Sync + 'static) -> FaultyDisk {
        self.watch = Some(Arc::new(watch));
        self
    }

    /// Returns how many names and sectors a power loss may or may not take at this moment.
    pub fn unflushed(&self) -> usize {
        let world = self.world();
        let sectors = world.inodes.iter().map(|inode| inode.unflushed(world.sector()).len());
        world.unsynced_names.len() + sectors.sum::<usize>()
    }

    /// Injects `fault` at operation number `at`, counted from 0 over all verbs.
    pub fn inject(&self, at: usize, fault: Fault) {
        self.world().faults.insert(at, fault);
    }

    /// Lets the disk be full from operation number `at` on: nothing can be created, written or flushed.
    pub fn full_from(&self, at: usize) {
        self.world().full_from = Some(at);
    }

    /// Returns everything that was asked of the disk so far.
    pub fn operations(&self) -> Vec<Operation> {
        self.world().operations.clone()
    }

    /// Returns whether a fault has stopped the process. Every operation fails from then on.
    pub fn stopped(&self) -> bool {
        self.world().stopped
    }

    /// Returns the directory as the next process finds it: another disk, without faults, its operations counted anew.
    pub fn reopen(&self, crash: Crash) -> FaultyDisk {
        let world = self.world();
        let partly = matches!(crash, Crash::PowerPartly(_));
        let mut dice = Dice::default();
        let (keep_all, mut keep): (bool, Box<dyn FnMut() -> bool>) = match crash {
            Crash::Process => (true, Box::new(|| true)),
            Crash::Power => (false, Box::new(|| false)),
            Crash::PowerPartly(seed) => {
                dice.0 = seed;
                (false, Box::new(move || dice.roll() & 1 == 0))
            }
            Crash::PowerKeeps(bits) => {
                let mut item = 0;
                let keep = move || {
                    item += 1;
                    bits >> ((item - 1) % 64) & 1 == 1
                };
                (false, Box::new(keep))
            }
        };
        if keep_all {
            let next = World {
                inodes: world.inodes.clone(),
                names: world.names.clone(),
                durable_names: world.durable_names.clone(),
                unsynced_names: world.unsynced_names.clone(),
                sector: world.sector,
                ..World::default()
            };
            return FaultyDisk { world: Arc::new(Mutex::new(next)), watch: None };
        }
        let mut names = world.durable_names.clone();
        for change in &world.unsynced_names {
            if keep() {
                change.clone().make(&mut names);
            }
        }
        let mut inodes = world.inodes.clone();
        for inode in &mut inodes {
            let unflushed = inode.unflushed(world.sector());
            unflushed.iter().filter(|_| keep()).for_each(|(from, to)| inode.harden(*from, *to));
            // That a file had grown may be known, and what it had grown by not be there.
            if partly && !unflushed.is_empty() && keep() {
                inode.durable.resize(inode.cached.len().max(inode.durable.len()), 0);
            }
            inode.dirty.clear();
            inode.forgotten.clear();
            inode.cached = inode.durable.clone();
        }
        let sector = world.sector;
        let next = World { inodes, names: names.clone(), durable_names: names, sector, ..World::default() };
        FaultyDisk { world: Arc::new(Mutex::new(next)), watch: None }
    }

    /// Puts a file there, durably and uncounted: what a test found on the disk.
    pub fn put(&self, name: &str, bytes: &[u8]) {
        let mut world = self.world();
        let inode = world.inodes.len();
        world.inodes.push(Inode { cached: bytes.to_vec(), durable: bytes.to_vec(), ..Inode::default() });
        world.names.insert(name.to_owned(), inode);
        world.durable_names.insert(name.to_owned(), inode);
    }

    /// Returns the content of a file as the process would see it, uncounted and without faults.
    pub fn get(&self, name: &str) -> Option<Vec<u8>> {
        let world = self.world();
        world.names.get(name).map(|inode| world.inodes[*inode].cached.clone())
    }

    /// Returns the content of every file there ever was, also of those that were replaced, removed or never made
    /// durable: for a search for what must not be in any of them.
    pub fn everything(&self) -> Vec<Vec<u8>> {
        self.world().inodes.iter().map(|inode| inode.cached.clone()).collect()
    }

    /// Flips bit `bit` (0 to 7) of byte `byte` of a file. Panics when there is no such byte.
    pub fn flip(&self, name: &str, byte: usize, bit: u8) {
        let mut bytes = self.get(name).expect("a file to flip a bit of");
        bytes[byte] ^= 1 << bit;
        self.put(name, &bytes);
    }

    fn world(&self) -> MutexGuard<'_, World> {
        // A panic elsewhere in a test must not hide itself behind a poisoned lock.
        self.world.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Counts an operation, and lets it take effect as far as its fault allows. `effect` is told how many bytes of a
    /// write to take.
    fn operate<T>(
        &self,
        (verb, name, bytes): (Verb, &str, usize),
        effect: impl FnOnce(&mut World, usize) -> io::Result<T>,
    ) -> io::Result<T> {
        if let Some(watch) = &self.watch {
            let number = self.world().operations.len();
            watch(number);
        }
        let mut world = self.world();
        if world.stopped {
            return Err(stopped());
        }
        let number = world.operations.len();
        world.operations.push(Operation { verb, name: name.to_owned(), bytes });
        let full = world.full_from.is_some_and(|from| number >= from);
        let fault = match verb {
            Verb::Create | Verb::Write | Verb::Flush | Verb::Link if full => Some(Fault::NoSpace),
            _ => world.faults.get(&number).copied(),
        };
        let is_write = verb == Verb::Write;
        let Some(fault) = fault else { return effect(&mut world, bytes) };
        match fault {
            Fault::StopBefore => {}
            Fault::StopWithin(part) if is_write => drop(effect(&mut world, part.min(bytes))?),
            Fault::StopWithin(_) => {}
            Fault::StopAfter => drop(effect(&mut world, bytes)?),
            Fault::Short(part) => {
                if is_write {
                    effect(&mut world, part.min(bytes))?;
                }
                world.forget(verb, name);
                return Err(no_space());
            }
            Fault::NoSpace => {
                world.forget(verb, name);
                return Err(no_space());
            }
            Fault::Broken => {
                world.forget(verb, name);
                return Err(broken());
            }
            Fault::BrokenAfter => {
                effect(&mut world, bytes)?;
                return Err(broken());
            }
        }
        world.stopped = true;
        Err(stopped())
    }
}

impl World {
    fn change(&mut self, change: Change) {
        change.clone().make(&mut self.names);
        self.unsynced_names.push(change);
    }

    fn sector(&self) -> usize {
        if self.sector == 0 { SECTOR } else { self.sector }
    }

    /// A failed flush: the pages are clean now, and whether their bytes are anywhere but in the cache, nobody knows.
    fn forget(&mut self, verb: Verb, name: &str) {
        if verb == Verb::Flush
            && let Some(inode) = self.names.get(name).copied()
        {
            let inode = &mut self.inodes[inode];
            inode.forgotten.append(&mut inode.dirty);
        }
    }
}

impl Inode {
    /// Returns the byte ranges that a power loss may or may not take, each within a sector.
    fn unflushed(&self, sector: usize) -> Vec<(usize, usize)> {
        let mut ranges = Vec::new();
        for (from, to) in self.forgotten.iter().chain(&self.dirty) {
            let mut start = *from;
            while start < *to {
                let end = (*to).min((start / sector + 1) * sector);
                ranges.push((start, end));
                start = end;
            }
        }
        ranges
    }

    fn harden(&mut self, from: usize, to: usize) {
        if self.durable.len() < to {
            self.durable.resize(to, 0);
        }
        self.durable[from..to].copy_from_slice(&self.cached[from..to]);
    }
}

impl Change {
    fn make(self, names: &mut BTreeMap<String, usize>) {
        match self {
            Change::Link(name, inode) => drop(names.insert(name, inode)),
            Change::Rename(from, to, inode) => {
                names.remove(&from);
                names.insert(to, inode);
            }
            Change::Unlink(name) => drop(names.remove(&name)),
        }
    }
}

impl Disk for FaultyDisk {
    fn place(&self, name: &str) -> String {
        format!("memory/{name}")
    }

    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        self.operate((Verb::Read, name, 0), |world, _| {
            Ok(world.names.get(name).map(|inode| world.inodes[*inode].cached.clone()))
        })
    }

    fn open(&self, name: &str, most: usize) -> io::Result<Option<Reading>> {
        let file = self.read(name)?;
        Ok(file.map(|mut head| {
            let (length, rest) = (head.len() as u64, head.split_off(most.min(head.len())));
            Reading::new(head, length, move |all| {
                all.extend(rest);
                Ok(())
            })
        }))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.operate((Verb::List, "", 0), |world, _| Ok(world.names.keys().cloned().collect()))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn File>> {
        let inode = self.operate((Verb::Create, name, 0), |world, _| {
            let inode = world.inodes.len();
            world.inodes.push(Inode::default());
            world.change(Change::Link(name.to_owned(), inode));
            Ok(inode)
        })?;
        Ok(Box::new(FaultyFile { disk: self.clone(), inode }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.operate((Verb::Rename, to, 0), |world, _| {
            let inode = *world.names.get(from).ok_or(io::ErrorKind::NotFound)?;
            world.change(Change::Rename(from.to_owned(), to.to_owned(), inode));
            Ok(())
        })
    }

    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        self.operate((Verb::Link, to, 0), |world, _| {
            let inode = *world.names.get(from).ok_or(io::ErrorKind::NotFound)?;
            if world.names.contains_key(to) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            world.change(Change::Link(to.to_owned(), inode));
            Ok(())
        })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.operate((Verb::Remove, name, 0), |world, _| {
            world.names.get(name).ok_or(io::ErrorKind::NotFound)?;
            world.change(Change::Unlink(name.to_owned()));
            Ok(())
        })
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.operate((Verb::SyncDir, "", 0), |world, _| {
            world.durable_names = world.names.clone();
            world.unsynced_names.clear();
            Ok(())
        })
    }
}

impl std::fmt::Debug for FaultyDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FaultyDisk").field("world", &self.world()).finish_non_exhaustive()
    }
}

struct FaultyFile {
    disk: FaultyDisk,
    inode: usize,
}

impl FaultyFile {
    fn name(&self) -> String {
        let world = self.disk.world();
        let named = world.names.iter().find(|(_, inode)| **inode == self.inode);
        named.map(|(name, _)| name.clone()).unwrap_or_default()
    }
}

impl File for FaultyFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.disk.operate((Verb::Write, &self.name(), bytes.len()), |world, part| {
            let inode = &mut world.inodes[self.inode];
            let from = inode.cached.len();
            inode.cached.extend_from_slice(&bytes[..part]);
            inode.dirty.push((from, from + part));
            Ok(())
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        self.disk.operate((Verb::Flush, &self.name(), 0), |world, _| {
            let inode = &mut world.inodes[self.inode];
            for (from, to) in std::mem::take(&mut inode.dirty) {
                inode.harden(from, to);
            }
            Ok(())
        })
    }
}

fn stopped() -> io::Error {
    io::Error::other("the process was stopped here")
}

fn no_space() -> io::Error {
    io::Error::new(io::ErrorKind::StorageFull, "no space left on device")
}

fn broken() -> io::Error {
    io::Error::other("input/output error")
}

/// SplitMix64: enough to choose subsets, and the same on every platform for ever.
#[derive(Default)]
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
