//! Owns the state of one simulated disk: what readers see, what is certain to survive, and the operations between.
//! Does not know tasks or time; `file` and `fsops` add delays and wake-ups.
//! Invariant: the durable state changes only by a sync, a crash or a hook of the test, never by a write alone.

mod fate;
mod names;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use super::super::fs::Space;
use super::super::time::Mono;
use super::core::Core;
use super::{CrashPolicy, Unsynced};
use fate::{crash_inode, Fate};
pub(super) use names::Entry;
use names::{Name, NameOp};

const PAGE: u64 = 4096;
/// What a device writes whole or not at all.
const SECTOR: usize = 512;
/// Removals after which unreachable files are looked for.
const SWEEP_EVERY: u32 = 64;

pub(super) type Ino = u64;
const ROOT: Ino = 0;

/// Sparse content; a missing page is zeros.
#[derive(Clone, Default)]
struct Content {
    pages: BTreeMap<u64, Rc<[u8; PAGE as usize]>>,
    len: u64,
}

impl Content {
    fn write(&mut self, off: u64, data: &[u8]) {
        let mut done = 0;
        while done < data.len() {
            let at = off + done as u64;
            let (page, start) = (at / PAGE, (at % PAGE) as usize);
            let n = (PAGE as usize - start).min(data.len() - done);
            let p = self
                .pages
                .entry(page)
                .or_insert_with(|| Rc::new([0; PAGE as usize]));
            Rc::make_mut(p)[start..start + n].copy_from_slice(&data[done..done + n]);
            done += n;
        }
        self.len = self.len.max(off + data.len() as u64);
    }

    fn read(&self, off: u64, len: usize) -> Vec<u8> {
        let end = self.len.min(off.saturating_add(len as u64));
        let mut out = vec![0; end.saturating_sub(off) as usize];
        let mut done = 0;
        while done < out.len() {
            let at = off + done as u64;
            let start = (at % PAGE) as usize;
            let n = (PAGE as usize - start).min(out.len() - done);
            if let Some(p) = self.pages.get(&(at / PAGE)) {
                out[done..done + n].copy_from_slice(&p[start..start + n]);
            }
            done += n;
        }
        out
    }

    fn set_len(&mut self, len: u64) {
        if len < self.len {
            self.pages.split_off(&len.div_ceil(PAGE));
            if !len.is_multiple_of(PAGE) {
                if let Some(p) = self.pages.get_mut(&(len / PAGE)) {
                    Rc::make_mut(p)[(len % PAGE) as usize..].fill(0);
                }
            }
        }
        self.len = len;
    }
}

#[derive(Clone)]
enum Op {
    Write { off: u64, data: Rc<[u8]> },
    SetLen(u64),
}

struct Pending {
    seq: u64,
    op: Op,
    /// Written through (O_DSYNC): durable already, and kept here only so that an older write to the same place, when it
    /// becomes durable, does not cover it.
    certain: bool,
}

#[derive(Default)]
struct Inode {
    now: Content,
    durable: Content,
    /// Completed and not synced, in order of completion.
    pending: Vec<Pending>,
    /// Submitted and not completed, by ticket.
    in_flight: BTreeMap<u64, Op>,
    handles: u32,
    locked_by: Option<u64>,
    /// Handles that have the lock beside each other.
    shared_by: BTreeSet<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum FaultOp {
    Read,
    Write,
    Sync,
}

struct Fault {
    op: FaultOp,
    ino: Option<Ino>,
    left: u32,
    errno: i32,
}

pub(super) struct Disk {
    inodes: BTreeMap<Ino, Inode>,
    names: BTreeMap<Name, Entry>,
    durable_names: BTreeMap<Name, Entry>,
    pending_names: Vec<NameOp>,
    next: u64,
    capacity: u64,
    used: u64,
    /// Times that something found no room.
    refused: u64,
    faults: Vec<Fault>,
    spike: (Duration, Mono),
    removals: u32,
    /// Counts crashes; handles of an earlier life are dead.
    pub(super) life: u32,
}

fn blocks(len: u64) -> u64 {
    len.div_ceil(PAGE) * PAGE
}

fn errno(n: i32) -> io::Error {
    io::Error::from_raw_os_error(n)
}

impl Disk {
    pub(super) fn new(capacity: u64) -> Disk {
        Disk {
            inodes: BTreeMap::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            pending_names: Vec::new(),
            next: ROOT + 1,
            capacity,
            used: 0,
            refused: 0,
            faults: Vec::new(),
            spike: (Duration::ZERO, Mono(0)),
            removals: 0,
            life: 0,
        }
    }

    fn fresh(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }

    // ---- names ----

    fn parts(path: &Path) -> io::Result<Vec<&OsStr>> {
        let mut out = Vec::new();
        for c in path.components() {
            match c {
                Component::RootDir | Component::CurDir => {}
                Component::Normal(n) => out.push(n),
                Component::ParentDir | Component::Prefix(_) => return Err(errno(libc::EINVAL)),
            }
        }
        Ok(out)
    }

    pub(super) fn lookup(&self, path: &Path) -> io::Result<Option<Entry>> {
        let mut at = Entry::Dir(ROOT);
        for part in Self::parts(path)? {
            let Entry::Dir(dir) = at else {
                return Err(errno(libc::ENOTDIR));
            };
            match self.names.get(&(dir, part.to_owned())) {
                Some(e) => at = *e,
                None => return Ok(None),
            }
        }
        Ok(Some(at))
    }

    pub(super) fn dir(&self, path: &Path) -> io::Result<Ino> {
        match self.lookup(path)? {
            Some(Entry::Dir(d)) => Ok(d),
            Some(Entry::File(_)) => Err(errno(libc::ENOTDIR)),
            None => Err(errno(libc::ENOENT)),
        }
    }

    pub(super) fn file(&self, path: &Path) -> io::Result<Ino> {
        match self.lookup(path)? {
            Some(Entry::File(f)) => Ok(f),
            Some(Entry::Dir(_)) => Err(errno(libc::EISDIR)),
            None => Err(errno(libc::ENOENT)),
        }
    }

    /// The directory of `path`'s last part, and that part.
    fn name_of(&self, path: &Path) -> io::Result<Name> {
        let mut parts = Self::parts(path)?;
        let last = parts.pop().ok_or_else(|| errno(libc::EINVAL))?;
        let dir = self.dir(&parts.iter().collect::<PathBuf>())?;
        Ok((dir, last.to_owned()))
    }

    fn change_names(&mut self, op: NameOp) {
        op.apply(&mut self.names);
        self.pending_names.push(op);
    }

    pub(super) fn create_file(&mut self, path: &Path) -> io::Result<Ino> {
        let name = self.name_of(path)?;
        if self.used >= self.capacity {
            self.recount();
        }
        if self.used >= self.capacity {
            return Err(self.no_room());
        }
        let ino = self.fresh();
        self.inodes.insert(ino, Inode::default());
        self.change_names(NameOp::Set(name, Entry::File(ino)));
        Ok(ino)
    }

    pub(super) fn create_dir(&mut self, path: &Path) -> io::Result<()> {
        let name = self.name_of(path)?;
        if self.names.contains_key(&name) {
            return Err(errno(libc::EEXIST));
        }
        let ino = self.fresh();
        self.change_names(NameOp::Set(name, Entry::Dir(ino)));
        Ok(())
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let from_entry = self.lookup(from)?.ok_or_else(|| errno(libc::ENOENT))?;
        match (from_entry, self.lookup(to)?) {
            (_, None) | (Entry::File(_), Some(Entry::File(_))) => {}
            (Entry::Dir(_), Some(Entry::File(_))) => return Err(errno(libc::ENOTDIR)),
            (Entry::File(_), Some(Entry::Dir(_))) => return Err(errno(libc::EISDIR)),
            (Entry::Dir(_), Some(Entry::Dir(d))) => {
                if self.names.keys().any(|(dir, _)| *dir == d) {
                    return Err(errno(libc::ENOTEMPTY));
                }
            }
        }
        let (from, to) = (self.name_of(from)?, self.name_of(to)?);
        if from != to {
            self.change_names(NameOp::Move(from, to, from_entry));
            self.removed();
        }
        Ok(())
    }

    pub(super) fn remove_file(&mut self, path: &Path) -> io::Result<()> {
        self.file(path)?;
        let name = self.name_of(path)?;
        self.change_names(NameOp::Unset(name));
        self.removed();
        Ok(())
    }

    pub(super) fn remove_dir_all(&mut self, path: &Path) -> io::Result<()> {
        let dir = self.dir(path)?;
        let name = self.name_of(path)?;
        let mut dirs = vec![dir];
        let mut doomed = Vec::new();
        while let Some(d) = dirs.pop() {
            for (n, e) in self.children(d) {
                if let Entry::Dir(sub) = e {
                    dirs.push(sub);
                }
                doomed.push(n);
            }
        }
        for n in doomed.into_iter().rev() {
            self.change_names(NameOp::Unset(n));
        }
        self.change_names(NameOp::Unset(name));
        self.removed();
        Ok(())
    }

    fn children(&self, dir: Ino) -> Vec<(Name, Entry)> {
        self.names
            .range((dir, OsString::new())..)
            .take_while(|((d, _), _)| *d == dir)
            .map(|(n, e)| (n.clone(), *e))
            .collect()
    }

    /// Name, entry and length of each entry, sorted.
    pub(super) fn list(&self, path: &Path) -> io::Result<Vec<(OsString, Entry, u64)>> {
        let dir = self.dir(path)?;
        let entries = self.children(dir).into_iter().map(|((_, n), e)| {
            let len = match e {
                Entry::Dir(_) => 0,
                Entry::File(f) => self.inodes[&f].now.len,
            };
            (n, e, len)
        });
        Ok(entries.collect())
    }

    /// Makes the entries of one directory durable. A rename between two directories is made durable as a whole by a sync
    /// of either.
    pub(super) fn sync_dir(&mut self, path: &Path) -> io::Result<()> {
        let dir = self.dir(path)?;
        let pending = std::mem::take(&mut self.pending_names);
        let mut removed = false;
        for op in pending {
            if op.is_in(dir) {
                op.apply(&mut self.durable_names);
                removed |= op.removes();
            } else {
                self.pending_names.push(op);
            }
        }
        if removed {
            self.removed();
        }
        Ok(())
    }

    fn removed(&mut self) {
        self.removals += 1;
        if self.removals >= SWEEP_EVERY {
            self.sweep();
        }
    }

    /// Forgets files that no name, durable or not, and no handle reaches; frees their space.
    fn sweep(&mut self) {
        self.removals = 0;
        let mut live = BTreeSet::new();
        let pending = self.pending_names.iter().filter_map(NameOp::entry);
        let named = self.names.values().chain(self.durable_names.values());
        for e in named.copied().chain(pending) {
            if let Entry::File(f) = e {
                live.insert(f);
            }
        }
        self.inodes
            .retain(|ino, i| i.handles > 0 || live.contains(ino));
        self.recount();
    }

    fn recount(&mut self) {
        let named: BTreeSet<Ino> = self
            .names
            .values()
            .filter_map(|e| match e {
                Entry::File(f) => Some(*f),
                Entry::Dir(_) => None,
            })
            .collect();
        self.used = self
            .inodes
            .iter()
            .filter(|(ino, i)| i.handles > 0 || named.contains(ino))
            .map(|(_, i)| blocks(i.now.len))
            .sum();
    }

    // ---- handles ----

    pub(super) fn opened(&mut self, ino: Ino) -> u64 {
        self.inode(ino).handles += 1;
        self.fresh()
    }

    pub(super) fn closed(&mut self, ino: Ino, handle: u64) {
        let i = self.inode(ino);
        assert!(i.handles > 0, "closed more often than opened");
        i.handles -= 1;
        let last = i.handles == 0;
        if i.locked_by == Some(handle) {
            i.locked_by = None;
        }
        i.shared_by.remove(&handle);
        if last {
            self.removed();
        }
    }

    pub(super) fn try_lock(&mut self, ino: Ino, handle: u64) -> bool {
        let i = self.inode(ino);
        let free =
            i.locked_by.is_none_or(|by| by == handle) && i.shared_by.iter().all(|by| *by == handle);
        if free {
            i.locked_by = Some(handle);
            i.shared_by.clear();
        }
        free
    }

    pub(super) fn try_lock_shared(&mut self, ino: Ino, handle: u64) -> bool {
        let i = self.inode(ino);
        let free = i.locked_by.is_none_or(|by| by == handle);
        if free {
            i.locked_by = None;
            i.shared_by.insert(handle);
        }
        free
    }

    fn inode(&mut self, ino: Ino) -> &mut Inode {
        self.inodes
            .get_mut(&ino)
            .expect("a handle or a name keeps its file")
    }

    // ---- content ----

    pub(super) fn len(&self, ino: Ino) -> u64 {
        self.inodes[&ino].now.len
    }

    pub(super) fn read(&self, ino: Ino, off: u64, len: usize) -> Vec<u8> {
        self.inodes[&ino].now.read(off, len)
    }

    fn no_room(&mut self) -> io::Error {
        self.refused += 1;
        errno(libc::ENOSPC)
    }

    /// Takes or gives back space for a change of length.
    fn resize(&mut self, ino: Ino, len: u64) -> io::Result<()> {
        let old = blocks(self.inode(ino).now.len);
        let new = blocks(len);
        if new > old {
            if self.used + (new - old) > self.capacity {
                self.recount();
            }
            if self.used + (new - old) > self.capacity {
                return Err(self.no_room());
            }
        }
        self.used = (self.used + new).saturating_sub(old);
        Ok(())
    }

    /// Registers a write that has begun: a crash from now on may leave any part of it.
    pub(super) fn begin_write(&mut self, ino: Ino, off: u64, data: &[u8]) -> u64 {
        let ticket = self.fresh();
        let data = Rc::from(data);
        let op = Op::Write { off, data };
        self.inode(ino).in_flight.insert(ticket, op);
        ticket
    }

    /// Completes it. With `durable`, as under O_DSYNC.
    pub(super) fn end_write(&mut self, ino: Ino, ticket: u64, durable: bool) -> io::Result<()> {
        let op = self.inode(ino).in_flight.remove(&ticket);
        let op = op.expect("a write ends once");
        if let Op::Write { off, data } = &op {
            let end = off + data.len() as u64;
            if end > self.len(ino) {
                self.resize(ino, end)?;
            }
        }
        self.complete(ino, op, durable);
        Ok(())
    }

    /// Ends a write that failed or was cancelled: any part of it may have happened.
    pub(super) fn abort_write(&mut self, core: &Core, ino: Ino, ticket: u64) {
        let op = self.inode(ino).in_flight.remove(&ticket);
        let Some(Op::Write { off, data }) = op else {
            return;
        };
        let fate = Fate::any(core);
        for (i, sector) in data.chunks(SECTOR).enumerate() {
            let at = off + (i * SECTOR) as u64;
            let end = at + sector.len() as u64;
            let keep = fate == Fate::Whole || (fate == Fate::Torn && core.one_in(2));
            let fits = end <= self.len(ino) || (keep && self.resize(ino, end).is_ok());
            if keep && fits {
                let data = Rc::from(sector);
                self.complete(ino, Op::Write { off: at, data }, false);
            }
        }
    }

    fn complete(&mut self, ino: Ino, op: Op, durable: bool) {
        let seq = self.fresh();
        let i = self.inode(ino);
        apply(&mut i.now, &op);
        if durable {
            apply(&mut i.durable, &op);
        }
        if !durable || !i.pending.is_empty() {
            i.pending.push(Pending {
                seq,
                op,
                certain: durable,
            });
        }
    }

    pub(super) fn set_len(&mut self, ino: Ino, len: u64) -> io::Result<()> {
        self.resize(ino, len)?;
        self.complete(ino, Op::SetLen(len), false);
        Ok(())
    }

    /// What a sync that begins now will cover.
    pub(super) fn sync_point(&self) -> u64 {
        self.next
    }

    pub(super) fn sync(&mut self, ino: Ino, point: u64) {
        let i = self.inode(ino);
        let split = i.pending.partition_point(|p| p.seq < point);
        for p in i.pending.drain(..split) {
            apply(&mut i.durable, &p.op);
        }
    }

    /// A failed sync: each write it covered is durable or will never be.
    pub(super) fn sync_failed(&mut self, core: &Core, ino: Ino, point: u64) {
        let i = self.inode(ino);
        let split = i.pending.partition_point(|p| p.seq < point);
        for p in i.pending.drain(..split) {
            if p.certain || core.one_in(2) {
                apply(&mut i.durable, &p.op);
            }
        }
    }

    /// A sync of the whole file system that began at `point`. Where it fails, nothing is certain and nothing is lost:
    /// who writes directly, or syncs a file of their own, is told of their own bytes.
    pub(super) fn sync_all(&mut self, core: &Core, point: u64, random: bool) -> io::Result<()> {
        let inos: Vec<Ino> = self.inodes.keys().copied().collect();
        let fault = inos
            .iter()
            .find_map(|ino| self.fault(FaultOp::Sync, *ino))
            .or_else(|| random.then(|| errno(libc::EIO)));
        for ino in inos {
            if fault.is_none() || core.one_in(2) {
                self.sync(ino, point);
            }
        }
        if let Some(error) = fault {
            return Err(error);
        }
        for op in std::mem::take(&mut self.pending_names) {
            op.apply(&mut self.durable_names);
        }
        self.sweep();
        Ok(())
    }

    // ---- crash ----

    pub(super) fn crash(&mut self, core: &Core, policy: CrashPolicy) {
        self.life += 1;
        self.faults.clear();
        self.spike = (Duration::ZERO, Mono(0));
        let inos: Vec<Ino> = self.inodes.keys().copied().collect();
        match policy {
            CrashPolicy::Process => {
                for ino in inos {
                    let tickets: Vec<u64> = self.inode(ino).in_flight.keys().copied().collect();
                    for t in tickets {
                        self.abort_write(core, ino, t);
                    }
                }
            }
            CrashPolicy::Power { data, names } => {
                for ino in inos {
                    crash_inode(core, self.inode(ino), data);
                }
                for op in std::mem::take(&mut self.pending_names) {
                    let keep = match names {
                        Unsynced::Lost => false,
                        Unsynced::Kept => true,
                        Unsynced::Random | Unsynced::Garbage => core.one_in(2),
                    };
                    if keep {
                        op.apply(&mut self.durable_names);
                    }
                }
                self.names = self.durable_names.clone();
                self.drop_unreachable();
            }
        }
        for i in self.inodes.values_mut() {
            i.handles = 0;
            i.locked_by = None;
            i.shared_by.clear();
        }
        self.sweep();
    }

    /// A directory whose own entry was lost takes its content with it.
    fn drop_unreachable(&mut self) {
        let mut reached = BTreeSet::from([ROOT]);
        loop {
            let before = reached.len();
            for ((dir, _), e) in &self.names {
                if let (true, Entry::Dir(d)) = (reached.contains(dir), e) {
                    reached.insert(*d);
                }
            }
            if reached.len() == before {
                break;
            }
        }
        self.names.retain(|(dir, _), _| reached.contains(dir));
        self.durable_names = self.names.clone();
    }

    // ---- hooks ----

    pub(super) fn add_fault(&mut self, op: FaultOp, path: Option<PathBuf>, n: u32, errno: i32) {
        let ino = path.map(|p| self.file(&p).expect("a fault on a file that exists"));
        self.faults.push(Fault {
            op,
            ino,
            left: n,
            errno,
        });
    }

    /// The error this operation has to give, if any.
    pub(super) fn fault(&mut self, op: FaultOp, ino: Ino) -> Option<io::Error> {
        let f = self
            .faults
            .iter_mut()
            .find(|f| f.op == op && f.left > 0 && f.ino.is_none_or(|i| i == ino))?;
        f.left -= 1;
        let n = f.errno;
        self.faults.retain(|f| f.left > 0);
        Some(errno(n))
    }

    pub(super) fn clear_faults(&mut self) {
        self.faults.clear();
    }

    pub(super) fn set_spike(&mut self, extra: Duration, until: Mono) {
        self.spike = (extra, until);
    }

    pub(super) fn spike(&self, now: Mono) -> Duration {
        if now < self.spike.1 {
            self.spike.0
        } else {
            Duration::ZERO
        }
    }

    pub(super) fn set_capacity(&mut self, bytes: u64) {
        self.capacity = bytes;
    }

    pub(super) fn used(&mut self) -> u64 {
        self.recount();
        self.used
    }

    pub(super) fn refused(&self) -> u64 {
        self.refused
    }

    pub(super) fn space(&mut self) -> Space {
        self.recount();
        Space {
            total: self.capacity,
            free: self.capacity.saturating_sub(self.used),
            device: 0,
        }
    }

    pub(super) fn flip_bit(&mut self, path: &Path, byte: u64, bit: u8) {
        assert!(bit < 8, "a byte has eight bits");
        let ino = self.file(path).expect("the file to damage exists");
        let i = self.inode(ino);
        assert!(byte < i.now.len, "byte {byte} of {}", i.now.len);
        for c in [&mut i.now, &mut i.durable] {
            if byte < c.len {
                let old = c.read(byte, 1)[0];
                c.write(byte, &[old ^ (1 << bit)]);
            }
        }
    }

    pub(super) fn files(&self) -> Vec<PathBuf> {
        let mut out = Vec::new();
        let mut dirs = vec![(ROOT, PathBuf::from("/"))];
        while let Some((dir, path)) = dirs.pop() {
            for ((_, name), e) in self.children(dir) {
                let p = path.join(name);
                match e {
                    Entry::Dir(d) => dirs.push((d, p)),
                    Entry::File(_) => out.push(p),
                }
            }
        }
        out.sort();
        out
    }

    pub(super) fn read_raw(&self, path: &Path) -> Option<Vec<u8>> {
        let i = &self.inodes[&self.file(path).ok()?];
        Some(i.now.read(0, i.now.len as usize))
    }

    pub(super) fn read_durable(&self, path: &Path) -> Option<Vec<u8>> {
        let i = &self.inodes[&self.file(path).ok()?];
        Some(i.durable.read(0, i.durable.len as usize))
    }

    pub(super) fn write_raw(&mut self, path: &Path, content: &[u8]) {
        let mut at = PathBuf::from("/");
        let parts = Self::parts(path).expect("a plain path");
        for part in &parts[..parts.len() - 1] {
            at.push(part);
            if self.dir(&at).is_err() {
                self.create_dir(&at).expect("a directory can be made");
            }
        }
        let ino = match self.lookup(path).expect("a plain path") {
            Some(Entry::File(f)) => f,
            Some(Entry::Dir(_)) => panic!("{} is a directory", path.display()),
            None => self.create_file(path).expect("room on the disk"),
        };
        for op in std::mem::take(&mut self.pending_names) {
            op.apply(&mut self.durable_names);
        }
        let i = self.inode(ino);
        i.pending.clear();
        for c in [&mut i.now, &mut i.durable] {
            c.set_len(0);
            c.write(0, content);
        }
        self.recount();
    }
}

fn apply(c: &mut Content, op: &Op) {
    match op {
        Op::Write { off, data } => c.write(*off, data),
        Op::SetLen(len) => c.set_len(*len),
    }
}
