//! Owns the simulated executor: tasks by node, the seeded choice of the next one, virtual time, timers, the trace.
//! Does not know what disks and sockets do beyond the delays they ask for.
//! Invariant: time moves only when nothing is ready, and every choice comes from one seeded sequence.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::{pin, Pin};
use std::rc::{Rc, Weak};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use super::super::time::{nanos, Mono};
use super::disk::Disk;
use super::net::Net;
use super::{Between, CrashPolicy, NodeId, Owner, SimConfig};

thread_local! {
    static CURRENT: RefCell<Option<Rc<Core>>> = const { RefCell::new(None) };
}

/// The simulation of this thread, if it is inside of one.
#[inline]
pub(in crate::rt) fn current() -> Option<Rc<Core>> {
    // Destructors of other thread-locals may ask when this one is gone already.
    CURRENT.try_with(|c| c.borrow().clone()).unwrap_or_default()
}

/// Virtual time, inside of a simulation.
#[inline]
pub(in crate::rt) fn now() -> Option<Mono> {
    CURRENT
        .try_with(|c| c.borrow().as_ref().map(|core| core.now()))
        .unwrap_or_default()
}

/// One step of the splitmix64 generator.
pub(in crate::rt) fn splitmix64(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Makes a simulation current, and the previous one again when dropped.
struct Enter(Option<Rc<Core>>);

impl Enter {
    fn new(core: &Rc<Core>) -> Enter {
        Enter(CURRENT.with(|c| c.borrow_mut().replace(core.clone())))
    }
}

impl Drop for Enter {
    fn drop(&mut self) {
        CURRENT.with(|c| *c.borrow_mut() = self.0.take());
    }
}

type TaskId = u64;
const ROOT: TaskId = 0;

struct TaskWaker {
    id: TaskId,
    ready: Arc<Mutex<Vec<TaskId>>>,
    queued: AtomicBool,
}

impl TaskWaker {
    fn new(id: TaskId, ready: &Arc<Mutex<Vec<TaskId>>>) -> Arc<TaskWaker> {
        Arc::new(TaskWaker {
            id,
            ready: ready.clone(),
            queued: AtomicBool::new(false),
        })
    }
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }
    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::AcqRel) {
            let mut ready = self
                .ready
                .lock()
                .expect("nothing panics with the lock held");
            ready.push(self.id);
        }
    }
}

struct Task {
    node: NodeId,
    /// None while it is being polled.
    future: Option<Pin<Box<dyn Future<Output = ()>>>>,
    waker: Arc<TaskWaker>,
}

pub(in crate::rt) struct Core {
    seed: u64,
    pub(super) cfg: SimConfig,
    rng: Cell<u64>,
    clock: Cell<u64>,
    wall_offset_ms: Cell<i64>,
    tasks: RefCell<BTreeMap<TaskId, Task>>,
    next_task: Cell<TaskId>,
    ready: Arc<Mutex<Vec<TaskId>>>,
    timers: RefCell<BTreeMap<(u64, u64), Waker>>,
    next_timer: Cell<u64>,
    node: Cell<NodeId>,
    dying: Cell<Option<NodeId>>,
    disks: RefCell<BTreeMap<NodeId, Disk>>,
    pub(super) net: RefCell<Net>,
    trace: Cell<u64>,
    polls: Cell<u64>,
    /// Operations that came to their effect, on all disks.
    disk_steps: Cell<u64>,
    owner: RefCell<Weak<Owner>>,
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "simulation {} at {} ns", self.seed, self.clock.get())
    }
}

impl Core {
    pub(super) fn new(seed: u64, cfg: SimConfig) -> Rc<Core> {
        Rc::new(Core {
            seed,
            cfg,
            rng: Cell::new(seed),
            clock: Cell::new(0),
            wall_offset_ms: Cell::new(0),
            tasks: RefCell::default(),
            next_task: Cell::new(ROOT + 1),
            ready: Arc::default(),
            timers: RefCell::default(),
            next_timer: Cell::new(0),
            node: Cell::new(NodeId::FIRST),
            dying: Cell::new(None),
            disks: RefCell::default(),
            net: RefCell::default(),
            trace: Cell::new(seed),
            polls: Cell::new(0),
            disk_steps: Cell::new(0),
            owner: RefCell::default(),
        })
    }

    pub(super) fn set_owner(&self, owner: Weak<Owner>) {
        *self.owner.borrow_mut() = owner;
    }

    pub(super) fn owner(&self) -> Option<Rc<Owner>> {
        self.owner.borrow().upgrade()
    }

    pub(super) fn seed(&self) -> u64 {
        self.seed
    }

    pub(super) fn trace(&self) -> u64 {
        self.trace.get()
    }

    pub(super) fn polls(&self) -> u64 {
        self.polls.get()
    }

    pub(super) fn disk_steps(&self) -> u64 {
        self.disk_steps.get()
    }

    pub(super) fn now(&self) -> Mono {
        Mono(self.clock.get())
    }

    pub(in crate::rt) fn wall_ms(&self) -> i64 {
        let elapsed = (self.clock.get() / 1_000_000) as i64;
        self.cfg.wall_start_ms + elapsed + self.wall_offset_ms.get()
    }

    pub(super) fn jump_wall(&self, delta_ms: i64) {
        self.wall_offset_ms
            .set(self.wall_offset_ms.get() + delta_ms);
    }

    /// Adds an event to the trace.
    pub(super) fn note(&self, event: u64) {
        let mut t = self.trace.get() ^ event;
        self.trace.set(splitmix64(&mut t));
    }

    pub(in crate::rt) fn random(&self) -> u64 {
        let mut state = self.rng.get();
        let out = splitmix64(&mut state);
        self.rng.set(state);
        out
    }

    /// Uniform in `0..n`.
    pub(super) fn below(&self, n: u64) -> u64 {
        assert!(n > 0, "an empty range");
        self.random() % n
    }

    /// True once in `n` times.
    pub(in crate::rt) fn one_in(&self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub(super) fn chance_ppm(&self, ppm: u32) -> bool {
        ppm > 0 && self.below(1_000_000) < u64::from(ppm)
    }

    /// A duration from the range, seldom a slow one.
    pub(super) fn pick(&self, b: Between) -> Duration {
        let (lo, hi) = (nanos(b.0), nanos(b.1));
        assert!(lo <= hi, "an inverted range");
        let ns = lo + self.below(hi - lo + 1);
        let slow = self.chance_ppm(self.cfg.slow_ppm);
        Duration::from_nanos(if slow { ns * 20 } else { ns })
    }

    pub(super) fn node(&self) -> NodeId {
        self.node.get()
    }

    pub(super) fn nodes(&self) -> Vec<NodeId> {
        let mut nodes: Vec<NodeId> = self.tasks.borrow().values().map(|t| t.node).collect();
        nodes.extend(self.disks.borrow().keys());
        nodes.extend(self.net_nodes());
        nodes.push(NodeId::FIRST);
        nodes.sort();
        nodes.dedup();
        nodes
    }

    pub(super) fn with_disk<T>(&self, node: NodeId, f: impl FnOnce(&mut Disk) -> T) -> T {
        let mut disks = self.disks.borrow_mut();
        f(disks
            .entry(node)
            .or_insert_with(|| Disk::new(self.cfg.disk_bytes)))
    }

    pub(super) fn with_node<T>(self: &Rc<Self>, node: NodeId, f: impl FnOnce() -> T) -> T {
        let _enter = Enter::new(self);
        let before = self.node.replace(node);
        let out = f();
        self.node.set(before);
        out
    }

    pub(in crate::rt) fn spawn(&self, f: impl Future<Output = ()> + 'static) {
        let node = self.node.get();
        if self.dying.get() == Some(node) {
            // A destructor of a crashed task; the machine is off.
            return;
        }
        let id = self.next_task.get();
        self.next_task.set(id + 1);
        let waker = TaskWaker::new(id, &self.ready);
        let task = Task {
            node,
            future: Some(Box::pin(f)),
            waker: waker.clone(),
        };
        self.tasks.borrow_mut().insert(id, task);
        waker.wake();
    }

    pub(super) fn block_on<T>(self: &Rc<Self>, f: impl Future<Output = T>) -> T {
        let done = self.block_on_until(u64::MAX, f);
        done.expect("no disk takes so many steps")
    }

    /// None where the disks have taken `steps` steps before `f` is done.
    pub(super) fn block_on_until<T>(
        self: &Rc<Self>,
        steps: u64,
        f: impl Future<Output = T>,
    ) -> Option<T> {
        let _enter = Enter::new(self);
        let _report = Report(self);
        assert!(
            self.node.get() == NodeId::FIRST,
            "block_on inside of block_on"
        );
        let mut root = pin!(f);
        let root_waker = TaskWaker::new(ROOT, &self.ready);
        let waker = Waker::from(root_waker.clone());
        root_waker.wake_by_ref();
        while self.disk_steps.get() < steps {
            let Some(id) = self.next_ready() else {
                self.advance();
                continue;
            };
            self.count_poll(id);
            if id != ROOT {
                self.poll_task(id);
                continue;
            }
            root_waker.queued.store(false, Ordering::Release);
            self.node.set(NodeId::FIRST);
            if let Poll::Ready(v) = root.as_mut().poll(&mut Context::from_waker(&waker)) {
                self.forget_root();
                return Some(v);
            }
        }
        self.forget_root();
        None
    }

    /// A wake that is still queued belongs to this root, not to the next one.
    fn forget_root(&self) {
        self.ready_list().retain(|id| *id != ROOT);
    }

    fn ready_list(&self) -> std::sync::MutexGuard<'_, Vec<TaskId>> {
        self.ready
            .lock()
            .expect("nothing panics with the lock held")
    }

    fn next_ready(&self) -> Option<TaskId> {
        let mut ready = self.ready_list();
        if ready.is_empty() {
            return None;
        }
        let i = self.below(ready.len() as u64) as usize;
        Some(ready.swap_remove(i))
    }

    fn count_poll(&self, id: TaskId) {
        self.note(id ^ self.clock.get().rotate_left(20));
        let polls = self.polls.get() + 1;
        self.polls.set(polls);
        assert!(
            polls <= self.cfg.polls_max,
            "{polls} polls: something spins without letting time pass"
        );
    }

    fn poll_task(&self, id: TaskId) {
        let (mut future, waker) = {
            let mut tasks = self.tasks.borrow_mut();
            // A wake may come after the task ended or crashed.
            let Some(task) = tasks.get_mut(&id) else {
                return;
            };
            task.waker.queued.store(false, Ordering::Release);
            self.node.set(task.node);
            let future = task.future.take().expect("polled twice at once");
            (future, Waker::from(task.waker.clone()))
        };
        let done = future.as_mut().poll(&mut Context::from_waker(&waker));
        if done.is_pending() {
            let mut tasks = self.tasks.borrow_mut();
            if let Some(task) = tasks.get_mut(&id) {
                task.future = Some(future);
                future = Box::pin(std::future::ready(()));
            }
        } else {
            self.tasks.borrow_mut().remove(&id);
        }
        // Here ends a task that is done, or that crashed its own node.
        drop(future);
        self.node.set(NodeId::FIRST);
    }

    fn advance(&self) {
        let due = {
            let mut timers = self.timers.borrow_mut();
            let Some((&(t, _), _)) = timers.first_key_value() else {
                panic!("the simulation is stuck: every task waits for another");
            };
            self.clock.set(self.clock.get().max(t));
            let later = timers.split_off(&(self.clock.get() + 1, 0));
            std::mem::replace(&mut *timers, later)
        };
        for w in due.into_values() {
            w.wake();
        }
    }

    /// Wakes `waker` at `t`. The key cancels it.
    pub(super) fn add_timer(&self, t: Mono, waker: Waker) -> (u64, u64) {
        let n = self.next_timer.get();
        self.next_timer.set(n + 1);
        let key = (t.0, n);
        self.timers.borrow_mut().insert(key, waker);
        key
    }

    pub(in crate::rt) fn sleep_until(self: &Rc<Self>, t: Mono) -> Sleep {
        Sleep {
            core: self.clone(),
            until: t,
            key: None,
        }
    }

    pub(super) fn delay(self: &Rc<Self>, b: Between) -> Sleep {
        let until = self.now() + self.pick(b);
        self.sleep_until(until)
    }

    /// A delay of this node's disk, behind which the operation has its effect.
    pub(super) async fn disk_delay(self: &Rc<Self>, b: Between) {
        let now = self.now();
        let extra = self.with_disk(self.node(), |d| d.spike(now));
        self.sleep_until(now + self.pick(b) + extra).await;
        self.disk_steps.set(self.disk_steps.get() + 1);
    }

    pub(in crate::rt) fn blocking_delay(self: &Rc<Self>) -> Sleep {
        self.delay(self.cfg.blocking)
    }

    /// Drops tasks, with the simulation current, because destructors use it.
    pub(super) fn drop_tasks(self: &Rc<Self>, which: impl Fn(NodeId) -> bool) {
        let _enter = Enter::new(self);
        loop {
            let dead: Vec<Task> = {
                let mut tasks = self.tasks.borrow_mut();
                let ids: Vec<TaskId> = tasks
                    .iter()
                    .filter(|(_, t)| which(t.node))
                    .map(|(id, _)| *id)
                    .collect();
                ids.iter().filter_map(|id| tasks.remove(id)).collect()
            };
            if dead.is_empty() {
                return;
            }
            let before = self.node.get();
            for task in dead {
                self.node.set(task.node);
                self.dying.set(Some(task.node));
                drop(task);
                self.dying.set(None);
            }
            self.node.set(before);
        }
    }

    pub(super) fn crash_node(self: &Rc<Self>, node: NodeId, policy: CrashPolicy) {
        let _enter = Enter::new(self);
        self.note(u64::from(node.0) ^ 0xc7a5_4000);
        // The disk first: what the dropped tasks had under way is settled by the crash, not by their destructors.
        let mut disk = self
            .disks
            .borrow_mut()
            .remove(&node)
            .unwrap_or_else(|| Disk::new(self.cfg.disk_bytes));
        disk.crash(self, policy);
        self.disks.borrow_mut().insert(node, disk);
        self.net_crash(node);
        self.drop_tasks(|n| n == node);
    }
}

/// Says on the way out of a panic how to come back.
struct Report<'a>(&'a Core);

impl Drop for Report<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "simulation seed {} failed at {} ns of virtual time, after {} polls",
                self.0.seed,
                self.0.clock.get(),
                self.0.polls.get()
            );
        }
        self.0.node.set(NodeId::FIRST);
    }
}

/// See [`Core::sleep_until`].
#[derive(Debug)]
pub(in crate::rt) struct Sleep {
    core: Rc<Core>,
    until: Mono,
    key: Option<(u64, u64)>,
}

impl Sleep {
    fn cancel(&mut self) {
        if let Some(key) = self.key.take() {
            self.core.timers.borrow_mut().remove(&key);
        }
    }
}

impl Future for Sleep {
    type Output = ();
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.cancel();
        if self.core.now() >= self.until {
            return Poll::Ready(());
        }
        self.key = Some(self.core.add_timer(self.until, cx.waker().clone()));
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.cancel();
    }
}
