//! Owns what a start does with folders under `topics/` that belong to no partition.
//! Does not know segments. Invariant: nothing unknown is served, and nothing unknown is deleted.

use crate::inspect::verify::partition_of;
use crate::log::folder::move_aside;
use crate::meta::Image;
use crate::rt;
use std::io;
use std::path::Path;

/// Moves every unknown folder out of `topics/`. Deleted partitions whose removal a crash cut short
/// are removed.
pub async fn set_aside(data_dir: &Path, image: &Image) -> io::Result<()> {
    let topics = data_dir.join("topics");
    for entry in rt::fs::list_dir(&topics).await? {
        if partition_of(image, &entry.name).is_some() {
            continue;
        }
        let from = topics.join(&entry.name);
        if is_deleted(&entry.name) {
            rt::fs::remove_dir_all(&from).await?;
            continue;
        }
        move_aside(&from).await?;
    }
    Ok(())
}

/// `<topic>-<partition>.<topic id>-delete`, as `deleted_dir` names them.
fn is_deleted(name: &str) -> bool {
    let id = name
        .strip_suffix("-delete")
        .and_then(|rest| rest.rsplit_once('.'));
    id.is_some_and(|(_, id)| crate::meta::id_text::parse(id).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::TopicId;

    #[test]
    fn only_our_own_deleted_partitions_count_as_deleted() {
        let id = TopicId([5; 16]);
        assert!(is_deleted(&format!("a.b-0.{id}-delete")));
        for name in ["a-delete", "a-0.x-delete", "orders-0"] {
            assert!(!is_deleted(name), "{name}");
        }
    }
}
