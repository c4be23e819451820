//! Owns creating the directories that a broker is told to keep its files in.
//! Does not know what goes into them; the engine makes everything below durable itself.
//! Invariant: a directory's name is durable when it is given to the engine, so that a power loss cannot take with the
//! name what was acknowledged below it.

use std::io;
use std::path::Path;

/// Creates a directory and what is missing above it, durably.
pub fn create(path: &Path) -> io::Result<()> {
    create_and(path, &mut |dir| std::fs::File::open(dir)?.sync_all())
}

/// `sync` makes the names in a directory durable.
fn create_and(path: &Path, sync: &mut impl FnMut(&Path) -> io::Result<()>) -> io::Result<()> {
    let path = std::path::absolute(path)?;
    let Some(parent) = path.parent() else {
        return Ok(());
    };
    let missing = match std::fs::create_dir(&path) {
        Ok(()) => true,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            create_and(parent, sync)?;
            match std::fs::create_dir(&path) {
                // Another process was faster.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
                created => created?,
            }
            true
        }
        Err(_) if path.is_dir() => false,
        Err(error) => return Err(error),
    };
    match sync(parent) {
        // Somebody with more rights made it, not a start of ours that was cut short before this.
        Err(error) if !missing && error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        synced => synced,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_new_name_is_made_durable_in_its_parent_and_an_old_one_again() {
        let root = std::env::temp_dir().join(format!("millrace-dirs-{}", std::process::id()));
        let dir = root.join("a/b/c");
        let mut synced = Vec::new();
        create_and(&dir, &mut |parent| {
            assert!(parent.is_dir());
            synced.push(parent.to_owned());
            Ok(())
        })
        .unwrap();
        let expected = [
            root.parent().unwrap(),
            &root,
            &root.join("a"),
            &root.join("a/b"),
        ];
        assert_eq!(synced, expected);
        assert!(dir.is_dir());

        // The start that made it may have been killed before it could make it durable.
        let mut synced = Vec::new();
        create_and(&dir, &mut |parent| {
            synced.push(parent.to_owned());
            Ok(())
        })
        .unwrap();
        assert_eq!(synced, [root.join("a/b")]);

        let denied = |_: &Path| Err(io::ErrorKind::PermissionDenied.into());
        create_and(&dir, &mut { denied }).unwrap();
        create_and(&root.join("new"), &mut { denied }).unwrap_err();
        let full = |_: &Path| Err(io::ErrorKind::StorageFull.into());
        create_and(&dir, &mut { full }).unwrap_err();
        std::fs::write(root.join("file"), "x").unwrap();
        create(&root.join("file")).unwrap_err();
        create(&root.join("file/below")).unwrap_err();
        create(&dir.join("real")).unwrap();
        std::fs::remove_dir_all(&root).unwrap();
    }
}
