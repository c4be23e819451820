//! Tests of files and directories, on both runtimes.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::rc::Rc;

use super::super::{fs, join_all, DirectBuf, File, OpenOptions, BLOCK};
use super::{both, filled, pattern};

fn rw() -> OpenOptions {
    OpenOptions::new().read(true).write(true)
}

#[test]
fn write_sync_read() {
    both("write_sync_read", |dir| async move {
        let path = dir.join("a");
        let f = File::open(&path, rw().create_new(true)).await.unwrap();
        let again = File::open(&path, rw().create_new(true)).await;
        assert_eq!(again.unwrap_err().kind(), ErrorKind::AlreadyExists);

        let buf = filled(2 * BLOCK, 7);
        f.write_at(buf.clone(), 0).await.unwrap();
        f.write_at(filled(BLOCK, 8), 2 * BLOCK as u64)
            .await
            .unwrap();
        f.sync().await.unwrap();
        assert_eq!(
            Rc::strong_count(&buf),
            1,
            "the buffer is the caller's again"
        );
        assert_eq!(f.size().await.unwrap(), 3 * BLOCK as u64);

        let got = f.read_at(BLOCK as u64, 2 * BLOCK).await.unwrap();
        let copy = got.clone();
        drop(got);
        assert!(copy[..BLOCK].iter().all(|b| *b == 7));
        assert!(copy[BLOCK..].iter().all(|b| *b == 8));
        f.close().await.unwrap();

        let missing = File::open(&dir.join("b"), OpenOptions::new().read(true)).await;
        assert_eq!(missing.unwrap_err().kind(), ErrorKind::NotFound);
    });
}

#[test]
fn a_write_and_its_flush_in_one_go() {
    both("write_synced", |dir| async move {
        let path = dir.join("a");
        let f = File::open(&path, rw().create_new(true)).await.unwrap();
        // More at once than the runtime has threads for.
        let bufs: Vec<Rc<DirectBuf>> = (0..6).map(|n| filled(BLOCK, n)).collect();
        let places = (0..).map(|n| n * BLOCK as u64);
        let writes = places.zip(&bufs);
        let writes = writes.map(|(at, buf)| f.write_synced(buf.clone(), at));
        for written in join_all(writes).await {
            written.unwrap();
        }
        for (n, buf) in bufs.iter().enumerate() {
            assert_eq!(Rc::strong_count(buf), 1, "it is the caller's again");
            let got = f.read_at((n * BLOCK) as u64, BLOCK).await.unwrap();
            assert!(got.iter().all(|b| usize::from(*b) == n));
        }

        // Nobody waits for the end of this one, and the file goes, too.
        let gone = File::open(&path, rw()).await.unwrap();
        let mut writing = Box::pin(gone.write_synced(filled(BLOCK, 9), 0));
        let done = futures_lite::future::poll_once(writing.as_mut()).await;
        assert!(done.is_none());
        drop(writing);
        drop(gone);
        f.write_synced(filled(BLOCK, 7), BLOCK as u64)
            .await
            .unwrap();
        let got = f.read_at(0, 2 * BLOCK).await.unwrap();
        assert!(got[..BLOCK].iter().all(|b| *b == 9 || *b == 0));
        assert!(got[BLOCK..].iter().all(|b| *b == 7));

        let reading = OpenOptions::new().read(true);
        let reading = File::open(&path, reading).await.unwrap();
        let refused = reading.write_synced(filled(BLOCK, 1), 0).await;
        assert_eq!(refused.unwrap_err().raw_os_error(), Some(libc::EBADF));
    });
}

#[test]
fn reads_are_short_only_at_the_end() {
    both("short_reads", |dir| async move {
        let f = File::open(&dir.join("a"), rw().create(true)).await.unwrap();
        f.write_at(filled(3 * BLOCK, 1), 0).await.unwrap();
        f.truncate(2 * BLOCK as u64 + 100).await.unwrap();
        let at = |n: usize| (n * BLOCK) as u64;
        assert_eq!(f.read_at(at(0), 4 * BLOCK).await.unwrap().len(), 8292);
        assert_eq!(f.read_at(at(2), BLOCK).await.unwrap().len(), 100);
        assert_eq!(f.read_at(at(5), BLOCK).await.unwrap().len(), 0);
        f.truncate(at(3)).await.unwrap();
        let tail = f.read_at(at(2), BLOCK).await.unwrap();
        assert!(tail[..100].iter().all(|b| *b == 1));
        assert!(tail[100..].iter().all(|b| *b == 0));
        assert_eq!(tail.len(), BLOCK);
    });
}

#[test]
fn allocate_extends_with_zeros() {
    both("allocate", |dir| async move {
        let f = File::open(&dir.join("a"), rw().create(true)).await.unwrap();
        f.write_at(filled(BLOCK, 5), 0).await.unwrap();
        f.allocate(16 * BLOCK as u64).await.unwrap();
        assert_eq!(f.size().await.unwrap(), 16 * BLOCK as u64);
        f.allocate(BLOCK as u64).await.unwrap();
        assert_eq!(f.size().await.unwrap(), 16 * BLOCK as u64);
        let b = f.read_at(0, 16 * BLOCK).await.unwrap();
        assert!(b[..BLOCK].iter().all(|b| *b == 5));
        assert!(b[BLOCK..].iter().all(|b| *b == 0));
    });
}

#[test]
fn long_reads_are_assembled() {
    both("long_reads", |dir| async move {
        let len = (2 << 20) + 3 * BLOCK;
        let f = File::open(&dir.join("a"), rw().create(true)).await.unwrap();
        let mut buf = DirectBuf::with_len(len);
        buf.copy_from_slice(&pattern(len));
        f.write_at(Rc::new(buf), 0).await.unwrap();
        assert_eq!(f.read_at(0, len).await.unwrap()[..], pattern(len)[..]);
        // Asking for more than there is gives what there is.
        let more = f.read_at(BLOCK as u64, len + (1 << 20)).await.unwrap();
        assert_eq!(more[..], pattern(len)[BLOCK..]);
    });
}

#[test]
fn many_writes_at_once() {
    both("many_writes", |dir| async move {
        let f = File::open(&dir.join("a"), rw().create(true)).await.unwrap();
        let tasks: Vec<_> = (0..32u8)
            .map(|i| {
                let f = f.clone();
                super::super::spawn_joined(super::super::Class::Storage, async move {
                    let at = u64::from(i) * BLOCK as u64;
                    f.write_at(filled(BLOCK, i), at).await
                })
            })
            .collect();
        for t in tasks {
            t.await.unwrap();
        }
        f.sync().await.unwrap();
        let all = f.read_at(0, 32 * BLOCK).await.unwrap();
        for (i, block) in all.chunks(BLOCK).enumerate() {
            assert!(block.iter().all(|b| *b == i as u8));
        }
    });
}

#[test]
fn written_through() {
    both("dsync", |dir| async move {
        let o = rw().create(true).direct_sync(true);
        let f = File::open(&dir.join("a"), o).await.unwrap();
        f.write_at(filled(BLOCK, 3), 0).await.unwrap();
        assert_eq!(f.read_at(0, BLOCK).await.unwrap()[..], [3; BLOCK]);
    });
}

#[test]
fn locks_belong_to_the_descriptor() {
    both("locks", |dir| async move {
        let path = dir.join("lock");
        let a = File::open(&path, rw().create(true)).await.unwrap();
        let b = File::open(&path, rw()).await.unwrap();
        assert!(a.try_lock().await.unwrap());
        assert!(a.try_lock().await.unwrap(), "it has it already");
        assert!(!b.try_lock().await.unwrap());
        let clone = a.clone();
        a.close().await.unwrap();
        assert!(!b.try_lock().await.unwrap(), "a clone is still open");
        clone.close().await.unwrap();
        assert!(b.try_lock_shared().await.unwrap());
        let c = File::open(&path, rw()).await.unwrap();
        assert!(c.try_lock_shared().await.unwrap(), "both only look");
        assert!(!c.try_lock().await.unwrap());
        b.close().await.unwrap();
        assert!(c.try_lock().await.unwrap());
        let d = File::open(&path, rw()).await.unwrap();
        assert!(!d.try_lock_shared().await.unwrap());
    });
}

#[test]
fn an_unlinked_file_stays_usable() {
    both("unlinked", |dir| async move {
        let path = dir.join("a");
        let f = File::open(&path, rw().create(true)).await.unwrap();
        f.write_at(filled(BLOCK, 9), 0).await.unwrap();
        fs::remove_file(&path).await.unwrap();
        assert!(!fs::exists(&path).await.unwrap());
        assert_eq!(f.read_at(0, BLOCK).await.unwrap()[..], [9; BLOCK]);
        assert_eq!(f.size().await.unwrap(), BLOCK as u64);
    });
}

#[test]
fn small_files() {
    both("small_files", |dir| async move {
        let p = dir.join("meta");
        fs::write_atomic(&p, b"one").await.unwrap();
        fs::write_atomic(&p, b"second").await.unwrap();
        assert_eq!(fs::read(&p, 6).await.unwrap(), b"second");
        let e = fs::read(&p, 5).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::FileTooLarge);

        let log = dir.join("log");
        fs::append_sync(&log, b"abc").await.unwrap();
        fs::append_sync(&log, b"defg").await.unwrap();
        assert_eq!(fs::read(&log, 100).await.unwrap(), b"abcdefg");
        fs::truncate_sync(&log, 4).await.unwrap();
        fs::append_sync(&log, b"!").await.unwrap();
        assert_eq!(fs::read(&log, 100).await.unwrap(), b"abcd!");
        let e = fs::truncate_sync(&dir.join("no"), 4).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::NotFound);
        let space = fs::space(&dir).await.unwrap();
        assert!(space.free > 0 && space.free <= space.total, "{space:?}");
    });
}

#[test]
fn missing_files_are_created_and_others_left() {
    both("missing_files", |dir| async move {
        let paths = [dir.join("a/b/one"), dir.join("a/two"), dir.join("three")];
        fs::write_atomic(&paths[2], b"there").await.unwrap();
        let files = paths.clone().map(|path| (path, b"new".to_vec()));
        let created = fs::create_missing(&files).await.unwrap();
        assert_eq!(created, [true, true, false]);
        fs::sync_file_system(&dir).await.unwrap();
        for (path, content) in paths.iter().zip(["new", "new", "there"]) {
            assert_eq!(fs::read(path, 9).await.unwrap(), content.as_bytes());
        }
        let below_a_file = (paths[2].join("x"), Vec::new());
        assert!(fs::create_missing(&[below_a_file]).await.is_err());
    });
}

#[test]
fn directories() {
    both("directories", |dir| async move {
        let sub = dir.join("x/y");
        fs::create_dir_all(&sub).await.unwrap();
        fs::create_dir_all(&sub).await.unwrap();
        fs::write_atomic(&sub.join("f"), b"12345").await.unwrap();
        fs::rename(&sub.join("f"), &dir.join("g")).await.unwrap();
        fs::sync_dir(&dir).await.unwrap();
        let seen = |v: Vec<fs::DirEntry>| -> Vec<(String, bool, u64)> {
            v.into_iter().map(|e| (e.name, e.is_dir, e.len)).collect()
        };
        assert_eq!(
            seen(fs::list_dir(&dir).await.unwrap()),
            [("g".into(), false, 5), ("x".into(), true, 0)]
        );
        assert_eq!(seen(fs::list_dir(&sub).await.unwrap()), []);
        fs::write_atomic(&sub.join("f"), b"1").await.unwrap();
        // A directory moves with what is in it.
        fs::rename(&dir.join("x"), &dir.join("z")).await.unwrap();
        assert!(fs::exists(&dir.join("z/y/f")).await.unwrap());
        fs::remove_dir_all(&dir.join("z")).await.unwrap();
        assert!(!fs::exists(&dir.join("z")).await.unwrap());
        let e = fs::list_dir(&dir.join("z")).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::NotFound);
        fs::remove_file(&dir.join("g")).await.unwrap();
        let e = fs::remove_file(&dir.join("g")).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::NotFound);
    });
}

#[test]
fn open_refuses_nonsense() {
    both("nonsense", |dir| async move {
        let create_only = OpenOptions::new().read(true).create(true);
        let e = File::open(&dir.join("a"), create_only).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::InvalidInput);
        let none: PathBuf = dir.join("missing/a");
        let e = File::open(&none, rw().create(true)).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::NotFound);
    });
}

#[test]
fn a_whole_file_system_is_synced() {
    both("sync_file_system", |dir| async move {
        fs::sync_file_system(&dir).await.unwrap();
        let missing = fs::sync_file_system(&dir.join("missing")).await;
        assert_eq!(missing.unwrap_err().kind(), ErrorKind::NotFound);
    });
}
