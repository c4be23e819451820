//! The running member of the metadata group on this node: opens the file, drives raft, answers proposals.
//! Knows nothing of what commands do, nor of how the file is laid out.
//! Keeps one write under way at a time, and answers nothing before its write was flushed; after a failed write it never
//! writes again.

use super::command::{Command, DecodeError, Outcome};
use super::config::{check_fixed, Overrides};
use super::error::MetaError;
use super::format::{self, Tail};
use super::image::Image;
use super::member::{first_snapshot, Member, Replacement, Token};
use super::{limits, machine, snapshot};
use crate::rt;
use crate::types::TopicId;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

/// This node, as it registers itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeInfo {
    pub id: i32,
    /// Where clients reach it.
    pub host: String,
    pub port: u16,
    pub rack: Option<String>,
}

/// How to open the metadata.
#[derive(Debug, Clone, Default)]
pub struct MetaOptions {
    /// Broker settings this node was started with, by Kafka's names.
    pub fixed_config: Overrides,
    /// Set it if the data directory is known to have been used: a missing file is an error then, not a new cluster.
    pub must_exist: bool,
    /// A version of the image that is known to have been durable: a file without it is an older copy, put back.
    pub version_min: u64,
}

type Answer = Result<Outcome, MetaError>;

struct Proposal {
    command: Vec<u8>,
    grows: bool,
    reply: rt::OneSender<Answer>,
    /// Its share of the bytes that may wait, given back with the reply.
    permit: rt::Permit,
}

#[derive(Clone)]
enum State {
    Open,
    Closing,
    Closed,
    Failed(MetaError),
}

type Subscriber = Rc<dyn Fn(&Arc<Image>)>;

struct Shared {
    queue: RefCell<VecDeque<Proposal>>,
    room: rt::Semaphore,
    /// Something to do: a proposal, or the end.
    wake: rt::Notify,
    /// The state changed to Closed or Failed.
    ended: rt::Notify,
    state: RefCell<State>,
    image: RefCell<Arc<Image>>,
    term: Cell<u64>,
    subscribers: RefCell<Vec<Subscriber>>,
}

/// The metadata of this node. Clones are handles to the same; for the shard it was opened on.
#[derive(Clone)]
pub struct MetaHandle(Rc<Shared>);

impl MetaHandle {
    /// Has a command applied. Resolves once it is durable and applied, and [`MetaHandle::image`] shows it. The command is on
    /// its way when this returns a future that was polled once; dropping the future does not take it back.
    ///
    /// # Errors
    /// [`MetaError::Refused`] says that the command was applied and changed nothing; the other variants say themselves
    /// whether it may have reached the log.
    pub async fn propose(&self, command: Command) -> Answer {
        let encoded = command.encode().map_err(|e| match e {
            DecodeError::TooLarge { len } => MetaError::TooLarge { len },
            DecodeError::Malformed(why) => panic!("encoding does not judge: {why}"),
        })?;
        let room = encoded.len().max(limits::PROPOSAL_BYTES_MIN) as u64;
        let permit = self.0.room.acquire(room).await;
        self.0.check_open()?;
        let (reply, answer) = rt::oneshot();
        let grows = command.grows();
        self.0.queue.borrow_mut().push_back(Proposal {
            command: encoded,
            grows,
            reply,
            permit,
        });
        self.0.wake.notify_all();
        answer.await.unwrap_or(Err(MetaError::Closed))
    }

    /// Says what a command would bring about now, without applying it (Kafka's validate-only).
    ///
    /// # Errors
    /// [`MetaError::Refused`].
    pub fn check(&self, command: &Command) -> Answer {
        machine::check(&self.image(), command).map_err(MetaError::from)
    }

    /// The metadata after the last command applied.
    pub fn image(&self) -> Arc<Image> {
        self.0.image.borrow().clone()
    }

    /// Raft's term, in which this node leads the group.
    pub fn term(&self) -> u64 {
        self.0.term.get()
    }

    /// Calls `f` with the current image now, and with each new one from then on, on this shard, before the commands in it are
    /// answered. `f` must be quick; several commands may share one image.
    pub fn subscribe(&self, f: impl Fn(&Arc<Image>) + 'static) {
        let f: Subscriber = Rc::new(f);
        self.0.subscribers.borrow_mut().push(f.clone());
        f(&self.image());
    }

    /// Writes what is waiting, and a witness of it, and ends. Later proposals are refused. Ends at once after a failure.
    ///
    /// # Errors
    /// The failure that ended it.
    pub async fn close(&self) -> Result<(), MetaError> {
        let ended = self.0.ended.notified();
        {
            let mut state = self.0.state.borrow_mut();
            if let State::Open = *state {
                *state = State::Closing;
            }
        }
        self.0.wake.notify_all();
        let ending = matches!(*self.0.state.borrow(), State::Closing);
        if ending {
            ended.await;
        }
        match self.0.state.borrow().clone() {
            State::Failed(error) => Err(error),
            State::Closed => Ok(()),
            State::Open | State::Closing => panic!("it ended"),
        }
    }

    /// Resolves when a write failed or the log turned out to be unusable: the process should say so and exit. Never resolves
    /// otherwise.
    pub async fn failure(&self) -> MetaError {
        loop {
            let ended = self.0.ended.notified();
            if let State::Failed(error) = &*self.0.state.borrow() {
                return error.clone();
            }
            ended.await;
        }
    }
}

impl Shared {
    fn check_open(&self) -> Result<(), MetaError> {
        match &*self.state.borrow() {
            State::Open => Ok(()),
            State::Closing | State::Closed => Err(MetaError::Closed),
            State::Failed(error) => Err(MetaError::Failed(error.to_string())),
        }
    }

    fn publish(&self, image: Arc<Image>, term: u64) {
        self.term.set(term);
        let old = self.image.replace(image.clone());
        if old.version == image.version {
            return;
        }
        // Not under the borrow: a subscriber may subscribe another.
        let subscribers = self.subscribers.borrow().clone();
        subscribers.iter().for_each(|f| f(&image));
    }

    fn end(&self, state: State) {
        *self.state.borrow_mut() = state;
        self.ended.notify_all();
    }
}

/// Opens the metadata under `<data_dir>/meta`, or founds a cluster of one node there; registers this node and bumps the
/// leader epochs of the partitions it leads. Whoever calls it holds the lock of the data directory, and has made the name of
/// that directory durable.
///
/// # Errors
/// What keeps the metadata from being used; nothing was changed then that was readable.
pub async fn open(
    data_dir: &Path,
    node: NodeInfo,
    options: MetaOptions,
) -> Result<MetaHandle, MetaError> {
    let fixed_config = Arc::new(check_fixed(&options.fixed_config)?);
    if node.id < 0 {
        return Err(MetaError::Refused(super::ApplyError::InvalidRegistration(
            "a node id is 0 or above".to_string(),
        )));
    }
    let dir = data_dir.join("meta");
    let mut file = MetaFile {
        path: dir.join("metadata"),
        tail: None,
    };
    in_file("create", &dir, rt::fs::create_dir_all(&dir).await)?;
    // A process that was killed may have left names behind that are there and yet not durable: the directory, or a file
    // renamed into its place. They must be, before anything in them is acknowledged.
    for dir in [data_dir, &dir] {
        in_file("flush", dir, rt::fs::sync_dir(dir).await)?;
    }
    let exists = in_file("look for", &file.path, rt::fs::exists(&file.path).await)?;
    if !exists && options.must_exist {
        return Err(MetaError::Missing { file: file.name() });
    }
    if !exists {
        file.found_cluster(node.id, fixed_config.clone()).await?;
    }
    let member = file
        .recover(node.id, fixed_config, options.version_min)
        .await?;
    let shared = Rc::new(Shared {
        queue: RefCell::default(),
        room: rt::Semaphore::new(limits::PROPOSALS_BYTES_MAX as u64),
        wake: rt::Notify::new(),
        ended: rt::Notify::new(),
        state: RefCell::new(State::Open),
        image: RefCell::new(member.shared_image()),
        term: Cell::new(member.term()),
        subscribers: RefCell::default(),
    });
    let driver = Driver {
        member,
        file,
        shared: shared.clone(),
        waiting: BTreeMap::new(),
        next_token: 0,
        witnessed: true,
    };
    rt::spawn(rt::Class::Storage, driver.run());

    let handle = MetaHandle(shared);
    let (id, host, port, rack) = (node.id, node.host, node.port, node.rack);
    // Both go into the driver's first write, together with the election.
    let registered = handle.propose(Command::RegisterNode {
        id,
        host,
        port,
        rack,
    });
    let bumped = handle.propose(Command::BumpLeaderEpochs { node: id });
    let (registered, bumped) = futures_lite::future::zip(registered, bumped).await;
    if let Err(error) = registered.and(bumped) {
        // The first failure is the one to report, not what follows from it.
        return Err(match handle.close().await {
            Ok(()) => error,
            Err(first) => first,
        });
    }
    Ok(handle)
}

/// Says which file an I/O error is of.
fn in_file<T>(what: &str, path: &Path, result: io::Result<T>) -> Result<T, MetaError> {
    result.map_err(|e| MetaError::Io {
        what: format!("cannot {what} {}", path.display()),
        cause: e.to_string(),
    })
}

/// The file and where its next batch goes.
struct MetaFile {
    path: PathBuf,
    /// `None` until it was recovered.
    tail: Option<Tail>,
}

impl MetaFile {
    fn name(&self) -> String {
        self.path.display().to_string()
    }

    fn tail(&self) -> &Tail {
        self.tail
            .as_ref()
            .expect("nothing is written before recovery")
    }

    async fn found_cluster(
        &mut self,
        node_id: i32,
        fixed: Arc<Overrides>,
    ) -> Result<(), MetaError> {
        let cluster_id = TopicId::from_random(rt::random_u64(), rt::random_u64()).to_string();
        let (metadata, hard_state) = first_snapshot(node_id);
        let mut image = Image::new(cluster_id, node_id, fixed)?;
        image.version = metadata.index;
        self.replace(Replacement {
            metadata,
            hard_state,
            image: Arc::new(image),
        })
        .await
    }

    /// Puts a snapshot in place of the file, atomically.
    async fn replace(&mut self, with: Replacement) -> Result<(), MetaError> {
        let log_id = rt::random_u64();
        // Text of megabytes: not on the shard's thread.
        let (bytes, tail) = rt::blocking(move || {
            let Replacement {
                metadata,
                hard_state,
                image,
            } = with;
            let text = snapshot::encode(&image);
            format::encode_file(image.node_id, log_id, &metadata, &hard_state, &text)
        })
        .await;
        in_file(
            "write",
            &self.path,
            rt::fs::write_atomic(&self.path, &bytes).await,
        )?;
        self.tail = Some(tail);
        Ok(())
    }

    /// Reads the file, cuts off a torn tail, and makes durable what a killed process may have left in a volatile cache.
    async fn recover(
        &mut self,
        node_id: i32,
        fixed: Arc<Overrides>,
        version_min: u64,
    ) -> Result<Member, MetaError> {
        let bytes = rt::fs::read(&self.path, limits::FILE_BYTES_MAX).await;
        let bytes = in_file("read", &self.path, bytes)?;
        let (name, jitter) = (self.name(), rt::random_u64());
        let recovered = format::recover(&bytes, &name, node_id)?;
        let last = recovered.entries.last();
        let version = last.map_or(recovered.snapshot.index, |entry| entry.index);
        if version < version_min {
            return Err(MetaError::Old {
                file: name,
                version,
                known: version_min,
            });
        }
        let tail = recovered.tail.clone();
        let torn = bytes.len() as u64 - tail.len;
        if torn > 0 {
            tracing::warn!(file = %name, bytes = torn, "cutting off an unfinished write, which was never acknowledged");
        }
        let image = recovered.image.clone();
        let member = Member::new(recovered, &bytes[image], node_id, fixed, jitter, &name)?;
        // Written anew, because after a flush that failed it may be in a cache only, and no later flush changes that.
        let sound = &bytes[..tail.len as usize];
        let written = rt::fs::write_atomic(&self.path, sound).await;
        in_file("flush", &self.path, written)?;
        self.tail = Some(tail);
        Ok(member)
    }

    async fn append(&mut self, records: &[u8]) -> Result<(), MetaError> {
        let (bytes, next) = self.tail().batch(records);
        in_file(
            "write",
            &self.path,
            rt::fs::append_sync(&self.path, &bytes).await,
        )?;
        self.tail = Some(next);
        Ok(())
    }

    fn compaction_due(&self) -> bool {
        let (log, snapshot) = (self.tail().log_bytes(), self.tail().log_start);
        log > limits::LOG_BYTES_MAX || log > limits::COMPACT_LOG_BYTES.max(snapshot)
    }
}

/// The task that owns the member and its file.
struct Driver {
    member: Member,
    file: MetaFile,
    shared: Rc<Shared>,
    /// Who waits for what is in the log.
    waiting: BTreeMap<Token, (rt::OneSender<Answer>, rt::Permit)>,
    next_token: Token,
    /// True while the last batch of the log has only a witness in it.
    witnessed: bool,
}

/// Resolves a proposal; nobody may be waiting any more, and that is the caller's choice.
fn answer((reply, permit): (rt::OneSender<Answer>, rt::Permit), with: Answer) {
    drop(permit);
    drop(reply.send(with));
}

impl Driver {
    async fn run(mut self) {
        let result = self.serve().await;
        let state = match result {
            Ok(()) => State::Closed,
            Err(error) => {
                tracing::error!(%error, "the metadata log failed");
                State::Failed(error)
            }
        };
        let refusal = match &state {
            State::Failed(error) => MetaError::Failed(error.to_string()),
            State::Open | State::Closing | State::Closed => MetaError::Closed,
        };
        // Before anybody is woken: what is proposed from now on is refused at the door.
        self.shared.end(state);
        let waiting = std::mem::take(&mut self.waiting);
        waiting
            .into_values()
            .for_each(|w| answer(w, Err(refusal.clone())));
        let queued = std::mem::take(&mut *self.shared.queue.borrow_mut());
        queued
            .into_iter()
            .for_each(|p| answer((p.reply, p.permit), Err(refusal.clone())));
    }

    async fn serve(&mut self) -> Result<(), MetaError> {
        // Committed changes of the members must be applied before an election.
        self.process().await?;
        self.member.campaign()?;
        loop {
            let woken = self.shared.wake.notified();
            let proposals = self.take_proposals();
            if !proposals.is_empty() {
                self.propose(proposals).await?;
                self.process().await?;
                continue;
            }
            let closing = matches!(*self.shared.state.borrow(), State::Closing);
            if closing {
                return self.write_witness().await;
            }
            if self.witnessed {
                woken.await;
            } else if rt::timeout(limits::WITNESS_DELAY, woken).await.is_none() {
                self.write_witness().await?;
            }
        }
    }

    /// As many of the waiting proposals as one write takes.
    fn take_proposals(&self) -> Vec<Proposal> {
        let mut queue = self.shared.queue.borrow_mut();
        let mut bytes = 0;
        let mut taken = Vec::new();
        while let Some(next) = queue.front() {
            let full = bytes + next.command.len() > limits::BATCH_BYTES_MAX;
            if !taken.is_empty() && (full || taken.len() >= limits::BATCH_COMMANDS_MAX) {
                break;
            }
            bytes += next.command.len();
            taken.extend(queue.pop_front());
        }
        taken
    }

    async fn propose(&mut self, proposals: Vec<Proposal>) -> Result<(), MetaError> {
        let space = rt::fs::space(&self.file.path).await;
        let free = in_file("see the free space of", &self.file.path, space)?.free;
        for proposal in proposals {
            let Proposal {
                command,
                grows,
                reply,
                permit,
            } = proposal;
            let needs = if grows {
                limits::DISK_RESERVE_BYTES
            } else {
                limits::DISK_FLOOR_BYTES
            };
            if free < needs {
                answer((reply, permit), Err(MetaError::DiskFull { free }));
                continue;
            }
            let token = self.next_token;
            self.next_token += 1;
            match self.member.propose(token, command) {
                Ok(()) => {
                    self.waiting.insert(token, (reply, permit));
                }
                Err(error) => answer((reply, permit), Err(error)),
            }
        }
        Ok(())
    }

    /// Writes, applies and answers until there is nothing left to do.
    async fn process(&mut self) -> Result<(), MetaError> {
        while let Some(mut work) = self.member.take_work()? {
            if let Some(replacement) = work.replaces.clone() {
                self.file.replace(replacement).await?;
            }
            let records = std::mem::take(&mut work.records);
            if !records.is_empty() {
                self.file.append(&records).await?;
                self.witnessed = false;
            }
            self.member.persisted(work);
            let mut replies = Vec::new();
            while let Some(mut more) = self.member.apply_next()? {
                replies.append(&mut more);
                rt::yield_if_needed().await;
            }
            let term = self.member.term();
            self.shared.publish(self.member.shared_image(), term);
            for (token, result) in replies {
                self.waiting
                    .remove(&token)
                    .into_iter()
                    .for_each(|w| answer(w, result.clone()));
            }
            let messages = self.member.take_messages();
            assert!(messages.is_empty(), "a group of one has nobody to write to");
        }
        if self.file.compaction_due() {
            if let Some(replacement) = self.member.compaction() {
                self.file.replace(replacement).await?;
                self.member.compacted();
                self.witnessed = true;
            }
        }
        Ok(())
    }

    async fn write_witness(&mut self) -> Result<(), MetaError> {
        if !self.witnessed {
            self.file.append(&self.member.witness()).await?;
            self.witnessed = true;
        }
        Ok(())
    }
}
