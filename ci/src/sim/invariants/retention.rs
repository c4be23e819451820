//! Owns: retention deletes nothing that it was not asked to delete.
//! Does not know segments; what is due may stay for a while.
//! Invariant checked: what is gone, and nobody deleted, was older than any `retention.ms` that the topic ever had, or had
//! at least any `retention.bytes` behind it; and where only size counts, that much is left.

use super::{Check, Violation};
use crate::sim::model::{Model, Place};

const NAME: &str = "retention deletes only what is due";

/// `start` is the log start that somebody was told; `wall_ms` the latest time that the broker can have seen.
pub fn on_start(model: &Model, place: Place, start: i64, wall_ms: i64) -> Check {
    let (Some(topic), Some(partition)) =
        (model.topics.get(&place.topic), model.partitions.get(&place))
    else {
        return Ok(());
    };
    let from = partition.bounds.log_start.max(partition.delete_asked);
    if !topic.retention.is_set() || start <= from {
        return Ok(());
    }
    let mut behind = partition.sent_bytes;
    for (base, stored) in partition.known.range(..start) {
        let Some(sent) = model.sent.get(&stored.tag) else {
            continue;
        };
        behind = behind.saturating_sub(sent.bytes);
        if *base < from {
            continue;
        }
        let newest = sent.newest(topic.stamped);
        let age = newest.map(|newest| wall_ms.saturating_sub(newest));
        // What nobody saw the time of may have any.
        let old = age.is_none_or(|age| {
            let over = |keep: u64| u64::try_from(age).is_ok_and(|age| age > keep);
            topic.retention.ms.is_some_and(over)
        });
        let large = topic.retention.bytes.is_some_and(|keep| behind >= keep);
        if !old && !large {
            let what = format!(
                "{place}: the log begins at {start}; the batch at {base}, {age:?} ms old and with at most {behind} \
                 bytes behind it, is gone: {:?}",
                topic.retention
            );
            return Err(Violation::new(NAME, what));
        }
    }
    Ok(())
}

/// After everything from `start` on was read: what is left is known to the byte.
pub fn on_whole(model: &Model, place: Place, start: i64) -> Check {
    let (Some(topic), Some(partition)) =
        (model.topics.get(&place.topic), model.partitions.get(&place))
    else {
        return Ok(());
    };
    let (None, Some(keep)) = (topic.retention.ms, topic.retention.bytes) else {
        return Ok(());
    };
    if start <= partition.delete_asked {
        return Ok(());
    }
    let (mut known, mut kept) = (0, 0);
    for (base, stored) in &partition.known {
        let bytes = model.sent.get(&stored.tag).map_or(0, |sent| sent.bytes);
        known += bytes;
        if *base >= start {
            kept += bytes;
        }
    }
    // What was sent and never seen may have been behind what was deleted, and lost in a crash before it was durable.
    let unseen = partition.sent_bytes.saturating_sub(known);
    if kept + unseen < keep {
        let what = format!(
            "{place}: the log begins at {start} and has {kept} bytes, with at most {unseen} lost: {:?}",
            topic.retention
        );
        return Err(Violation::new(NAME, what));
    }
    Ok(())
}
