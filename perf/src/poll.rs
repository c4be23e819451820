//! Owns waiting for sockets: one epoll instance with waits as short as nanoseconds, and pinning a thread to a core.
//! Does not know what the sockets are for; each is a number its owner chose.
//! Invariant: a registered socket is reported again and again while it is ready (level-triggered).

use crate::error::PerfError;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

/// Events taken at once; more wait for the next call.
const EVENTS_MAX: usize = 256;

/// Which sockets are ready.
pub struct Poll {
    epoll: OwnedFd,
    events: Vec<libc::epoll_event>,
}

/// One ready socket.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ready {
    /// As registered.
    pub token: u64,
    /// Also set on errors and hang-ups: reading tells which.
    pub readable: bool,
    pub writable: bool,
}

impl Poll {
    pub fn new() -> Result<Poll, PerfError> {
        // SAFETY: no pointers are passed.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd < 0 {
            return Err(PerfError::io("epoll_create1")(io::Error::last_os_error()));
        }
        Ok(Poll {
            // SAFETY: the descriptor was just made and is owned by nobody else.
            epoll: unsafe { OwnedFd::from_raw_fd(fd) },
            events: Vec::with_capacity(EVENTS_MAX),
        })
    }

    pub fn add(&self, socket: &impl AsRawFd, token: u64) -> Result<(), PerfError> {
        self.control(libc::EPOLL_CTL_ADD, socket.as_raw_fd(), token, false)
    }

    /// Reports the socket also when it can be written, or no longer.
    pub fn want_write(
        &self,
        socket: &impl AsRawFd,
        token: u64,
        wanted: bool,
    ) -> Result<(), PerfError> {
        self.control(libc::EPOLL_CTL_MOD, socket.as_raw_fd(), token, wanted)
    }

    /// Must come before the socket is closed where a duplicate of it stays open.
    pub fn remove(&self, socket: &impl AsRawFd) -> Result<(), PerfError> {
        self.control(libc::EPOLL_CTL_DEL, socket.as_raw_fd(), 0, false)
    }

    fn control(
        &self,
        operation: i32,
        socket: RawFd,
        token: u64,
        write: bool,
    ) -> Result<(), PerfError> {
        let write = if write { libc::EPOLLOUT } else { 0 };
        let mut event = libc::epoll_event {
            events: (libc::EPOLLIN | write) as u32,
            u64: token,
        };
        // SAFETY: `event` lives through the call, which does not keep it.
        let done =
            unsafe { libc::epoll_ctl(self.epoll.as_raw_fd(), operation, socket, &mut event) };
        if done < 0 {
            return Err(PerfError::io("epoll_ctl")(io::Error::last_os_error()));
        }
        Ok(())
    }

    /// Waits until a socket is ready or `timeout` is over (`None`: for ever), and puts the ready ones in `ready`.
    pub fn wait(
        &mut self,
        timeout: Option<Duration>,
        ready: &mut Vec<Ready>,
    ) -> Result<(), PerfError> {
        ready.clear();
        let timeout = timeout.map(|timeout| libc::timespec {
            tv_sec: timeout.as_secs().min(i32::MAX as u64) as libc::time_t,
            tv_nsec: timeout.subsec_nanos().into(),
        });
        let timeout = timeout
            .as_ref()
            .map_or(std::ptr::null(), std::ptr::from_ref);
        // The C library has no epoll_pwait2 everywhere, and epoll_wait counts in milliseconds.
        // SAFETY: the buffer has room for EVENTS_MAX events, the timeout lives through the call, no signal mask is set.
        let count = unsafe {
            libc::syscall(
                libc::SYS_epoll_pwait2,
                self.epoll.as_raw_fd(),
                self.events.as_mut_ptr(),
                EVENTS_MAX as i32,
                timeout,
                std::ptr::null::<libc::sigset_t>(),
                0usize,
            )
        };
        if count < 0 {
            let error = io::Error::last_os_error();
            if error.kind() == io::ErrorKind::Interrupted {
                return Ok(());
            }
            return Err(PerfError::io("epoll_pwait2")(error));
        }
        assert!(count as usize <= EVENTS_MAX);
        // SAFETY: the kernel has filled in that many.
        unsafe { self.events.set_len(count as usize) };
        for event in &self.events {
            let (flags, token) = (event.events, event.u64);
            ready.push(Ready {
                token,
                readable: flags & !(libc::EPOLLOUT as u32) != 0,
                writable: flags & libc::EPOLLOUT as u32 != 0,
            });
        }
        Ok(())
    }
}

/// Pins the calling thread to one core and asks for exact timers.
pub fn pin_to_cpu(cpu: usize) -> Result<(), PerfError> {
    // SAFETY: an all-zero set is an empty one, and it lives through the calls.
    let done = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        if cpu >= libc::CPU_SETSIZE as usize {
            return Err(PerfError::Usage(format!("there is no CPU {cpu}")));
        }
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, std::mem::size_of::<libc::cpu_set_t>(), &set)
    };
    if done < 0 {
        return Err(PerfError::io(format!("cannot run on CPU {cpu}"))(
            io::Error::last_os_error(),
        ));
    }
    exact_timers();
    Ok(())
}

/// Lets timers of the calling thread end when they should: by default Linux adds up to 50 us.
pub fn exact_timers() {
    // SAFETY: this option takes a number. It cannot fail with this number.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1usize, 0usize, 0usize, 0usize) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    #[test]
    fn readiness_comes_with_the_token_and_stays_until_read() {
        let (mut near, far) = UnixStream::pair().expect("a pair");
        let mut poll = Poll::new().expect("epoll");
        poll.add(&far, 42).expect("added");
        let mut ready = Vec::new();
        poll.wait(Some(Duration::ZERO), &mut ready).expect("waits");
        assert_eq!(ready, []);
        near.write_all(b"x").expect("writes");
        for _ in 0..2 {
            poll.wait(None, &mut ready).expect("waits");
            assert_eq!(
                ready,
                [Ready {
                    token: 42,
                    readable: true,
                    writable: false
                }]
            );
        }
        poll.want_write(&far, 42, true).expect("changed");
        poll.wait(None, &mut ready).expect("waits");
        assert_eq!(
            ready,
            [Ready {
                token: 42,
                readable: true,
                writable: true
            }]
        );
        poll.remove(&far).expect("removed");
        poll.wait(Some(Duration::ZERO), &mut ready).expect("waits");
        assert_eq!(ready, []);
    }
}
