//! Owns starting a broker's process and timing its first answers, and ending it.
//! Does not know what the process does before it answers.
//! Invariant: times count from just before the process is made; a process that ends early is an error.

use crate::client::{Client, TopicSpec};
use crate::error::PerfError;
use crate::template;
use millrace_net::wire::ErrorCode;
use serde::Serialize;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Between two attempts; also how exact the times are.
const ATTEMPT_PAUSE: Duration = Duration::from_micros(500);
/// A clean stop that takes longer is an error.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);

/// How the process is ended when all is measured.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// SIGTERM, and waiting for exit code 0.
    Term,
    /// SIGKILL.
    Kill,
    /// Not at all; its id is in the result.
    Leave,
}

/// What to time.
#[derive(Clone, Debug, Serialize)]
pub struct StartupSpec {
    pub command: Vec<String>,
    pub bootstrap: String,
    /// Produce one record to partition 0 of this topic and wait for its acknowledgement. `create` makes the topic first.
    pub topic: Option<String>,
    pub create: bool,
    pub timeout_seconds: u64,
    pub end: End,
}

/// How long it took, all from the start of the process.
#[derive(Clone, Debug, Serialize)]
pub struct Startup {
    pub pid: u32,
    /// First connection accepted.
    pub connected_ms: f64,
    /// First answer to ApiVersions.
    pub answered_ms: f64,
    /// First record acknowledged by all replicas.
    pub acknowledged_ms: Option<f64>,
    /// From SIGTERM to the end of the process.
    pub stop_ms: Option<f64>,
}

/// Starts the process and times it.
pub fn time(spec: &StartupSpec, address: SocketAddr) -> Result<Startup, PerfError> {
    let (program, arguments) = spec
        .command
        .split_first()
        .ok_or_else(|| PerfError::Usage("say which command to start, after --".into()))?;
    let batch = template::batch(100, 1)?;
    if Client::connect(address, Duration::from_millis(200)).is_ok() {
        return Err(PerfError::Usage(format!(
            "something listens on {address} already"
        )));
    }
    let started = Instant::now();
    // Its output goes where ours for people goes, so that ours for programs stays clean.
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::from(std::io::stderr()))
        .spawn()
        .map_err(PerfError::io(format!("cannot start {program}")))?;
    let timed = time_answers(spec, address, &batch, started, &mut child);
    let mut startup = match timed {
        Ok(startup) => startup,
        Err(error) => {
            end_by_force(&mut child)?;
            return Err(error);
        }
    };
    match spec.end {
        End::Leave => {}
        End::Kill => end_by_force(&mut child)?,
        End::Term => startup.stop_ms = Some(stop(&mut child)?),
    }
    Ok(startup)
}

fn time_answers(
    spec: &StartupSpec,
    address: SocketAddr,
    batch: &template::BuiltBatch,
    started: Instant,
    child: &mut Child,
) -> Result<Startup, PerfError> {
    let elapsed_ms = || started.elapsed().as_secs_f64() * 1e3;
    let deadline = started + Duration::from_secs(spec.timeout_seconds);
    let mut connected_ms = None;
    let mut client = loop {
        pause(deadline, child, address)?;
        let Ok(mut client) = Client::connect(address, Duration::from_secs(1)) else {
            continue;
        };
        connected_ms.get_or_insert_with(elapsed_ms);
        // A socket may be bound before anybody answers on it.
        if client.negotiate().is_ok() {
            break client;
        }
    };
    let answered_ms = elapsed_ms();
    let mut acknowledged_ms = None;
    if let Some(topic) = &spec.topic {
        if spec.create {
            client.prepare_topic(&TopicSpec {
                name: topic.clone(),
                partitions: 1,
                replication: -1,
                configs: Vec::new(),
            })?;
        }
        loop {
            let code = client.produce_one(topic, 0, batch)?;
            if code == ErrorCode::None.code() {
                break;
            }
            // While it recovers, a broker may know the topic without leading it.
            if Instant::now() >= deadline {
                let what = format!("producing to {topic}");
                return Err(PerfError::Refused { what, code });
            }
            pause(deadline, child, address)?;
        }
        acknowledged_ms = Some(elapsed_ms());
    }
    Ok(Startup {
        pid: child.id(),
        connected_ms: connected_ms.unwrap_or(answered_ms),
        answered_ms,
        acknowledged_ms,
        stop_ms: None,
    })
}

fn pause(deadline: Instant, child: &mut Child, address: SocketAddr) -> Result<(), PerfError> {
    if let Some(status) = child
        .try_wait()
        .map_err(PerfError::io("cannot wait for the broker"))?
    {
        return Err(PerfError::Usage(format!(
            "the broker ended before it answered: {status}"
        )));
    }
    if Instant::now() >= deadline {
        return Err(PerfError::TimedOut(format!(
            "no answer on {address} in time"
        )));
    }
    std::thread::sleep(ATTEMPT_PAUSE);
    Ok(())
}

fn end_by_force(child: &mut Child) -> Result<(), PerfError> {
    child
        .kill()
        .map_err(PerfError::io("cannot kill the broker"))?;
    child
        .wait()
        .map_err(PerfError::io("cannot wait for the broker"))?;
    Ok(())
}

/// Asks the process to end; the milliseconds that took.
fn stop(child: &mut Child) -> Result<f64, PerfError> {
    let started = Instant::now();
    let pid = libc::pid_t::try_from(child.id()).expect("a process id fits");
    // SAFETY: the child has not been waited for, so the id is still its own.
    let sent = unsafe { libc::kill(pid, libc::SIGTERM) };
    if sent < 0 {
        return Err(PerfError::io("cannot signal the broker")(
            std::io::Error::last_os_error(),
        ));
    }
    loop {
        match child
            .try_wait()
            .map_err(PerfError::io("cannot wait for the broker"))?
        {
            Some(status) if status.success() => return Ok(started.elapsed().as_secs_f64() * 1e3),
            Some(status) => {
                return Err(PerfError::Usage(format!(
                    "the broker stopped with {status}"
                )))
            }
            None if started.elapsed() > STOP_TIMEOUT => {
                end_by_force(child)?;
                let seconds = STOP_TIMEOUT.as_secs();
                return Err(PerfError::TimedOut(format!(
                    "the broker did not stop within {seconds} s"
                )));
            }
            None => std::thread::sleep(ATTEMPT_PAUSE),
        }
    }
}
