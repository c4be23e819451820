//! Owns the files of one journal: allocated and zero-filled before use, recycled for ever.
//! Does not know what is in a commit, nor when its bytes reach their segments.
//! Invariant: a file is handed out again only after `recycle` was told that nothing in it is needed.

use crate::plant::{self, Plant};
use crate::rt::{self, Class, DirectBuf, File, Mono, Notify, OpenOptions};
use crate::types::limits::IO_BYTES_MAX;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

/// Pause after each zeroed MiB while nobody waits for the file: journal flushes stay short.
const FILL_PAUSE: Duration = Duration::from_millis(2);
/// The part of the last file that appends may fill before they wait. Where they had none of it, all waited from the moment the
/// last but one was full, and a thousand partitions took 9 % less.
const APPENDED_PART_OF_LAST: u64 = 2;
const LOCK_RETRY: Duration = Duration::from_millis(20);
const LOCK_RETRIES: usize = 1_500;

#[derive(Clone, Debug)]
pub struct RingConfig {
    pub dir: PathBuf,
    /// Size of the very first file: small, so that a first start is quick.
    pub first_file_bytes: u64,
    pub file_bytes: u64,
    pub files_max: usize,
}

pub struct JournalFile {
    pub path: PathBuf,
    pub file: File,
    pub bytes: u64,
    last_sequence: Cell<u64>,
}

struct State {
    current: Option<Rc<JournalFile>>,
    position: u64,
    free: VecDeque<Rc<JournalFile>>,
    used: VecDeque<Rc<JournalFile>>,
    next_number: u64,
    starving: bool,
    /// When the current file began to be used, and how long the one before it was.
    began: Mono,
    fill_time: Duration,
}

pub struct Ring {
    config: RingConfig,
    state: RefCell<State>,
    room: Notify,
    wanted: Notify,
    /// Told when a file is full: its bytes should reach their segments.
    pub full: Notify,
    closed: Cell<bool>,
    /// Files beyond the bound that commits need on which the freeing of files itself depends.
    extra: Rc<Cell<usize>>,
    /// Whether the disk has room for more files than commits cannot do without.
    may_grow: Cell<bool>,
}

/// While held, the ring may grow past its bound rather than wait for files to be freed.
pub struct Urgent {
    files: usize,
    all: Rc<Cell<usize>>,
}

impl Drop for Urgent {
    fn drop(&mut self) {
        self.all.set(self.all.get() - self.files);
    }
}

impl RingConfig {
    /// Whether it is no first file that is smaller than the others.
    fn is_regular(&self, file: &JournalFile) -> bool {
        file.bytes >= self.file_bytes
    }
}

impl State {
    /// Files of the ring that count for its bound: a smaller first one is beside them until it is given back. As one of
    /// them it would come round with them, and be full when they have only begun.
    fn regular_files(&self, config: &RingConfig) -> usize {
        let files = self.used.iter().chain(&self.free).chain(&self.current);
        files.filter(|f| config.is_regular(f)).count()
    }
}

impl Ring {
    /// Somebody waits for `bytes` of entries to be committed, without which no file comes free.
    pub fn urgent(&self, bytes: u64) -> Urgent {
        // Counted from what there is: an earlier wait may have made the ring larger already, and then
        // what it waited for went wrong.
        let beyond = {
            let all = self.state.borrow().regular_files(&self.config);
            all.saturating_sub(self.config.files_max)
        };
        // A commit does not span files: each may leave as much unused as the largest one takes.
        let files = beyond + 2 + 2 * (bytes / self.config.file_bytes) as usize;
        self.extra.set(self.extra.get() + files);
        self.wanted.notify_all();
        Urgent {
            files,
            all: self.extra.clone(),
        }
    }

    /// Creates the directory and the first, small file.
    pub async fn create(config: RingConfig) -> io::Result<Ring> {
        assert!(config.files_max >= 2 && config.first_file_bytes <= config.file_bytes);
        rt::fs::create_dir_all(&config.dir).await?;
        let path = file_path(&config.dir, 0);
        let bytes = config.first_file_bytes;
        let file = fill(&path, bytes, || true).await?;
        rt::fs::sync_dir(&config.dir).await?;
        let first = Rc::new(JournalFile {
            path,
            file,
            bytes,
            last_sequence: Cell::new(0),
        });
        Ok(Ring {
            config,
            state: RefCell::new(State {
                current: None,
                position: 0,
                free: VecDeque::from([first]),
                used: VecDeque::new(),
                next_number: 1,
                starving: false,
                began: rt::now(),
                fill_time: Duration::ZERO,
            }),
            room: Notify::new(),
            wanted: Notify::new(),
            full: Notify::new(),
            closed: Cell::new(false),
            extra: Rc::new(Cell::new(0)),
            may_grow: Cell::new(true),
        })
    }

    /// Takes over a file of an earlier incarnation whose contents are dead, instead of filling a
    /// new one. False where it is of no use here: then it is the caller's to remove.
    pub async fn adopt(&self, old: &Path) -> io::Result<bool> {
        let file = open_locked(old, false).await?;
        let bytes = file.size().await?;
        let number = {
            let mut state = self.state.borrow_mut();
            let all = state.regular_files(&self.config);
            if bytes != self.config.file_bytes || all >= self.config.files_max {
                return Ok(false);
            }
            state.next_number += 1;
            state.next_number - 1
        };
        let path = file_path(&self.config.dir, number);
        rt::fs::rename(old, &path).await?;
        rt::fs::sync_dir(&self.config.dir).await?;
        let adopted = Rc::new(JournalFile {
            path,
            file,
            bytes,
            last_sequence: Cell::new(0),
        });
        self.state.borrow_mut().free.push_back(adopted);
        self.room.notify_all();
        Ok(true)
    }

    pub fn dir(&self) -> &Path {
        &self.config.dir
    }

    /// Largest commit that fits any regular file.
    pub fn commit_bytes_max(&self) -> usize {
        self.config.file_bytes as usize
    }

    /// Where the commit `sequence` of `bytes` goes; waits while every file is still needed. Whoever
    /// waits must not hold commits that are placed and not written.
    pub async fn place(&self, sequence: u64, bytes: u64) -> io::Result<(Rc<JournalFile>, u64)> {
        loop {
            if self.closed.get() {
                return Err(io::Error::other("the journal ring could not be extended"));
            }
            if let Some(place) = self.try_place(sequence, bytes) {
                return Ok(place);
            }
            self.state.borrow_mut().starving = true;
            self.wanted.notify_all();
            self.room.notified().await;
        }
    }

    /// The same without waiting: None where there is no room now.
    pub fn try_place(&self, sequence: u64, bytes: u64) -> Option<(Rc<JournalFile>, u64)> {
        assert!(bytes <= self.config.file_bytes);
        let mut state = self.state.borrow_mut();
        let position = state.position;
        if let Some(current) = state.current.clone() {
            if position + bytes <= current.bytes {
                current.last_sequence.set(sequence);
                state.position += bytes;
                return Some((current, position));
            }
            let now = rt::now();
            state.fill_time = now - state.began;
            state.began = now;
            state.used.push_back(current);
            state.current = None;
            self.full.notify_all();
        }
        let fits = state.free.iter().position(|f| f.bytes >= bytes)?;
        let next = state.free.remove(fits)?;
        next.last_sequence.set(sequence);
        state.current = Some(next.clone());
        state.position = bytes;
        state.starving = false;
        self.wanted.notify_all();
        Some((next, 0))
    }

    /// Whether appends should wait for a file to come free: every file the ring may have is in use, and what was appended,
    /// of which no file has `backlog` bytes yet, fills a part of the last one. The rest of it is for what the freeing of files
    /// itself has to commit.
    pub fn is_full(&self, backlog: usize) -> bool {
        if plant::active(Plant::AppendsUseExtraFiles) {
            return false;
        }
        let state = self.state.borrow();
        let filled = state.position + backlog as u64;
        let is_filled = |last: &Rc<JournalFile>| filled >= last.bytes / APPENDED_PART_OF_LAST;
        state.free.is_empty()
            && state.regular_files(&self.config) >= self.config.files_max
            && state.current.as_ref().is_none_or(is_filled)
    }

    /// How long the last full file took to fill; None where no other is ready for what comes next, so
    /// that there is no time to lose.
    pub fn leisure(&self) -> Option<Duration> {
        let state = self.state.borrow();
        (!state.free.is_empty() && !state.starving).then_some(state.fill_time)
    }

    /// Highest sequence of the oldest full file: what must reach its segments next.
    pub fn oldest_full(&self) -> Option<u64> {
        self.state
            .borrow()
            .used
            .front()
            .map(|f| f.last_sequence.get())
    }

    /// Gives back every full file whose commits are all at or below `sequence`.
    pub fn recycle(&self, sequence: u64) {
        let mut state = self.state.borrow_mut();
        while state
            .used
            .front()
            .is_some_and(|f| f.last_sequence.get() <= sequence)
        {
            let regular = state.regular_files(&self.config);
            let file = state.used.pop_front().expect("just seen");
            let spare = match self.config.is_regular(&file) {
                true => regular > self.config.files_max,
                false => regular >= self.config.files_max || !state.free.is_empty(),
            };
            if spare {
                // One too many, or the small first file: a plain drop closes it.
                rt::spawn(Class::Background, remove(file));
            } else {
                state.free.push_back(file);
            }
        }
        drop(state);
        self.room.notify_all();
    }

    /// Files this ring has, in bytes.
    pub fn bytes(&self) -> u64 {
        let state = self.state.borrow();
        state
            .current
            .iter()
            .chain(&state.free)
            .chain(&state.used)
            .map(|f| f.bytes)
            .sum()
    }

    /// Bytes of commits in files that were not given back yet.
    pub fn held_bytes(&self) -> u64 {
        let state = self.state.borrow();
        let current = state.current.as_ref().map_or(0, |_| state.position);
        state.used.iter().map(|f| f.bytes).sum::<u64>() + current
    }

    /// Says whether there is room on the disk to grow.
    pub fn allow_growth(&self, allowed: bool) {
        if allowed && !self.may_grow.get() {
            self.wanted.notify_all();
        }
        self.may_grow.set(allowed);
    }

    /// Keeps one zero-filled file ready while the ring may grow. Runs until `close`.
    pub async fn run_filler(self: Rc<Self>) {
        loop {
            if self.closed.get() {
                return;
            }
            let number = {
                let mut state = self.state.borrow_mut();
                let regular = |f: &Rc<JournalFile>| self.config.is_regular(f);
                let ready = state.free.iter().any(regular);
                let all = state.regular_files(&self.config);
                let extra = if state.starving { self.extra.get() } else { 0 };
                let none = !state.used.iter().chain(&state.current).any(regular);
                // Where the disk is full, only so that what is under way comes to its end.
                let may = self.may_grow.get() || (state.starving && (extra > 0 || none));
                (!ready && may && all < self.config.files_max + extra).then(|| {
                    state.next_number += 1;
                    state.next_number - 1
                })
            };
            let Some(number) = number else {
                self.wanted.notified().await;
                continue;
            };
            let path = file_path(&self.config.dir, number);
            let hurry = || self.state.borrow().starving || self.closed.get();
            match fill(&path, self.config.file_bytes, hurry).await {
                Ok(file) => {
                    let bytes = self.config.file_bytes;
                    let mut state = self.state.borrow_mut();
                    // The first file has done its work: it would take the place of one that holds more.
                    while let Some(at) = state.free.iter().position(|f| f.bytes < bytes) {
                        let small = state.free.remove(at).expect("just found");
                        rt::spawn(Class::Background, remove(small));
                    }
                    state.free.push_back(Rc::new(JournalFile {
                        path,
                        file,
                        bytes,
                        last_sequence: Cell::new(0),
                    }));
                }
                Err(error) => {
                    tracing::error!(path = %path.display(), %error, "cannot extend the journal");
                    // Half of it may be there, and would take room from what could still be moved.
                    self.remove_torso(&path).await;
                    let stuck = {
                        let state = self.state.borrow();
                        state.free.is_empty() && state.used.is_empty() && state.starving
                    };
                    if stuck {
                        self.closed.set(true);
                    } else {
                        rt::sleep(Duration::from_secs(1)).await;
                    }
                }
            }
            self.room.notify_all();
        }
    }

    async fn remove_torso(&self, path: &Path) {
        match rt::fs::remove_file(path).await {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "cannot remove half a journal file")
            }
        }
    }

    pub fn start_filler(self: &Rc<Self>) {
        rt::spawn(Class::Background, self.clone().run_filler());
    }

    pub fn close(&self) {
        self.closed.set(true);
        self.wanted.notify_all();
        self.room.notify_all();
    }
}

async fn remove(file: Rc<JournalFile>) {
    if let Err(error) = rt::fs::remove_file(&file.path).await {
        tracing::warn!(path = %file.path.display(), %error, "cannot remove a spare journal file");
    }
}

fn file_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:06}.journal"))
}

/// Opens a journal file for direct I/O and takes its lock. Waits for a killed process's I/O, which
/// holds the lock through its own descriptor until the kernel is done with it.
pub async fn open_locked(path: &Path, create: bool) -> io::Result<File> {
    open_with_lock(path, create, false).await
}

/// The same to read what an earlier incarnation left, beside the other shards of this one.
pub async fn open_to_recover(path: &Path) -> io::Result<File> {
    open_with_lock(path, false, true).await
}

async fn open_with_lock(path: &Path, create: bool, shared: bool) -> io::Result<File> {
    let options = OpenOptions::new().read(true).write(true).create(create);
    let file = File::open(path, options).await?;
    for _ in 0..LOCK_RETRIES {
        let locked = match shared {
            true => file.try_lock_shared().await?,
            false => file.try_lock().await?,
        };
        if locked {
            return Ok(file);
        }
        rt::sleep(LOCK_RETRY).await;
    }
    Err(io::Error::new(
        io::ErrorKind::WouldBlock,
        format!(
            "{} is locked by another process: stop that broker first",
            path.display()
        ),
    ))
}

/// Writes zeros over the whole file, so that later overwrites need no file-system metadata.
async fn fill(path: &Path, bytes: u64, hurry: impl Fn() -> bool) -> io::Result<File> {
    let file = open_locked(path, true).await?;
    file.allocate(bytes).await?;
    let mut zeros = DirectBuf::with_len(IO_BYTES_MAX.min(bytes as usize));
    zeros.fill(0);
    let zeros = Rc::new(zeros);
    let mut position = 0;
    while position < bytes {
        assert_eq!(bytes % zeros.len() as u64, 0, "journal files are whole MiB");
        file.write_at(zeros.clone(), position).await?;
        position += zeros.len() as u64;
        if !hurry() {
            rt::sleep(FILL_PAUSE).await;
        }
    }
    file.sync().await?;
    // The name has to survive as well: the first commit's flush covers only the bytes.
    if let Some(dir) = path.parent() {
        rt::fs::sync_dir(dir).await?;
    }
    Ok(file)
}
