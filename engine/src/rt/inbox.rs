//! Owns the queue by which other threads hand work to a shard.
//! Does not know the messages, nor how many may be under way: their senders hold credits for that.
//! Invariant: sending never blocks, and each burst wakes the receiver once.

/// A queue into one shard. The same on both runtimes, and usable from any thread.
pub fn inbox<T: Send>() -> (InboxSender<T>, InboxReceiver<T>) {
    let (tx, rx) = flume::unbounded();
    (InboxSender(tx), InboxReceiver(rx))
}

/// The sending side; clone it freely.
#[derive(Debug)]
pub struct InboxSender<T>(flume::Sender<T>);

impl<T> Clone for InboxSender<T> {
    fn clone(&self) -> Self {
        InboxSender(self.0.clone())
    }
}

impl<T: Send> InboxSender<T> {
    /// Queues `message` without blocking; gives it back when the receiver is gone. The queue itself has no bound: the
    /// caller holds a credit for each message it has in flight.
    pub fn send(&self, message: T) -> Result<(), T> {
        self.0.send(message).map_err(|e| e.0)
    }

    /// Messages waiting.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the receiver is gone.
    pub fn is_closed(&self) -> bool {
        self.0.is_disconnected()
    }
}

/// The receiving side. Await it in a long-lived, detached task of the owning shard.
#[derive(Debug)]
pub struct InboxReceiver<T>(flume::Receiver<T>);

impl<T: Send> InboxReceiver<T> {
    /// Waits for at least one message and appends up to `max` of them, in order, to `out`. The number appended; 0 once
    /// every sender is gone and the queue is empty. Nothing is lost when the future is dropped.
    pub async fn recv_many(&mut self, out: &mut Vec<T>, max: usize) -> usize {
        assert!(max > 0, "recv_many needs room for a message");
        let first = match self.0.try_recv() {
            Ok(m) => m,
            Err(flume::TryRecvError::Disconnected) => return 0,
            Err(flume::TryRecvError::Empty) => match self.0.recv_async().await {
                Ok(m) => m,
                Err(flume::RecvError::Disconnected) => return 0,
            },
        };
        out.push(first);
        let mut n = 1;
        while n < max {
            let Ok(m) = self.0.try_recv() else { break };
            out.push(m);
            n += 1;
        }
        n
    }

    /// The next message if one waits.
    pub fn try_recv(&mut self) -> Option<T> {
        self.0.try_recv().ok()
    }

    /// Messages waiting.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
