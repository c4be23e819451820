//! Owns the start and the clean stop of a node's shards, in step with each other.
//! Does not know threads: each shard calls `start` on its own.
//! Invariant: no shard serves before the manifest names the new journals of all of them.

use super::cleaner::Cleaner;
use super::config::EngineConfig;
use super::flusher::Left;
use super::groups::Groups;
use super::mail::{drain, Calls, Hub, Mail};
use super::metrics::{Counters, ShardMetrics};
use super::recovery::KEPT;
use super::responses::ResponseMemory;
use super::share_partitions::Shares;
use super::slots::Slots;
use super::space::{Space, SpaceBoard};
use super::Shard;
use crate::journal::entry::JournalId;
use crate::journal::ring::{Ring, RingConfig};
use crate::journal::Journal;
use crate::manifest::{JournalRef, Manifest};
use crate::meta::{self, Image, MetaError, MetaHandle, MetaOptions, NodeInfo};
use crate::plant::{self, Plant};
use crate::rt::{self, Class, InboxReceiver, InboxSender, Notify, Semaphore};
use crate::types::limits::{
    JOURNAL_FIRST_FILE_BYTES, SEARCHES_PER_SHARD_MAX, SEGMENT_WRITE_BYTES_IN_FLIGHT_MAX,
};
use std::cell::{Cell, RefCell};
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A task that runs late by more than this is a stall; looked at this often.
const STALL: Duration = Duration::from_millis(100);
const STALL_CHECK: Duration = Duration::from_millis(500);

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot open the metadata: {0}")]
    Meta(#[from] MetaError),
    #[error("cannot recover: {0}")]
    Storage(#[from] io::Error),
    #[error("another shard could not start: {0}")]
    Other(String),
    #[error("{0}")]
    Refused(String),
}

enum Down {
    Recover {
        image: Arc<Image>,
        old: Option<Manifest>,
        generation: u64,
    },
    Serve,
    Abort(String),
}

type Up = (usize, Result<JournalRef, String>);
type Closed = (usize, Result<Left, String>);
type Take<T> = Mutex<Option<T>>;

/// Channels between the shards of a node, made before their threads.
pub struct Mailboxes {
    hub: Arc<Hub>,
    space: Arc<SpaceBoard>,
    mail: Vec<Take<InboxReceiver<Mail>>>,
    down: Vec<(InboxSender<Down>, Take<InboxReceiver<Down>>)>,
    up: (InboxSender<Up>, Take<InboxReceiver<Up>>),
    closed: (InboxSender<Closed>, Take<InboxReceiver<Closed>>),
}

fn channel<T: Send>() -> (InboxSender<T>, Take<InboxReceiver<T>>) {
    let (sender, receiver) = rt::inbox();
    (sender, Mutex::new(Some(receiver)))
}

fn take<T>(slot: &Take<T>) -> T {
    slot.lock()
        .expect("no panic holds it")
        .take()
        .expect("each shard starts once")
}

impl Mailboxes {
    pub fn new(shards: usize) -> Arc<Mailboxes> {
        let (hub, mail) = Hub::new(shards);
        Arc::new(Mailboxes {
            hub,
            space: SpaceBoard::new(shards),
            mail: mail.into_iter().map(|r| Mutex::new(Some(r))).collect(),
            down: (0..shards).map(|_| channel()).collect(),
            up: channel(),
            closed: channel(),
        })
    }

    pub fn handle(&self) -> EngineHandle {
        EngineHandle {
            hub: self.hub.clone(),
        }
    }
}

/// What other threads may ask of the shards.
#[derive(Clone)]
pub struct EngineHandle {
    hub: Arc<Hub>,
}

impl EngineHandle {
    pub fn shards(&self) -> usize {
        self.hub.shards()
    }

    /// One shard's figures; None where it is stopping. Works on any async runtime.
    pub async fn metrics(&self, shard: usize) -> Option<ShardMetrics> {
        let (sender, receiver) = flume::bounded(1);
        // A caller that gave up takes nothing.
        let sent = self
            .hub
            .send(shard, Box::new(move |s| drop(sender.send(s.metrics()))));
        if !sent {
            return None;
        }
        receiver.recv_async().await.ok()
    }

    /// Runs `f` on a shard's thread; false where it is gone.
    pub fn run_on(
        &self,
        shard: usize,
        f: impl FnOnce(&crate::api::Broker) + Send + 'static,
    ) -> bool {
        self.hub.send(
            shard,
            Box::new(move |s| f(&crate::api::Broker::of(s.clone()))),
        )
    }

    /// Has every shard begin to stop.
    pub fn stop(&self) {
        for shard in 0..self.hub.shards() {
            let _gone = self.hub.send(shard, Box::new(|s| s.begin_stop()));
        }
    }
}

/// Starts shard `index` of the node: recovers what it owns and waits until all shards may serve.
pub async fn start(
    config: EngineConfig,
    index: usize,
    boxes: Arc<Mailboxes>,
) -> Result<(Rc<Shard>, ShardStop), StartError> {
    if index > 0 {
        return follow(config, index, boxes).await;
    }
    let result = lead(config, &boxes).await;
    if let Err(error) = &result {
        for (sender, _) in &boxes.down[1..] {
            let _gone = sender.send(Down::Abort(error.to_string()));
        }
    }
    result
}

async fn lead(
    config: EngineConfig,
    boxes: &Arc<Mailboxes>,
) -> Result<(Rc<Shard>, ShardStop), StartError> {
    let shards = boxes.hub.shards();
    let (checkpoints, topics) = (
        config.data_dir.join("checkpoints"),
        config.data_dir.join("topics"),
    );
    // A killed process may have left folders behind that are there and yet not durable, and whoever finds a folder does
    // not flush its name again.
    for dir in [&checkpoints, &topics, &config.journal_root()] {
        rt::fs::create_dir_all(dir).await?;
        rt::fs::sync_dir(dir).await?;
    }
    rt::fs::sync_dir(&config.data_dir).await?;
    if let Some(why) = crate::adopt::unfinished(&config.data_dir).await? {
        return Err(StartError::Refused(why));
    }
    let old = Manifest::read(&config.data_dir).await?;
    check_used_directory(&config, old.is_some()).await?;
    if let Some(old) = &old {
        check_newest(&config, old).await?;
    }
    let node = NodeInfo {
        id: config.node_id,
        host: config.advertised_host.clone(),
        port: config.advertised_port,
        rack: config.broker_settings.get("broker.rack").cloned(),
    };
    let options = MetaOptions {
        fixed_config: config.broker_settings.clone(),
        must_exist: old.is_some(),
        version_min: old.as_ref().map_or(0, |manifest| manifest.metadata),
    };
    let meta = meta::open(&config.data_dir, node, options).await?;
    let generation = old.as_ref().map_or(1, |m| m.generation + 1);
    let image = meta.image();
    if old.is_none() && image.topics().next().is_some() {
        return Err(no_manifest(&config));
    }
    remove_leftovers(&config.journal_root(), old.as_ref()).await?;
    super::unknown::set_aside(&config.data_dir, &image).await?;
    for (sender, _) in &boxes.down[1..] {
        let down = Down::Recover {
            image: image.clone(),
            old: old.clone(),
            generation,
        };
        let _gone = sender.send(down);
    }
    let (shard, own) = recover_shard(&config, 0, boxes, image, old.as_ref(), generation).await?;
    let mut journals = vec![None; shards];
    journals[0] = Some(own);
    let mut up = take(&boxes.up.1);
    let mut batch = Vec::new();
    while journals.iter().any(|j| j.is_none()) {
        if up.recv_many(&mut batch, shards).await == 0 {
            return Err(StartError::Other("its thread ended".into()));
        }
        for (number, result) in batch.drain(..) {
            journals[number] = Some(result.map_err(StartError::Other)?);
        }
    }
    let journals = journals
        .into_iter()
        .map(|j| j.expect("all are there"))
        .collect();
    let manifest = Manifest {
        metadata: meta.image().version,
        ..Manifest::new(generation, false, journals)
    };
    manifest.write(&config.data_dir).await?;
    remove_old_checkpoints(&checkpoints, generation).await?;
    for (sender, _) in &boxes.down[1..] {
        let _gone = sender.send(Down::Serve);
    }
    let stop = ShardStop {
        boxes: boxes.clone(),
        lead: Some(Lead {
            meta: meta.clone(),
            manifest,
            closed: RefCell::new(Some(take(&boxes.closed.1))),
        }),
    };
    share_images(&shard, &meta);
    *shard.meta.borrow_mut() = Some(meta);
    serve(&shard, boxes, old.as_ref()).await;
    Ok((shard, stop))
}

async fn follow(
    config: EngineConfig,
    index: usize,
    boxes: Arc<Mailboxes>,
) -> Result<(Rc<Shard>, ShardStop), StartError> {
    let mut down = take(&boxes.down[index].1);
    let mut next = Vec::new();
    if down.recv_many(&mut next, 1).await == 0 {
        return Err(StartError::Other("shard 0 ended".into()));
    }
    let (image, old, generation) = match next.pop() {
        Some(Down::Recover {
            image,
            old,
            generation,
        }) => (image, old, generation),
        Some(Down::Abort(why)) => return Err(StartError::Other(why)),
        Some(Down::Serve) | None => unreachable!("recovery comes first"),
    };
    let shard = match recover_shard(&config, index, &boxes, image, old.as_ref(), generation).await {
        Ok((shard, journal)) => {
            let _gone = boxes.up.0.send((index, Ok(journal)));
            shard
        }
        Err(error) => {
            let _gone = boxes
                .up
                .0
                .send((index, Err(format!("shard {index}: {error}"))));
            return Err(error);
        }
    };
    next.clear();
    if down.recv_many(&mut next, 1).await == 0 {
        return Err(StartError::Other("shard 0 ended".into()));
    }
    if let Some(Down::Abort(why)) = next.pop() {
        return Err(StartError::Other(why));
    }
    serve(&shard, &boxes, old.as_ref()).await;
    Ok((shard, ShardStop { boxes, lead: None }))
}

/// Every new image goes to every shard, in order, before the command that made it is answered.
fn share_images(shard: &Rc<Shard>, meta: &MetaHandle) {
    let first = Rc::downgrade(shard);
    meta.subscribe(move |image| {
        let Some(first) = first.upgrade() else { return };
        first.apply_image(image.clone());
        for other in 1..first.shards {
            let image = image.clone();
            let _stopping = first
                .calls
                .hub()
                .send(other, Box::new(move |s| s.apply_image(image)));
        }
    });
}

async fn recover_shard(
    config: &EngineConfig,
    index: usize,
    boxes: &Arc<Mailboxes>,
    image: Arc<Image>,
    old: Option<&Manifest>,
    generation: u64,
) -> Result<(Rc<Shard>, JournalRef), StartError> {
    let shards = boxes.hub.shards();
    let mut limits = config.for_shard(shards);
    if let Some(old) = old.filter(|old| !old.clean) {
        // What was one commit then has to be one now, however much less memory there is.
        let largest = largest_journal_file(&limits.journal_root, old).await?;
        limits.journal_file_bytes = limits.journal_file_bytes.max(largest);
    }
    let journal_id = JournalId((u128::from(rt::random_u64()) << 64) | u128::from(rt::random_u64()));
    let dir = format!("g{generation}-s{index}");
    let ring = Ring::create(RingConfig {
        dir: limits.journal_root.join(&dir),
        first_file_bytes: JOURNAL_FIRST_FILE_BYTES.min(limits.journal_file_bytes),
        file_bytes: limits.journal_file_bytes,
        files_max: limits.journal_files_max,
    })
    .await?;
    let fatal = config.on_fatal.clone();
    let on_failure = Box::new(move |reason: &str| fatal.call(reason));
    let journal = Journal::new(
        journal_id,
        generation,
        Rc::new(ring),
        limits.cache_bytes as usize,
        on_failure,
    );
    let shard = Rc::new(Shard {
        index,
        shards,
        journal: journal.clone(),
        journal_id,
        generation,
        image: RefCell::new(image),
        partitions: RefCell::default(),
        dirty: RefCell::default(),
        flushing: Semaphore::new(1),
        segment_writes: Semaphore::new(SEGMENT_WRITE_BYTES_IN_FLIGHT_MAX as u64),
        checkpoints: Semaphore::new(1),
        open_segments: RefCell::default(),
        parked_appends: RefCell::default(),
        append_parked: Notify::new(),
        space: Space::new(boxes.space.clone()),
        calls: Calls::new(boxes.hub.clone(), index),
        watches: RefCell::default(),
        searches: Semaphore::new(SEARCHES_PER_SHARD_MAX),
        cold_reads: Semaphore::new(1),
        removals: Rc::new(Semaphore::new(1)),
        request_memory: Semaphore::new(limits.request_bytes_max),
        responses: ResponseMemory::new(limits.response_bytes_max),
        stopping: Cell::new(false),
        stop: Notify::new(),
        meta: RefCell::new(None),
        producer_ids: RefCell::new(0..0),
        groups: Groups::new(limits.group_bytes_max),
        transactions: Slots::default(),
        shares: Shares::default(),
        cleaner: Cleaner::default(),
        counters: RefCell::new(Counters::default()),
        extension: RefCell::new(None),
        config: limits,
    });
    let needs_replay = old.is_some_and(|m| !m.clean);
    // Before the ring may grow.
    shard.look_at_space().await;
    rt::spawn(Class::Background, shard.clone().run_space());
    rt::spawn(Class::Storage, journal.clone().run());
    rt::spawn(Class::Background, shard.clone().run_flusher());
    if needs_replay {
        journal.ring().start_filler();
    }
    if let Some(old) = old {
        shard.recover(old).await?;
    }
    shard.first_checkpoint().await?;
    if !needs_replay && old.is_none() {
        journal.ring().start_filler();
    }
    Ok((
        shard,
        JournalRef {
            id: format!("{:032x}", journal_id.0),
            dir,
        },
    ))
}

/// Lets a recovered shard live, and reuses or removes what the old generation left.
async fn serve(shard: &Rc<Shard>, boxes: &Arc<Mailboxes>, old: Option<&Manifest>) {
    rt::spawn(
        Class::Network,
        drain(shard.clone(), take(&boxes.mail[shard.index])),
    );
    rt::spawn(Class::Network, shard.clone().run_parked());
    rt::spawn(Class::Background, shard.clone().run_housekeeping());
    rt::spawn(Class::Background, watch_stalls(shard.clone()));
    rt::spawn(Class::Background, shard.clone().run_scrubber());
    rt::spawn(Class::Background, shard.clone().run_cleaner());
    if let Some(old) = old {
        for (number, journal) in old.journals.iter().enumerate() {
            if number % shard.shards == shard.index {
                let dir = shard.config.journal_root.join(&journal.dir);
                if let Err(error) = retire(shard, &dir).await {
                    tracing::warn!(dir = %dir.display(), %error, "cannot reuse or remove an old journal");
                }
            }
        }
        if old.clean {
            shard.journal.ring().start_filler();
        } else {
            rt::spawn(Class::Background, remove_forgotten(shard.clone()));
        }
    }
    shard.space.recovered();
    shard.start_coordinators();
}

/// Segments that were about to be removed when a crash came are in no list any more.
async fn remove_forgotten(shard: Rc<Shard>) {
    let partitions: Vec<_> = shard.partitions.borrow().values().cloned().collect();
    for partition in partitions {
        if shard.stopping.get() {
            return;
        }
        if let Err(error) = partition.remove_forgotten().await {
            tracing::warn!(dir = %partition.dir.display(), %error, "cannot look for deleted segments");
        }
        rt::yield_if_needed().await;
    }
}

async fn largest_journal_file(root: &Path, old: &Manifest) -> io::Result<u64> {
    let mut largest = 0;
    for journal in &old.journals {
        let dir = root.join(&journal.dir);
        if !rt::fs::exists(&dir).await? {
            // Recovery says what that means.
            continue;
        }
        let entries = rt::fs::list_dir(&dir).await?;
        let files = entries.iter().filter(|e| e.name.ends_with(".journal"));
        largest = files.map(|e| e.len).max().unwrap_or(0).max(largest);
    }
    Ok(largest)
}

/// The old journal is dead: its files, zero-filled once, go on in the new ring.
async fn retire(shard: &Rc<Shard>, dir: &Path) -> io::Result<()> {
    if rt::fs::exists(&dir.join(KEPT)).await? {
        rt::fs::rename(dir, &dir.with_extension("damaged")).await?;
    } else if rt::fs::exists(dir).await? {
        for entry in rt::fs::list_dir(dir).await? {
            let path = dir.join(&entry.name);
            let adopted =
                entry.name.ends_with(".journal") && shard.journal.ring().adopt(&path).await?;
            if !adopted {
                rt::fs::remove_file(&path).await?;
            }
        }
        rt::fs::remove_dir_all(dir).await?;
    }
    Ok(())
}

/// A data directory without a manifest must not hold data: it would be taken for new.
async fn check_used_directory(config: &EngineConfig, has_manifest: bool) -> Result<(), StartError> {
    if has_manifest {
        return Ok(());
    }
    for used in [config.data_dir.join("topics"), config.journal_root()] {
        if !rt::fs::list_dir(&used).await?.is_empty()
            && rt::fs::list_dir(&config.data_dir.join("topics"))
                .await?
                .iter()
                .any(|e| e.is_dir)
        {
            return Err(no_manifest(config));
        }
    }
    Ok(())
}

fn no_manifest(config: &EngineConfig) -> StartError {
    let dir = config.data_dir.display();
    StartError::Refused(format!(
        "{dir} holds topics but no manifest.json: put the manifest back, or choose an empty --data-dir"
    ))
}

/// A manifest that is older than what lies beside it (a disk or somebody put an old one back) would have journals with
/// acknowledged records taken for leftovers. A start that was cut short leaves the next generation behind, and all of
/// the checkpoints that the manifest names: they go before anything of the next generation is served.
async fn check_newest(config: &EngineConfig, manifest: &Manifest) -> Result<(), StartError> {
    let checkpoints = config.data_dir.join("checkpoints");
    let mut newest = None;
    for dir in [&checkpoints, &config.journal_root()] {
        for entry in rt::fs::list_dir(dir).await? {
            let found = generation_of(&entry.name).map(|g| (g, dir.join(&entry.name)));
            newest = newest.max(found.filter(|(g, _)| *g > manifest.generation));
        }
    }
    let Some((generation, path)) = newest else {
        return Ok(());
    };
    if plant::active(Plant::TrustOldManifest) {
        return Ok(());
    }
    let mut explained = generation == manifest.generation + 1;
    for number in 0..manifest.journals.len() {
        let checkpoint = checkpoints.join(format!("g{}-s{number}", manifest.generation));
        explained &= rt::fs::exists(&checkpoint).await?;
    }
    if explained {
        return Ok(());
    }
    Err(StartError::Refused(format!(
        "manifest.json is older than {}: acknowledged records would be lost; put the newest manifest back",
        path.display()
    )))
}

/// The generation that the name of a journal's folder or of a checkpoint begins with: `g12-s3`.
fn generation_of(name: &str) -> Option<u64> {
    let (generation, _shard) = name.strip_prefix('g')?.split_once("-s")?;
    generation.parse().ok()
}

/// Checkpoints of other generations; durably, since their absence says that this one was served.
async fn remove_old_checkpoints(dir: &Path, generation: u64) -> io::Result<()> {
    for entry in rt::fs::list_dir(dir).await? {
        if generation_of(&entry.name).is_some_and(|g| g != generation) {
            rt::fs::remove_file(&dir.join(&entry.name)).await?;
        }
    }
    rt::fs::sync_dir(dir).await
}

/// Journals of starts that were cut short before their manifest was written.
async fn remove_leftovers(root: &Path, old: Option<&Manifest>) -> io::Result<()> {
    for entry in rt::fs::list_dir(root).await? {
        let named = old.is_some_and(|m| m.journals.iter().any(|j| j.dir == entry.name));
        if entry.is_dir
            && !named
            && entry.name.starts_with('g')
            && !entry.name.ends_with(".damaged")
        {
            rt::fs::remove_dir_all(&root.join(&entry.name)).await?;
        }
    }
    Ok(())
}

/// Counts and reports tasks that keep the shard from running others.
async fn watch_stalls(shard: Rc<Shard>) {
    while !shard.stopping.get() {
        let before = rt::now();
        rt::sleep(STALL_CHECK).await;
        let late = (rt::now() - before).saturating_sub(STALL_CHECK);
        if late > STALL {
            tracing::warn!(
                shard = shard.index,
                late_ms = late.as_millis() as u64,
                "the shard was stalled"
            );
            shard.count_stall();
        }
    }
}

struct Lead {
    meta: MetaHandle,
    manifest: Manifest,
    closed: RefCell<Option<InboxReceiver<Closed>>>,
}

/// What a shard needs for a clean stop.
pub struct ShardStop {
    boxes: Arc<Mailboxes>,
    lead: Option<Lead>,
}

impl ShardStop {
    /// Flushes the shard; on shard 0, once all shards have, marks the data directory clean if nothing is left in journals.
    pub async fn close(&self, shard: &Rc<Shard>) -> io::Result<()> {
        shard.begin_stop();
        let result = shard.close().await;
        let partitions: Vec<_> = shard.partitions.borrow().values().cloned().collect();
        for partition in partitions {
            partition.unlink_dropped().await;
        }
        let Some(lead) = &self.lead else {
            let _gone = self.boxes.closed.0.send((
                shard.index,
                result.as_ref().copied().map_err(|e| e.to_string()),
            ));
            return result.map(|_| ());
        };
        let mut all_left = result?;
        let closed = lead.closed.borrow_mut().take();
        let mut closed = closed.ok_or_else(|| io::Error::other("closed twice"))?;
        let mut left = shard.shards - 1;
        let mut batch = Vec::new();
        while left > 0 {
            if closed.recv_many(&mut batch, left).await == 0 {
                return Err(io::Error::other(
                    "a shard's thread ended before it was flushed",
                ));
            }
            for (_, result) in batch.drain(..) {
                all_left = all_left.max(result.map_err(io::Error::other)?);
                left -= 1;
            }
        }
        lead.meta.close().await.map_err(io::Error::other)?;
        if all_left == Left::InJournal {
            return Ok(());
        }
        let clean = Manifest {
            clean: true,
            metadata: lead.meta.image().version,
            ..lead.manifest.clone()
        };
        clean.write(&shard.config.data_dir).await
    }
}
