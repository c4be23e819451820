//! Owns the joining of engine, network and control: the shard threads from their start to their end.
//! Does not know what a shard stores or answers.
//! Invariant: clients are served only when every shard has recovered, and a shard is flushed only when
//! its clients are gone.

use crate::config::Config;
use crate::control::metrics::Sample;
use crate::control::{readings, Answer, Control, Shards};
use crate::dirs;
use crate::failure::Failure;
use crate::listeners::{Advertised, Listeners};
use crate::memory;
use millrace_engine::api::meta::Overrides;
use millrace_engine::api::{self, EngineConfig, EngineHandle, Mailboxes, OnFatal};
use millrace_engine::rt::{self, ShardThreads};
use millrace_net::{NetConfig, NetShared};
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

/// Creating a shard's thread and its rings takes milliseconds; recovery comes after.
const THREADS_START_MAX: Duration = Duration::from_secs(60);

/// The running shards, until they end.
pub struct Broker {
    threads: ShardThreads<Result<(), String>>,
}

/// What a shard's thread tells the main thread.
enum Said {
    Started,
    Serving,
}

/// What every shard's thread needs.
struct Parts {
    engine: EngineConfig,
    boxes: Arc<Mailboxes>,
    listeners: Listeners,
    net: Arc<NetConfig>,
    shared: Arc<NetShared>,
}

/// Starts the shards and waits until all of them serve.
pub fn start(config: &Config, listeners: &Listeners, control: &Control) -> Result<Broker, Failure> {
    let failed = |error: std::io::Error| Failure::new(format!("cannot start the shards: {error}"));
    // One executor on trial: its error says more than a thread that does not come up.
    rt::run_one(async {}).map_err(|error| {
        Failure::new(format!("cannot set up io_uring: {error}"))
            .todo("`millrace check` says what to change; memlock and nofile are the usual limits.")
    })?;
    let advertised = listeners.advertised(config)?;
    let of_flags = settings_of_flags(config, listeners, &advertised)?;
    let mut engine = engine_config(config, &advertised);
    let journal_root = engine.journal_root();
    dirs::create(&journal_root).map_err(|error| {
        Failure::new(format!(
            "cannot create the journal directory {}: {error}",
            journal_root.display()
        ))
        .todo("Create it for this user, or name another one with --journal-dir.")
    })?;
    let mut net = NetConfig {
        advertised_host: engine.advertised_host.clone(),
        advertised_port: engine.advertised_port,
        core_ports: advertised.core_ports,
        ..NetConfig::default()
    };
    engine.broker_settings = net.broker_settings();
    engine
        .broker_settings
        .extend(config.broker_settings.clone());
    engine.broker_settings.extend(of_flags);
    net.follow(&engine.broker_settings)
        .map_err(|error| Failure::new(format!("set: {error}")))?;
    let threads = (0..config.shards).map(|id| rt::ShardConfig {
        id,
        cpu: Some(config.cpus[id % config.cpus.len()]),
        name: format!("millrace-{id}"),
        dirs: vec![config.data_dir.clone(), journal_root.clone()],
        drain: false,
    });
    let boxes = Mailboxes::new(config.shards);
    let handle = boxes.handle();
    let shared = NetShared::new(config.shards);
    if config.debug_flush_delay_ms > 0 {
        tracing::warn!(
            "every flush takes {} ms longer, as debug-flush-delay-ms says",
            config.debug_flush_delay_ms
        );
        rt::delay_flushes(Duration::from_millis(config.debug_flush_delay_ms));
    }
    let parts = Arc::new(Parts {
        engine,
        boxes,
        listeners: listeners.try_clone().map_err(failed)?,
        net: Arc::new(net),
        shared: Arc::clone(&shared),
    });
    // Each shard says at most two things.
    let (say, said) = flume::bounded(2 * config.shards);
    let threads = rt::run_shards(threads.collect(), move |id| {
        run_shard(Arc::clone(&parts), id, say.clone())
    })
    .map_err(failed)?;
    let broker = Broker { threads };
    for _ in 0..config.shards {
        match said.recv_timeout(THREADS_START_MAX) {
            Ok(Said::Started) => {}
            Ok(Said::Serving) => unreachable!("no shard serves before all have recovered"),
            Err(flume::RecvTimeoutError::Disconnected) => return Err(broker.why_not_started()),
            Err(flume::RecvTimeoutError::Timeout) => {
                return Err(Failure::new("a shard's thread does not come up").todo(
                    "Most likely its io_uring rings do not fit the limits: `millrace check` says what to change.",
                ));
            }
        }
    }
    for _ in 0..config.shards {
        if said.recv().is_err() {
            // Others may serve already, and would for ever.
            handle.stop();
            return Err(broker.why_not_started());
        }
    }
    // Not before: a signal during recovery ends the process at once, which recovery is made for.
    control.state.attach(Arc::new(Running { handle, shared }));
    Ok(broker)
}

/// One shard's life, on its own thread.
async fn run_shard(parts: Arc<Parts>, id: usize, say: flume::Sender<Said>) -> Result<(), String> {
    // The main thread may have given up; its end is the end of the process.
    let tell = |what| drop(say.send(what));
    tell(Said::Started);
    let text = |error: std::io::Error| error.to_string();
    let broker = api::Broker::start(parts.engine.clone(), id, Arc::clone(&parts.boxes)).await;
    let broker = broker.map_err(|e| e.to_string())?;
    let handle = |l: &TcpListener| rt::Listener::from_std(l.try_clone()?);
    let of_node = parts.listeners.of_node.iter().map(handle);
    let of_shard = parts.listeners.of_shards.get(id).map(handle);
    let listeners = millrace_net::Listeners {
        of_node: of_node.collect::<Result<_, _>>().map_err(text)?,
        of_shard: of_shard.transpose().map_err(text)?,
    };
    tell(Said::Serving);
    drop(say);
    millrace_net::serve(
        broker.clone(),
        listeners,
        Arc::clone(&parts.net),
        Arc::clone(&parts.shared),
    )
    .await;
    broker.close().await.map_err(text)
}

impl Broker {
    /// Waits for the shards to end, which they do when the broker is stopped.
    pub fn join(self) -> Result<(), Failure> {
        match self.first_error() {
            None => Ok(()),
            Some(error) => Err(
                Failure::new(format!("the broker did not stop cleanly: {error}")).todo(
                    "The next start recovers from the journals; nothing acknowledged is lost.",
                ),
            ),
        }
    }

    fn why_not_started(self) -> Failure {
        match self.first_error() {
            None => Failure::new("the broker stopped while it was starting"),
            Some(error) => Failure::new(format!("cannot start: {error}")),
        }
    }

    /// The error of the shard that failed; the others only say that another one did.
    fn first_error(self) -> Option<String> {
        let results = self.threads.join().into_iter();
        let mut errors: Vec<String> = results
            .filter_map(|ended| ended.map_err(|e| e.to_string()).and_then(|r| r).err())
            .collect();
        errors.sort_by_key(|error| error.starts_with("another shard"));
        errors.into_iter().next()
    }
}

fn engine_config(config: &Config, advertised: &Advertised) -> EngineConfig {
    let mut engine = EngineConfig::new(config.data_dir.clone());
    engine.journal_dir = config.journal_dir.clone();
    engine.node_id = config.node_id;
    engine.advertised_host = advertised.node.host.clone();
    engine.advertised_port = advertised.node.port;
    engine.memory_bytes = memory::without_fixed(config.memory_bytes);
    engine.disk_reserve_bytes = config.disk_reserve_bytes;
    engine.on_fatal = OnFatal::new(|reason| {
        // Nothing is acknowledged any more: the one way back is to start again and recover.
        eprintln!("millrace: storage failed: {reason}\n  Check the disk and `dmesg`, then start again: it recovers.");
        std::process::exit(1);
    });
    engine
}

/// What has a flag of its own, by Kafka's names: tools are shown it as given at the start.
fn settings_of_flags(
    config: &Config,
    listeners: &Listeners,
    advertised: &Advertised,
) -> Result<Overrides, Failure> {
    let mut settings = listeners.settings(config, advertised)?;
    settings.insert("node.id".to_string(), config.node_id.to_string());
    settings.insert(
        "log.dirs".to_string(),
        config.data_dir.display().to_string(),
    );
    Ok(settings)
}

/// The shards as the control thread sees them.
struct Running {
    handle: EngineHandle,
    shared: Arc<NetShared>,
}

impl Shards for Running {
    fn count(&self) -> usize {
        self.handle.shards()
    }

    fn ask(&self, shard: usize) -> Answer {
        let handle = self.handle.clone();
        Box::pin(async move { Some(readings::of_engine(&handle.metrics(shard).await?)) })
    }

    fn counted(&self) -> Vec<Vec<Sample>> {
        self.shared
            .snapshot()
            .iter()
            .map(readings::of_net)
            .collect()
    }

    fn stop(&self) {
        self.handle.stop();
    }
}
