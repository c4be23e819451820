//! Owns a broker that stores nothing: it acknowledges at once, to show how much load this program can make.
//! Does not know durability, several clients of one partition in order, or any request that a run does not send.
//! Invariant: it counts offsets as a broker would, and gives back as many records as were produced.

mod answers;

use crate::clock::{self, Nanos};
use crate::error::PerfError;
use crate::link::Inbox;
use crate::poll::{self, Poll, Ready};
use answers::{answer, fetch, Answered, Memory};
use std::collections::HashMap;
use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

const LISTENER: u64 = u64::MAX;
/// How often it looks whether it shall stop, and whether a waiting fetch has waited enough.
const LOOK_UP: Duration = Duration::from_millis(5);
const INBOX_BYTES: usize = 256 << 10;
const CONNECTIONS_MAX: usize = 10_000;

/// A sink that serves on a thread of its own.
pub struct Sink {
    pub address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<(), PerfError>>>,
}

impl Sink {
    /// Serves on `address` (port 0: any free one), pinned to `cpu` if given.
    pub fn start(address: SocketAddr, cpu: Option<usize>) -> Result<Sink, PerfError> {
        let what = format!("cannot listen on {address}");
        let listener = TcpListener::bind(address).map_err(PerfError::io(&what))?;
        listener
            .set_nonblocking(true)
            .map_err(PerfError::io(&what))?;
        let address = listener.local_addr().map_err(PerfError::io(&what))?;
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stop);
        let body = move || -> Result<(), PerfError> {
            if let Some(cpu) = cpu {
                poll::pin_to_cpu(cpu)?;
            }
            Server::new(listener, address)?.serve(&seen)
        };
        let thread = std::thread::Builder::new().name("sink".into()).spawn(body);
        let thread = thread.map_err(PerfError::io("cannot start a thread"))?;
        Ok(Sink {
            address,
            stop,
            thread: Some(thread),
        })
    }

    /// Waits until it ends, which it does by itself only where it failed.
    pub fn join(mut self) -> Result<(), PerfError> {
        self.thread.take().map_or(Ok(()), ended)
    }

    /// Ends it; its failure, if it failed.
    pub fn stop(self) -> Result<(), PerfError> {
        self.stop.store(true, Ordering::Relaxed);
        self.join()
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn ended(thread: JoinHandle<Result<(), PerfError>>) -> Result<(), PerfError> {
    match thread.join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

struct Connection {
    stream: TcpStream,
    inbox: Inbox,
    out: Vec<u8>,
    written: usize,
    wants_write: bool,
    /// A fetch that found nothing, and when it has waited enough.
    waiting: Option<(Nanos, Vec<u8>)>,
}

struct Server {
    listener: TcpListener,
    address: SocketAddr,
    poll: Poll,
    connections: HashMap<u64, Connection>,
    next_token: u64,
    memory: Memory,
}

impl Server {
    fn new(listener: TcpListener, address: SocketAddr) -> Result<Server, PerfError> {
        let poll = Poll::new()?;
        poll.add(&listener, LISTENER)?;
        Ok(Server {
            listener,
            address,
            poll,
            connections: HashMap::new(),
            next_token: 0,
            memory: Memory::default(),
        })
    }

    fn serve(&mut self, stop: &AtomicBool) -> Result<(), PerfError> {
        let mut ready: Vec<Ready> = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            self.poll.wait(Some(LOOK_UP), &mut ready)?;
            let mut produced = false;
            for event in &ready {
                if event.token == LISTENER {
                    self.accept()?;
                    continue;
                }
                match self.turn(event.token) {
                    Ok(any) => produced |= any,
                    // Whatever it was, it is over with that client only.
                    Err(_) => drop(self.connections.remove(&event.token)),
                }
            }
            self.wake(produced);
        }
        Ok(())
    }

    fn accept(&mut self) -> Result<(), PerfError> {
        loop {
            let what = "cannot accept";
            match self.listener.accept() {
                Ok((stream, _)) if self.connections.len() < CONNECTIONS_MAX => {
                    stream.set_nonblocking(true).map_err(PerfError::io(what))?;
                    stream.set_nodelay(true).map_err(PerfError::io(what))?;
                    self.poll.add(&stream, self.next_token)?;
                    let connection = Connection {
                        stream,
                        inbox: Inbox::new(INBOX_BYTES),
                        out: Vec::new(),
                        written: 0,
                        wants_write: false,
                        waiting: None,
                    };
                    self.connections.insert(self.next_token, connection);
                    self.next_token += 1;
                }
                Ok((stream, _)) => drop(stream),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(PerfError::io(what)(error)),
            }
        }
    }

    /// Reads, answers and writes on one connection; whether something was produced.
    fn turn(&mut self, token: u64) -> Result<bool, PerfError> {
        let Some(connection) = self.connections.get_mut(&token) else {
            return Ok(false);
        };
        let mut produced = false;
        connection.inbox.read_from(&mut connection.stream)?;
        while let Some(frame) = connection.inbox.next_frame()? {
            let frame = connection.inbox.frame(frame);
            match answer(frame, &mut self.memory, self.address, &mut connection.out)? {
                Answered::Produce => produced = true,
                Answered::Other => {}
                Answered::Later(max_wait) => {
                    connection.waiting = Some((clock::now().after(max_wait), frame.to_vec()));
                }
            }
        }
        send(connection, token, &self.poll)?;
        Ok(produced)
    }

    /// Answers waiting fetches for which there is something now, or which have waited enough.
    fn wake(&mut self, produced: bool) {
        let now = clock::now();
        let mut failed = Vec::new();
        for (&token, connection) in &mut self.connections {
            let Some((deadline, frame)) = connection.waiting.take() else {
                continue;
            };
            let overdue = now >= deadline;
            if !produced && !overdue {
                connection.waiting = Some((deadline, frame));
                continue;
            }
            let done = match fetch(&frame, &self.memory, overdue, &mut connection.out) {
                Ok(Answered::Later(_)) => {
                    connection.waiting = Some((deadline, frame));
                    continue;
                }
                Ok(Answered::Produce | Answered::Other) => send(connection, token, &self.poll),
                Err(error) => Err(error.into()),
            };
            if done.is_err() {
                failed.push(token);
            }
        }
        for token in failed {
            self.connections.remove(&token);
        }
    }
}

/// Writes what the socket takes now.
fn send(connection: &mut Connection, token: u64, poll: &Poll) -> Result<(), PerfError> {
    while connection.written < connection.out.len() {
        match connection
            .stream
            .write(&connection.out[connection.written..])
        {
            Ok(0) => return Err(PerfError::Closed),
            Ok(written) => connection.written += written,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(PerfError::io("cannot answer")(error)),
        }
    }
    let blocked = connection.written < connection.out.len();
    if !blocked {
        connection.out.clear();
        connection.written = 0;
    }
    if blocked != connection.wants_write {
        connection.wants_write = blocked;
        poll.want_write(&connection.stream, token, blocked)?;
    }
    Ok(())
}
