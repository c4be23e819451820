//! Owns whose a partition's folder is: the file in it that says so, and where a folder goes that is nobody's.
//! Does not know segments.
//! Invariant: nothing unknown is deleted, and no partition begins among the files of another one.

use super::Partition;
use crate::adopt::source::topic_id;
use crate::rt;
use crate::types::TopicId;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// Folder below the data directory that takes what is set aside.
const ASIDE: &str = "set-aside";
const IDENTITY: &str = "partition.metadata";
const IDENTITY_BYTES_MAX: u64 = 4096;

impl Partition {
    /// Makes the folder for a new segment. A crash may have come between the deletion of a topic and the removal of its
    /// folders: the one of a topic with the same name is moved away, unless something in it is known to be ours.
    pub(super) async fn claim_folder(&self) -> io::Result<()> {
        if self.folder_claimed.get() {
            return Ok(());
        }
        if self.begins() {
            rt::fs::create_dir_all(&self.dir).await?;
            if owner(&self.dir)
                .await?
                .is_some_and(|id| id != self.id.topic)
            {
                move_aside(&self.dir).await?;
                rt::fs::create_dir_all(&self.dir).await?;
            }
            // Also where all of it is there: a crash may have come before it was durable.
            let path = self.dir.join(IDENTITY);
            rt::fs::write_atomic(&path, &self.identity()).await?;
            rt::fs::sync_dir(parent(&self.dir)).await?;
        }
        self.folder_claimed.set(true);
        Ok(())
    }

    /// Whether nothing of the log is on disk.
    fn begins(&self) -> bool {
        let log = self.log.borrow();
        log.segments.iter().all(|s| s.disk_bytes == 0)
    }

    fn identity(&self) -> Vec<u8> {
        format!("version: 0\ntopic_id: {}\n", self.id.topic).into_bytes()
    }
}

/// Makes the folders of more than `each_max` partitions that are about to get their first segments, with one sync for all.
/// Fewer, and those that meet something in their place, are left to the claim of each by itself.
pub async fn claim_folders(group: &[Rc<Partition>], each_max: usize) -> io::Result<()> {
    let is_new = |p: &&Rc<Partition>| {
        !p.folder_claimed.get() && p.begins() && p.log.borrow().first_unflushed().is_some()
    };
    let new: Vec<&Rc<Partition>> = group.iter().filter(is_new).collect();
    if new.len() <= each_max {
        return Ok(());
    }
    let mut held = Vec::with_capacity(new.len());
    for partition in new {
        let lock = partition.files_lock.acquire(1).await;
        if !partition.deleted.get() {
            held.push((partition, lock));
        }
    }
    let identities = held
        .iter()
        .map(|(p, _)| (p.dir.join(IDENTITY), p.identity()));
    let identities: Vec<(PathBuf, Vec<u8>)> = identities.collect();
    let Some((first, _)) = held.first() else {
        return Ok(());
    };
    let created = rt::fs::create_missing(&identities).await?;
    rt::fs::sync_file_system(parent(&first.dir)).await?;
    for ((partition, _), created) in held.iter().zip(created) {
        partition.folder_claimed.set(created);
    }
    Ok(())
}

fn parent(dir: &Path) -> &Path {
    dir.parent().expect("a folder below topics/")
}

/// The topic that a partition's folder says it is of; none where it says nothing.
pub async fn owner(dir: &Path) -> io::Result<Option<TopicId>> {
    match rt::fs::read(&dir.join(IDENTITY), IDENTITY_BYTES_MAX).await {
        // What is damaged names nobody.
        Ok(bytes) => Ok(topic_id(&bytes).ok()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Moves a folder out of `topics/`, durably.
pub async fn move_aside(from: &Path) -> io::Result<()> {
    let topics = parent(from);
    let data_dir = topics.parent().expect("topics/ is in the data directory");
    let name = from.file_name().expect("a folder's name").to_string_lossy();
    let aside = data_dir.join(ASIDE);
    rt::fs::create_dir_all(&aside).await?;
    let mut to: PathBuf = aside.join(&*name);
    let mut copies = 1;
    while rt::fs::exists(&to).await? {
        copies += 1;
        to = aside.join(format!("{name}.{copies}"));
    }
    rt::fs::rename(from, &to).await?;
    tracing::warn!(
        from = %from.display(),
        to = %to.display(),
        "belongs to no topic: set aside, not served; `millrace adopt` takes Kafka's log directories in"
    );
    rt::fs::sync_dir(&aside).await?;
    rt::fs::sync_dir(topics).await
}
