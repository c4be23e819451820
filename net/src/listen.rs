//! Owns the listeners and the life of connections: accepting, spreading over the shards, timing out, stopping.
//! Does not know requests.
//! Invariant: when `serve` returns, no task of this module and no connection of this shard is left.

use crate::config::{ConnectionCaps, NetConfig};
use crate::conn::Conn;
use crate::ledger::RELIEF_TICK;
use crate::shard::ShardNet;
use crate::shared::{Door, Handoff, NetShared};
use futures_lite::future::or;
use millrace_engine::api::Broker;
use millrace_engine::rt::{self, Class};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Connections taken from the mailbox at once.
const MAIL_MAX: usize = 64;

/// Pause after a failed accept: long enough for descriptors to become free, short enough not to be felt.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a shard accepts connections from.
pub struct Listeners {
    /// Handles of the *same* bound listeners on every shard: connections are spread, and the number of shards is not
    /// visible from outside.
    pub of_node: Vec<rt::Listener>,
    /// This shard's own, where it is a broker of its own to clients.
    pub of_shard: Option<rt::Listener>,
}

impl From<Vec<rt::Listener>> for Listeners {
    fn from(of_node: Vec<rt::Listener>) -> Listeners {
        Listeners {
            of_node,
            of_shard: None,
        }
    }
}

/// Serves clients on this shard until the broker stops and every connection has closed.
///
/// Every shard of the process calls this once; `shared` is one for all.
pub async fn serve(
    broker: Broker,
    listeners: impl Into<Listeners>,
    config: Arc<NetConfig>,
    shared: Arc<NetShared>,
) {
    let shard = ShardNet::new(broker, config, shared);
    let mut tasks = Vec::new();
    let Listeners { of_node, of_shard } = listeners.into();
    let doors = of_node.into_iter().map(|listener| (listener, Door::Node));
    for (listener, door) in doors.chain(of_shard.map(|listener| (listener, Door::Core))) {
        tasks.push(rt::spawn_joined(
            Class::Network,
            accept_loop(shard.clone(), listener, door),
        ));
    }
    tasks.push(rt::spawn_joined(Class::Network, mail_loop(shard.clone())));
    tasks.push(rt::spawn_joined(
        Class::Network,
        timeout_loop(shard.clone()),
    ));
    tasks.push(rt::spawn_joined(Class::Network, relief_loop(shard.clone())));
    shard.broker.stopped().await;
    shard.begin_stop();
    for task in tasks {
        task.await;
    }
    let deadline = rt::now() + shard.config.stop_grace;
    while !shard.is_empty() {
        let left = shard.left.notified();
        if shard.is_empty() {
            break;
        }
        let remaining = deadline.since(rt::now());
        if remaining.is_zero() || rt::timeout(remaining, left).await.is_none() {
            shard.abort_all();
            break;
        }
    }
    while !shard.is_empty() {
        let left = shard.left.notified();
        if !shard.is_empty() {
            left.await;
        }
    }
}

/// While fetches wait for memory, has those who take nothing of their answers give it back.
async fn relief_loop(shard: Rc<ShardNet>) {
    while unless_stopped(&shard, shard.broker.responses_short())
        .await
        .is_some()
    {
        shard.relieve_responses(rt::now());
        if unless_stopped(&shard, rt::sleep(RELIEF_TICK))
            .await
            .is_none()
        {
            return;
        }
    }
}

/// `f`'s result, or `None` as soon as the broker begins to stop.
async fn unless_stopped<T>(shard: &ShardNet, f: impl std::future::Future<Output = T>) -> Option<T> {
    let stop = shard.stop.notified();
    if shard.stopping.get() {
        return None;
    }
    or(
        async {
            stop.await;
            None
        },
        async { Some(f.await) },
    )
    .await
}

async fn accept_loop(shard: Rc<ShardNet>, listener: rt::Listener, door: Door) {
    let mut failures = 0u32;
    while let Some(accepted) = unless_stopped(&shard, listener.accept()).await {
        match accepted {
            Ok((stream, peer)) => {
                failures = 0;
                accept(&shard, stream, peer, door);
                // However many queue up, those that are in already have their turns.
                rt::yield_if_needed().await;
            }
            Err(error) => {
                // Out of descriptors, most likely: accepting again at once would only burn the core.
                if failures == 0 {
                    tracing::warn!(%error, "cannot accept connections; trying again");
                }
                failures = (failures + 1).min(10);
                if unless_stopped(&shard, rt::sleep(ACCEPT_PAUSE * failures))
                    .await
                    .is_none()
                {
                    return;
                }
            }
        }
    }
}

fn accept(shard: &Rc<ShardNet>, stream: rt::TcpStream, peer: SocketAddr, door: Door) {
    let caps = ConnectionCaps::of(&shard.broker.image().broker_config);
    let ticket = match shard.shared.admit(peer.ip(), shard.index, door, caps) {
        Ok(ticket) => ticket,
        Err(refused) => {
            shard.metrics.refused();
            tracing::debug!(%peer, %refused, "connection refused");
            return;
        }
    };
    shard.metrics.accepted();
    if ticket.shard() == shard.index {
        rt::spawn(
            Class::Network,
            Conn::run(shard.clone(), stream, peer, ticket, None),
        );
        return;
    }
    match stream.into_raw() {
        Ok(stream) => shard.shared.send(Handoff {
            stream,
            peer,
            ticket,
            carried: None,
        }),
        Err(error) => tracing::warn!(%peer, %error, "connection lost on its way to its shard"),
    }
}

/// Takes in the connections that other shards send here.
async fn mail_loop(shard: Rc<ShardNet>) {
    let mut mailbox = shard.shared.take_mailbox(shard.index);
    let mut mail = Vec::new();
    while let Some(count) = unless_stopped(&shard, mailbox.recv_many(&mut mail, MAIL_MAX)).await {
        if count == 0 {
            return;
        }
        for Handoff {
            stream,
            peer,
            ticket,
            carried,
        } in mail.drain(..)
        {
            assert_eq!(ticket.shard(), shard.index, "mail for another shard");
            match rt::TcpStream::from_detached(stream) {
                Ok(stream) => {
                    if carried.is_some() {
                        shard.metrics.moved_in();
                    }
                    rt::spawn(
                        Class::Network,
                        Conn::run(shard.clone(), stream, peer, ticket, carried),
                    );
                }
                Err(error) => {
                    tracing::warn!(%peer, %error, "connection lost on its way to its shard")
                }
            }
        }
    }
}

/// Closes what has waited for too long. Timeouts are exact to a quarter of the shortest of them.
async fn timeout_loop(shard: Rc<ShardNet>) {
    let config = &shard.config;
    let shortest = config
        .idle_timeout
        .min(config.frame_timeout)
        .min(config.write_timeout)
        .min(config.stop_grace);
    let tick = (shortest / 4).clamp(Duration::from_millis(10), Duration::from_secs(5));
    while unless_stopped(&shard, rt::sleep(tick)).await.is_some() {
        let now = rt::now();
        shard.for_each(|conn| conn.check_timeouts(now));
    }
}
