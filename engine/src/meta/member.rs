//! One member of the metadata group without I/O: raft decides, the machine applies, the caller writes.
//! Knows nothing of files, clocks or sockets; time comes in as ticks, messages as messages.
//! Keeps the order of raft: nothing is applied or answered before the caller said that it is durable.

use super::command::{Command, Outcome};
use super::error::MetaError;
use super::format::{self, Recovered};
use super::image::Image;
use super::store::{Applied, Store};
use super::{machine, raft_log, snapshot, Overrides};
use protobuf::Message as _;
use raft::eraftpb::{
    ConfChange, ConfChangeV2, Entry, EntryType, HardState, Message, SnapshotMetadata,
};
use raft::{Config, RawNode, Ready, StateRole};
use std::collections::VecDeque;
use std::sync::Arc;

/// Names a proposal, chosen by the caller.
pub type Token = u64;

/// The raft id of a node: raft keeps 0 for "nobody".
pub fn raft_id(node_id: i32) -> u64 {
    u64::try_from(node_id).expect("a node id is 0 or above") + 1
}

/// What a new file begins with: a snapshot of an empty image in which this node is the only member. It is at index 1, so that
/// a node that joins later gets a snapshot, with the members in it, before any entry.
pub fn first_snapshot(node_id: i32) -> (SnapshotMetadata, HardState) {
    let mut metadata = SnapshotMetadata {
        index: 1,
        term: 1,
        ..SnapshotMetadata::default()
    };
    metadata.mut_conf_state().voters = vec![raft_id(node_id)];
    let state = HardState {
        term: 1,
        commit: 1,
        ..HardState::default()
    };
    (metadata, state)
}

/// Something to write, in the order it was taken.
pub struct Work {
    ready: Ready,
    /// Records to append and flush; empty if there is nothing to write.
    pub records: Vec<u8>,
    /// A snapshot of another node that takes the place of the whole file, before the records.
    pub replaces: Option<Replacement>,
}

/// A snapshot to write in place of the file.
#[derive(Debug, Clone)]
pub struct Replacement {
    pub metadata: SnapshotMetadata,
    pub hard_state: HardState,
    pub image: Arc<Image>,
}

/// A proposal that came to its end.
pub type Reply = (Token, Result<Outcome, MetaError>);

/// A proposal in the log that is not applied yet.
struct Pending {
    index: u64,
    term: u64,
    token: Token,
}

/// One member of the group.
pub struct Member {
    raw: RawNode<Store>,
    image: Image,
    fixed_config: Arc<Overrides>,
    pending: VecDeque<Pending>,
    /// Committed entries that are not applied yet.
    to_apply: VecDeque<Entry>,
    messages: Vec<Message>,
}

fn raft_error(error: raft::Error) -> MetaError {
    MetaError::Raft(error.to_string())
}

impl Member {
    /// Takes up what a file says. `jitter` (any number, different on each node) spreads elections; `name` is the file's, for
    /// messages.
    ///
    /// # Errors
    /// A snapshot that cannot be read.
    pub fn new(
        mut recovered: Recovered,
        image_text: &[u8],
        node_id: i32,
        fixed_config: Arc<Overrides>,
        jitter: u64,
        name: &str,
    ) -> Result<Member, MetaError> {
        let image =
            snapshot::decode(image_text, node_id, fixed_config.clone()).map_err(|cause| {
                MetaError::Snapshot {
                    file: name.to_string(),
                    cause,
                }
            })?;
        if image.version != recovered.snapshot.index {
            let what = format!(
                "its snapshot is of entry {}, the image in it of {}",
                recovered.snapshot.index, image.version
            );
            return Err(MetaError::Damaged {
                file: name.to_string(),
                what,
            });
        }
        let store = Store::new(&mut recovered, Arc::new(image.clone()));
        const ELECTION_TICKS: usize = 10;
        let election = ELECTION_TICKS + (jitter % ELECTION_TICKS as u64) as usize;
        let config = Config {
            id: raft_id(node_id),
            applied: recovered.snapshot.index,
            election_tick: ELECTION_TICKS,
            heartbeat_tick: 2,
            // One possible value: the library's own random choice would make simulations differ from run to run.
            min_election_tick: election,
            max_election_tick: election + 1,
            max_size_per_msg: 1 << 20,
            max_inflight_msgs: 64,
            pre_vote: true,
            check_quorum: true,
            ..Config::default()
        };
        let raw = RawNode::new(&config, store, &raft_log::logger()).map_err(raft_error)?;
        Ok(Member {
            raw,
            image,
            fixed_config,
            pending: VecDeque::new(),
            to_apply: VecDeque::new(),
            messages: Vec::new(),
        })
    }

    /// The image after the last entry applied.
    pub fn image(&self) -> &Image {
        &self.image
    }

    /// Raft's term.
    pub fn term(&self) -> u64 {
        self.raw.raft.term
    }

    /// True while this node leads the group.
    pub fn leads(&self) -> bool {
        self.raw.raft.state == StateRole::Leader
    }

    /// True if this node is all there is.
    pub fn alone(&self) -> bool {
        self.raw.raft.prs().iter().count() == 1
    }

    /// Stands for election now. Alone, it wins at once.
    ///
    /// # Errors
    /// What raft has against it.
    pub fn campaign(&mut self) -> Result<(), MetaError> {
        self.raw.campaign().map_err(raft_error)
    }

    /// One tick of time has passed.
    pub fn tick(&mut self) {
        self.raw.tick();
    }

    /// A message of another node.
    ///
    /// # Errors
    /// A message that is none of a member's.
    pub fn step(&mut self, message: Message) -> Result<(), MetaError> {
        match self.raw.step(message) {
            // Late mail of a member that has been removed since.
            Ok(()) | Err(raft::Error::StepPeerNotFound) => Ok(()),
            Err(error) => Err(raft_error(error)),
        }
    }

    /// Asks for a change of the members.
    ///
    /// # Errors
    /// [`MetaError::NotLeader`].
    pub fn propose_members(&mut self, change: ConfChangeV2) -> Result<(), MetaError> {
        self.raw
            .propose_conf_change(Vec::new(), change)
            .map_err(|_| MetaError::NotLeader)
    }

    /// Puts an encoded command into the log.
    ///
    /// # Errors
    /// [`MetaError::NotLeader`]; the command is not in the log then.
    pub fn propose(&mut self, token: Token, command: Vec<u8>) -> Result<(), MetaError> {
        if !self.leads() {
            return Err(MetaError::NotLeader);
        }
        let before = self.raw.raft.raft_log.last_index();
        self.raw
            .propose(Vec::new(), command)
            .map_err(|_| MetaError::NotLeader)?;
        let index = self.raw.raft.raft_log.last_index();
        assert_eq!(index, before + 1, "a leader's proposal is the next entry");
        self.pending.push_back(Pending {
            index,
            term: self.raw.raft.term,
            token,
        });
        Ok(())
    }

    /// The next thing to write. While it is being written nothing else may be called.
    ///
    /// # Errors
    /// A snapshot of another node that cannot be read.
    pub fn take_work(&mut self) -> Result<Option<Work>, MetaError> {
        if !self.raw.has_ready() {
            return Ok(None);
        }
        assert!(
            self.to_apply.is_empty(),
            "what was committed is applied first"
        );
        let mut ready = self.raw.ready();
        self.messages.append(&mut ready.take_messages());
        let mut replaces = None;
        if !ready.snapshot().is_empty() {
            let metadata = ready.snapshot().get_metadata().clone();
            let node_id = self.image.node_id;
            let image =
                snapshot::decode(&ready.snapshot().data, node_id, self.fixed_config.clone())
                    .map_err(|cause| {
                        let file = "a snapshot of the leader".to_string();
                        MetaError::Snapshot { file, cause }
                    })?;
            let mut hard_state = ready.hs().unwrap_or(self.raw.store().hard_state()).clone();
            hard_state.commit = metadata.index;
            replaces = Some(Replacement {
                metadata,
                hard_state,
                image: Arc::new(image),
            });
        }
        let records = format::encode_records(ready.entries(), ready.hs());
        Ok(Some(Work {
            ready,
            records,
            replaces,
        }))
    }

    /// The work is durable: what it commits is ready to be applied.
    pub fn persisted(&mut self, work: Work) {
        let Work {
            mut ready,
            replaces,
            ..
        } = work;
        let store = self.raw.mut_store();
        if let Some(replacement) = replaces {
            self.image = Image::clone(&replacement.image);
            store.install(Applied {
                index: replacement.metadata.index,
                term: replacement.metadata.term,
                members: replacement.metadata.get_conf_state().clone(),
                image: replacement.image,
            });
        }
        store.append(ready.entries());
        if let Some(state) = ready.hs() {
            store.set_hard_state(state.clone());
        }
        self.to_apply.extend(ready.take_committed_entries());
        self.messages.append(&mut ready.take_persisted_messages());
        let mut light = self.raw.advance_append(ready);
        if let Some(commit) = light.commit_index() {
            self.raw.mut_store().set_commit(commit);
        }
        self.messages.append(&mut light.take_messages());
        self.to_apply.extend(light.take_committed_entries());
    }

    /// Applies one committed entry; `None` when all are applied. Call it until then after every [`Member::persisted`].
    ///
    /// # Errors
    /// An entry this version does not know. The member cannot go on then.
    pub fn apply_next(&mut self) -> Result<Option<Vec<Reply>>, MetaError> {
        let Some(entry) = self.to_apply.pop_front() else {
            self.note_applied();
            return Ok(None);
        };
        let result = self.apply(&entry)?;
        self.image.version = entry.index;
        let mut replies = Vec::new();
        while self.pending.front().is_some_and(|p| p.index <= entry.index) {
            let Some(Pending { index, term, token }) = self.pending.pop_front() else {
                break;
            };
            let ours = index == entry.index && term == entry.term;
            // Another leader's entry took the place of ours.
            let reply = if ours {
                result.clone()
            } else {
                Err(MetaError::NotLeader)
            };
            replies.push((token, reply));
        }
        Ok(Some(replies))
    }

    fn apply(&mut self, entry: &Entry) -> Result<Result<Outcome, MetaError>, MetaError> {
        let malformed = |e: protobuf::ProtobufError| {
            MetaError::Raft(format!(
                "the change of members at {} cannot be read: {e}",
                entry.index
            ))
        };
        let members = match entry.get_entry_type() {
            EntryType::EntryNormal if entry.data.is_empty() => return Ok(Ok(Outcome::Done)),
            EntryType::EntryNormal => {
                let command =
                    Command::decode(&entry.data).map_err(|cause| MetaError::UnknownCommand {
                        index: entry.index,
                        cause,
                    })?;
                return Ok(machine::apply(&mut self.image, &command).map_err(MetaError::from));
            }
            EntryType::EntryConfChange => {
                let change = ConfChange::parse_from_bytes(&entry.data).map_err(malformed)?;
                self.raw.apply_conf_change(&change)
            }
            EntryType::EntryConfChangeV2 => {
                let change = ConfChangeV2::parse_from_bytes(&entry.data).map_err(malformed)?;
                self.raw.apply_conf_change(&change)
            }
        };
        let members = members.map_err(raft_error)?;
        let mut applied = self.raw.store().applied().clone();
        applied.members = members;
        self.raw.mut_store().set_applied(applied);
        Ok(Ok(Outcome::Done))
    }

    fn note_applied(&mut self) {
        let index = self.image.version;
        let before = self.raw.store().applied().clone();
        if index == before.index {
            return;
        }
        let term = self
            .raw
            .store()
            .term_of(index)
            .expect("an applied entry is in the log");
        let image = Arc::new(self.image.clone());
        self.raw.mut_store().set_applied(Applied {
            index,
            term,
            image,
            ..before
        });
        self.raw.advance_apply_to(index);
    }

    /// The image as others may share it. Current after [`Member::apply_next`] gave `None`.
    pub fn shared_image(&self) -> Arc<Image> {
        self.raw.store().applied().image.clone()
    }

    /// Messages for other nodes.
    pub fn take_messages(&mut self) -> Vec<Message> {
        std::mem::take(&mut self.messages)
    }

    /// The state to be written down when nothing else is: it witnesses how far the log is committed.
    pub fn witness(&self) -> Vec<u8> {
        format::encode_records(&[], Some(self.raw.store().hard_state()))
    }

    /// What takes the place of the file when its log has grown too long; `None` while entries are not applied yet.
    pub fn compaction(&self) -> Option<Replacement> {
        let store = self.raw.store();
        store.all_applied().then(|| Replacement {
            metadata: store.snapshot_metadata(),
            hard_state: store.hard_state().clone(),
            image: store.applied().image.clone(),
        })
    }

    /// The file of [`Member::compaction`] is durable.
    pub fn compacted(&mut self) {
        self.raw.mut_store().compact();
    }
}
