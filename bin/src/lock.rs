//! Owns the lock of the data directory: one process at a time, told apart by its id in the file.
//! Does not know what is in the directory besides the file `LOCK`.
//! Invariant: the lock lives exactly as long as this process holds the value (or lives).

use crate::dirs;
use crate::failure::Failure;
use std::fs::{File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long the kernel may take to clean up behind a holder that was killed: I/O under way ends first.
const DEAD_HOLDER_WAIT: Duration = Duration::from_secs(10);
const DEAD_HOLDER_POLL: Duration = Duration::from_millis(20);

/// Name of the lock file in the data directory.
pub const FILE: &str = "LOCK";

/// Held for as long as the process serves.
#[derive(Debug)]
pub struct DirLock {
    _file: File,
}

/// Who holds a lock, as far as the file tells.
#[derive(Debug)]
pub enum Held {
    By(u32),
    BySomeone,
}

/// Creates the directory where needed and locks it.
pub fn acquire(dir: &Path) -> Result<DirLock, Failure> {
    dirs::create(dir).map_err(|error| {
        Failure::new(format!(
            "cannot create the data directory {}: {error}",
            dir.display()
        ))
        .todo("Create it for this user, or name another one with --data-dir.")
    })?;
    let failed = |error: io::Error| {
        Failure::new(format!("cannot lock the data directory {}: {error}", dir.display()))
            .todo("Check that this user may write there, and that its file system has locks (NFS may not).")
    };
    let deadline = Instant::now() + DEAD_HOLDER_WAIT;
    loop {
        match try_acquire(dir).map_err(failed)? {
            Ok(lock) => return Ok(lock),
            Err(Held::By(pid)) if is_alive(pid) => {
                return Err(refused(dir, &format!("process {pid}")))
            }
            Err(_) if Instant::now() >= deadline => return Err(refused(dir, "another process")),
            Err(_) => std::thread::sleep(DEAD_HOLDER_POLL),
        }
    }
}

fn refused(dir: &Path, who: &str) -> Failure {
    Failure::new(format!(
        "the data directory {} is in use by {who}",
        dir.display()
    ))
    .todo("Stop that broker first, or give this one another --data-dir.")
}

fn try_acquire(dir: &Path) -> io::Result<Result<DirLock, Held>> {
    let mut options = std::fs::OpenOptions::new();
    let mut file = options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(dir.join(FILE))?;
    match file.try_lock() {
        Ok(()) => {
            file.set_len(0)?;
            file.rewind()?;
            writeln!(file, "{}", std::process::id())?;
            Ok(Ok(DirLock { _file: file }))
        }
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            (&file).take(32).read_to_string(&mut text)?;
            Ok(Err(text.trim().parse().map_or(Held::BySomeone, Held::By)))
        }
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Who holds the lock, without taking it for longer than the question; creates nothing.
pub fn holder(dir: &Path) -> io::Result<Option<Held>> {
    let mut file = match File::open(dir.join(FILE)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(None),
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            (&mut file).take(32).read_to_string(&mut text)?;
            Ok(Some(text.trim().parse().map_or(Held::BySomeone, Held::By)))
        }
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn is_alive(pid: u32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else {
        // Gone, or hidden from us: then the lock itself says before long whether it is held.
        return false;
    };
    // The state follows the name in parentheses; a zombie holds nothing any more.
    stat.rsplit_once(')').is_some_and(|(_, rest)| {
        !matches!(rest.trim_start().chars().next(), None | Some('Z' | 'X'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_refused_until_the_first_lets_go() {
        let dir = std::env::temp_dir().join(format!("millrace-lock-{}", std::process::id()));
        let first = acquire(&dir).unwrap();
        let message = acquire(&dir).unwrap_err().to_string();
        assert!(
            message.contains(&format!("in use by process {}", std::process::id())),
            "{message}"
        );
        assert!(matches!(holder(&dir).unwrap(), Some(Held::By(pid)) if pid == std::process::id()));
        drop(first);
        assert!(holder(&dir).unwrap().is_none());
        drop(acquire(&dir).unwrap());
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn this_process_is_alive_and_an_impossible_one_is_not() {
        assert!(is_alive(std::process::id()));
        assert!(!is_alive(u32::MAX));
    }
}
