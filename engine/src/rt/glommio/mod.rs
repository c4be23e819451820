//! Owns the real runtime: executors, their task queues, tasks and blocking work, by glommio.
//! Does not know the simulator.
//! Invariant: a task is detached at birth, its panic aborts the process, and nothing polls a foreign waker from a
//! joinable task (the executor has a use-after-free there).

pub(super) mod buf;
pub(super) mod file;
pub(super) mod fs;
pub(super) mod net;
mod nudge;

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::future::{poll_fn, Future};
use std::io;
use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};
use std::pin::{pin, Pin};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use ::glommio::{
    CpuSet, GlommioError, Latency, LocalExecutorBuilder, Placement, PoolPlacement, Shares,
    TaskQueueHandle,
};
use futures_lite::FutureExt;

use super::task::Class;

/// How often sockets, timers and other threads' wakes are looked at while tasks are busy. The default of 100 ms starves
/// them; at 200 us a busy peer answers in about 200 us and nothing else became measurably slower. Not by queues whose
/// latency matters: for those every finished read of a socket interrupts the others, which costs a quarter of the
/// throughput.
const PREEMPT: Duration = Duration::from_micros(200);
/// Registered memory per ring. Three rings of two shards then fit the common 8 MiB limit of locked memory.
const IO_MEMORY_BYTES: usize = 1 << 20;
/// Threads per shard for blocking work, so that one long call (deleting a topic) does not hold up an open.
const BLOCKING_THREADS: usize = 2;

/// Relative claim of each class on a busy core, in `Class::ALL` order.
const SHARES: [usize; 4] = [1000, 1000, 800, 100];

/// Heartbeat of a shard that just ran tasks, and of one that has been idle for a while.
///
/// glommio 0.9.0 goes to sleep with runnable tasks when the preempt timer fires between being armed and the first queue
/// being looked at (`run_task_queues` then reports that nothing ran, and the executor parks): it takes a thread that is
/// descheduled for 200 us just there, one start in ten on an overloaded machine. Only another event gets it going, so
/// there is always one due. An idle wake-up every 50 ms cost about 0.3 % of a core.
const HEARTBEAT_BUSY: Duration = Duration::from_millis(1);
const HEARTBEAT_IDLE: Duration = Duration::from_millis(200);
/// How long an executor that is done waits for the pool.
const UNDER_WAY_MAX: Duration = Duration::from_secs(1);

thread_local! {
    /// Counts polls of tasks on this thread.
    static POLLS: Cell<u64> = const { Cell::new(0) };
    static UNDER_WAY: Cell<usize> = const { Cell::new(0) };
}

struct Queues {
    handles: [TaskQueueHandle; 4],
    drain: Option<Rc<Drain>>,
}

thread_local! {
    static QUEUES: RefCell<Option<Queues>> = const { RefCell::new(None) };
}

pub(super) fn spawn<F: Future<Output = ()> + 'static>(class: Class, f: F) {
    let (handle, drain) = QUEUES.with(|q| {
        let q = q.borrow();
        let q = q.as_ref().expect("spawn outside of a runtime");
        (q.handles[class as usize], q.drain.clone())
    });
    match drain {
        None => start(handle, f),
        Some(drain) => start(handle, drain.watch(f)),
    }
}

fn start<F: Future<Output = ()> + 'static>(handle: TaskQueueHandle, f: F) {
    let guarded = async move {
        if let Err(panic) = AssertUnwindSafe(counted(f)).catch_unwind().await {
            abort(&*panic);
        }
    };
    ::glommio::spawn_local_into(guarded, handle)
        .expect("the queues live as long as the executor")
        .detach();
}

async fn counted<T>(f: impl Future<Output = T>) -> T {
    let mut f = pin!(f);
    poll_fn(|cx| {
        POLLS.with(|p| p.set(p.get().wrapping_add(1)));
        f.as_mut().poll(cx)
    })
    .await
}

/// Runs `f` with the heartbeat in the same task, so that its first timer is set before anything else happens.
async fn with_heartbeat<T>(f: impl Future<Output = T>) -> T {
    let mut beat = pin!(heartbeat());
    let mut f = pin!(f);
    poll_fn(|cx| {
        let beating = beat.as_mut().poll(cx).is_pending();
        assert!(beating, "the heartbeat never ends");
        f.as_mut().poll(cx)
    })
    .await
}

async fn heartbeat() {
    let mut pause = HEARTBEAT_BUSY;
    loop {
        let before = POLLS.with(Cell::get);
        nudge::beat(pause);
        sleep(pause).await;
        pause = match POLLS.with(Cell::get) > before {
            true => HEARTBEAT_BUSY,
            false => (pause * 2).min(HEARTBEAT_IDLE),
        };
    }
}

fn abort(panic: &(dyn Any + Send)) -> ! {
    let text = panic_text(panic);
    tracing::error!("a task panicked, aborting: {text}");
    eprintln!("a task panicked, aborting: {text}");
    std::process::abort()
}

pub(super) fn panic_text(panic: &(dyn Any + Send)) -> &str {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(s), _) => s,
        (None, Some(s)) => s,
        (None, None) => "(no message)",
    }
}

pub(super) async fn yield_now() {
    ::glommio::executor().yield_task_queue_now().await;
}

pub(super) fn should_yield() -> bool {
    ::glommio::executor().need_preempt()
}

pub(super) async fn sleep(d: Duration) {
    ::glommio::timer::sleep(d).await;
}

/// Work of the pool whose end somebody waits for. A pool thread panics when its executor is gone before that.
struct UnderWay;

impl UnderWay {
    fn begin() -> UnderWay {
        UNDER_WAY.with(|n| n.set(n.get() + 1));
        UnderWay
    }

    /// Waits until there is none, but not for a device that hangs.
    async fn end() {
        let begun = Instant::now();
        while UNDER_WAY.with(Cell::get) > 0 && begun.elapsed() < UNDER_WAY_MAX {
            sleep(Duration::from_millis(1)).await;
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        UNDER_WAY.with(|n| n.set(n.get() - 1));
    }
}

/// Whether blocking work would begin at once.
pub(super) fn has_free_thread() -> bool {
    UNDER_WAY.with(Cell::get) < BLOCKING_THREADS
}

/// The result travels in a slot of our own: glommio's would leak it (an open file, say) when the caller is cancelled, and
/// a panic would kill its pool thread.
pub(super) async fn blocking<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> T {
    let _under_way = UnderWay::begin();
    let slot = Arc::new(Mutex::new(None));
    let fill = slot.clone();
    ::glommio::executor()
        .spawn_blocking(move || {
            let result = catch_unwind(AssertUnwindSafe(f));
            *fill.lock().expect("nothing panics with the lock held") = Some(result);
        })
        .await;
    let result = slot
        .lock()
        .expect("nothing panics with the lock held")
        .take();
    match result.expect("the pool ran the closure") {
        Ok(v) => v,
        Err(panic) => resume_unwind(panic),
    }
}

pub(super) fn io_error(e: GlommioError<()>) -> io::Error {
    match e {
        GlommioError::IoError(e) => e,
        GlommioError::EnhancedIoError { source, .. } => source,
        other @ (GlommioError::ExecutorError(_)
        | GlommioError::BuilderError(_)
        | GlommioError::Closed(_)
        | GlommioError::CanNotBeClosed(..)
        | GlommioError::WouldBlock(_)
        | GlommioError::ReactorError(_)
        | GlommioError::TimedOut(_)) => io::Error::other(other.to_string()),
    }
}

fn builder(cpu: Option<usize>, name: &str) -> io::Result<LocalExecutorBuilder> {
    let (placement, pool) = match cpu {
        None => (Placement::Unbound, PoolPlacement::Unbound(BLOCKING_THREADS)),
        Some(cpu) => {
            let set = CpuSet::online().map_err(io_error)?.filter(|c| c.cpu == cpu);
            let sets = vec![set; BLOCKING_THREADS];
            (Placement::Fixed(cpu), PoolPlacement::Custom(sets))
        }
    };
    Ok(LocalExecutorBuilder::new(placement)
        .blocking_thread_pool_placement(pool)
        .name(name)
        .preempt_timer(PREEMPT)
        .io_memory(IO_MEMORY_BYTES))
}

/// Runs inside a fresh executor: makes the queues, runs `f`, and (with `drain`) then ends every task still parked.
async fn inside<T>(drain: bool, f: impl Future<Output = T>) -> T {
    let handles = Class::ALL.map(|c| {
        ::glommio::executor().create_task_queue(
            Shares::Static(SHARES[c as usize]),
            Latency::NotImportant,
            queue_name(c),
        )
    });
    let drain = drain.then(|| Rc::new(Drain::default()));
    QUEUES.with(|q| {
        *q.borrow_mut() = Some(Queues {
            handles,
            drain: drain.clone(),
        })
    });
    let result = with_heartbeat(async {
        let result = f.await;
        if let Some(drain) = drain {
            drain.finish().await;
        }
        UnderWay::end().await;
        result
    })
    .await;
    file::forget_devices();
    QUEUES.with(|q| *q.borrow_mut() = None);
    result
}

fn queue_name(c: Class) -> &'static str {
    match c {
        Class::Network => "network",
        Class::Storage => "storage",
        Class::Replication => "replication",
        Class::Background => "background",
    }
}

fn run_on_this_thread<T>(
    builder: LocalExecutorBuilder,
    drain: bool,
    f: impl Future<Output = T>,
) -> io::Result<T> {
    let executor = builder.make().map_err(io_error)?;
    let _watch = nudge::watch();
    Ok(executor.run(inside(drain, f)))
}

pub(super) fn run_here<T>(f: impl Future<Output = T>) -> io::Result<T> {
    run_on_this_thread(builder(None, "rt")?, true, f)
}

pub(super) type Thread<T> = std::thread::JoinHandle<io::Result<T>>;

pub(super) fn start_thread<Fut>(
    cpu: Option<usize>,
    name: &str,
    drain: bool,
    make: impl FnOnce() -> Fut + Send + 'static,
) -> io::Result<Thread<Fut::Output>>
where
    Fut: Future + 'static,
    Fut::Output: Send + 'static,
{
    let builder = builder(cpu, name)?;
    std::thread::Builder::new()
        .name(name.into())
        .spawn(move || run_on_this_thread(builder, drain, async move { make().await }))
}

pub(super) fn join_thread<T: Send + 'static>(t: Thread<T>) -> io::Result<T> {
    match t.join() {
        Ok(result) => result,
        Err(panic) => Err(io::Error::other(format!(
            "shard panicked: {}",
            panic_text(&*panic)
        ))),
    }
}

/// Ends parked tasks when an executor is done. The executor never drops a parked task by itself, and leaks its rings,
/// its thread and its memory with it; a broker exits anyway, tools and tests do not.
#[derive(Default)]
struct Drain {
    ending: Cell<bool>,
    next_id: Cell<u64>,
    live: RefCell<std::collections::HashMap<u64, Option<Waker>>>,
}

impl Drain {
    fn watch<F: Future<Output = ()> + 'static>(
        self: &Rc<Self>,
        f: F,
    ) -> impl Future<Output = ()> + 'static {
        let id = self.next_id.get();
        self.next_id.set(id + 1);
        self.live.borrow_mut().insert(id, None);
        Watched {
            drain: self.clone(),
            id,
            f: Some(Box::pin(f)),
        }
    }

    async fn finish(&self) {
        self.ending.set(true);
        loop {
            let wakers: Vec<Waker> = self
                .live
                .borrow_mut()
                .values_mut()
                .filter_map(Option::take)
                .collect();
            for w in wakers {
                w.wake();
            }
            if self.live.borrow().is_empty() {
                break;
            }
            yield_now().await;
        }
        // The tasks' last reads and writes are cancelled by the next rounds of the I/O loop.
        for _ in 0..8 {
            yield_now().await;
        }
    }
}

struct Watched<F> {
    drain: Rc<Drain>,
    id: u64,
    f: Option<Pin<Box<F>>>,
}

impl<F: Future<Output = ()>> Future for Watched<F> {
    type Output = ();
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.drain.ending.get() {
            self.f = None;
            return Poll::Ready(());
        }
        let done = self
            .f
            .as_mut()
            .expect("polled after completion")
            .as_mut()
            .poll(cx);
        if done.is_pending() {
            let mut live = self.drain.live.borrow_mut();
            live.insert(self.id, Some(cx.waker().clone()));
        } else {
            self.f = None;
        }
        done
    }
}

impl<F> Drop for Watched<F> {
    fn drop(&mut self) {
        self.f = None;
        self.drain.live.borrow_mut().remove(&self.id);
    }
}
