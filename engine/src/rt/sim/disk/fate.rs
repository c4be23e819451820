//! Owns what a power loss does to the unsynced operations of one file.
//! Does not know names, handles or time.
//! Invariant: what was synced or written through is untouched, whatever the policy.

use super::{Content, Core, Inode, Op, Unsynced, SECTOR};

/// How far an operation had come when the power went.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Submitted only.
    UnderWay,
    /// Completed, not synced.
    Done,
    /// Written through.
    Certain,
}

/// Decides, for each operation and each sector of it, what the platter got. Lengths change in order (file systems
/// journal them), so a prefix of those survives; data does in any combination.
pub(super) fn crash_inode(core: &Core, i: &mut Inode, policy: Unsynced) {
    let done = i.pending.drain(..).map(|p| match p.certain {
        true => (p.op, Stage::Certain),
        false => (p.op, Stage::Done),
    });
    let mut ops: Vec<(Op, Stage)> = done.collect();
    let under_way = std::mem::take(&mut i.in_flight).into_values();
    ops.extend(under_way.map(|op| (op, Stage::UnderWay)));

    let lengths = ops.iter().filter(|(op, _)| matches!(op, Op::SetLen(_)));
    let lengths = lengths.count() as u64;
    let keep_lengths = match policy {
        Unsynced::Lost => 0,
        Unsynced::Kept => lengths,
        Unsynced::Random | Unsynced::Garbage => core.below(lengths + 1),
    };
    let mut length = 0;
    for (op, stage) in ops {
        match op {
            Op::SetLen(len) => {
                length += 1;
                if length <= keep_lengths {
                    i.durable.set_len(len);
                }
            }
            Op::Write { off, data } => {
                let fate = match (policy, stage) {
                    (_, Stage::Certain) | (Unsynced::Kept, Stage::Done) => Fate::Whole,
                    (Unsynced::Lost, Stage::Done | Stage::UnderWay) => Fate::Lost,
                    (Unsynced::Kept | Unsynced::Random | Unsynced::Garbage, _) => Fate::any(core),
                };
                let garbage = policy == Unsynced::Garbage && fate == Fate::Torn;
                write_fate(core, &mut i.durable, off, &data, fate, garbage);
            }
        }
    }
    i.now = i.durable.clone();
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Lost,
    Whole,
    /// Each sector by itself.
    Torn,
}

impl Fate {
    pub(super) fn any(core: &Core) -> Fate {
        [Fate::Lost, Fate::Whole, Fate::Torn][core.below(3) as usize]
    }
}

fn write_fate(core: &Core, to: &mut Content, off: u64, data: &[u8], fate: Fate, garbage: bool) {
    for (n, sector) in data.chunks(SECTOR).enumerate() {
        let at = off + (n * SECTOR) as u64;
        if garbage && core.one_in(8) {
            let noise: Vec<u8> = sector.iter().map(|_| core.random() as u8).collect();
            to.write(at, &noise);
        } else if fate == Fate::Whole || (fate == Fate::Torn && core.one_in(2)) {
            to.write(at, sector);
        }
    }
}
