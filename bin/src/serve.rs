//! Owns `millrace serve`: the order in which a broker comes up and goes down.
//! Does not know how the engine stores or how the net layer answers.
//! Invariant: everything that can be refused is refused before anything is stored or served.

use crate::broker;
use crate::config::{unknown_variables, Config, Settings};
use crate::control;
use crate::failure::Failure;
use crate::host::{self, limits, ports, Verdict};
use crate::listeners::Listeners;
use crate::lock;
use crate::memory;
use crate::units::{ByteSize, CpuList, HostPort};
use millrace_net::CoreIds;
use tracing_subscriber::filter::{EnvFilter, LevelFilter};

#[derive(clap::Args)]
#[command(after_help = "Examples:\n  millrace serve\n  \
    millrace serve --data-dir /srv/millrace --listen 0.0.0.0:9092 --advertise broker1.example:9092\n\n\
    Every flag can also be a MILLRACE_* variable or a key of the --config file, for example\n\
    --data-dir, MILLRACE_DATA_DIR and data-dir = \"...\"; the flag wins over the variable and the\n\
    variable over the file.")]
pub struct Args {
    #[command(flatten)]
    settings: Settings,
}

/// Runs a broker until a signal stops it. `variables` are the environment variables that are read.
pub fn run(args: Args, variables: &[String]) -> Result<(), Failure> {
    let config = args.settings.resolve()?;
    start_logging(&config.log_level)?;
    for name in unknown_variables(variables) {
        tracing::warn!(
            "the environment variable {name} is not a setting of millrace; is it misspelt?"
        );
    }
    check_host(&config)?;
    let nofile = limits::raise_nofile();
    tracing::debug!("{nofile} files may be open");

    memory::prepare_buffers(config.memory_bytes).map_err(|error| {
        Failure::new(format!("cannot start a thread: {error}"))
            .todo("Raise the limit of processes and threads (`ulimit -u`).")
    })?;
    let lock = lock::acquire(&config.data_dir)?;
    let listeners = Listeners::bind(&config)?;
    let control = control::start(ports::bind(&config.admin_listen, "admin-listen")?)?;
    let broker = broker::start(&config, &listeners, &control)?;
    if let Err(error) = announce(&config, &listeners, &control) {
        // Whoever started us may not want to read this; clients are served all the same.
        tracing::warn!("cannot write to standard output: {error}");
    }
    let result = broker.join();
    drop(lock);
    result
}

fn log_filter(level: &str) -> Result<EnvFilter, Failure> {
    let refused = |why: String| {
        Failure::new(format!(
            "log-level: `{level}` is not a level or filter{why}"
        ))
        .todo("Use error, warn, info, debug or trace, or a list such as info,millrace_net=debug.")
    };
    let words: Vec<&str> = level.split(',').map(str::trim).collect();
    // A blank in front of a word would be read as a part of it.
    let filter = EnvFilter::try_new(words.join(","));
    let filter = filter.map_err(|error| refused(format!(": {error}")))?;
    // A word that is no level would be taken for the one part of the program that may speak, and an empty one for a level.
    let is_level = |word: &str| !word.is_empty() && word.parse::<LevelFilter>().is_ok();
    let names_a_part = |word: &str| word.contains(['=', '[']) || word.starts_with("millrace");
    let wrong = words
        .iter()
        .find(|word| !is_level(word) && !names_a_part(word));
    match wrong {
        Some(_) if level.contains('[') => Ok(filter),
        Some(word) => Err(refused(format!(": `{word}` is neither"))),
        None => Ok(filter),
    }
}

fn start_logging(level: &str) -> Result<(), Failure> {
    let filter = log_filter(level)?;
    let colour = std::io::IsTerminal::is_terminal(&std::io::stderr());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colour)
        // A full disk or a reader that went away is told on stderr otherwise, which panics as that is what is broken.
        .log_internal_errors(false)
        .init();
    Ok(())
}

/// Logs the warnings; refuses where something stops us, naming all of it at once.
fn check_host(config: &Config) -> Result<(), Failure> {
    let mut stops = Vec::new();
    for finding in host::findings(config) {
        match finding.verdict {
            Verdict::Fine => tracing::debug!("{}: {}", finding.item, finding.value),
            Verdict::Warning => {
                tracing::warn!("{}: {}. {}", finding.item, finding.value, finding.advice)
            }
            Verdict::Stops => stops.push(format!(
                "{}: {}\n    {}",
                finding.item, finding.value, finding.advice
            )),
        }
    }
    if stops.is_empty() {
        return Ok(());
    }
    Err(Failure::new(format!(
        "this machine cannot run a broker yet\n  {}",
        stops.join("\n  ")
    ))
    .todo("`millrace check` shows all of it as a table."))
}

/// A few lines that say what is served, where, and how to send a first message.
fn announce(
    config: &Config,
    listeners: &Listeners,
    control: &control::Control,
) -> std::io::Result<()> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "millrace {} serves the Apache Kafka protocol",
        env!("CARGO_PKG_VERSION")
    )?;
    let cpus = CpuList(config.cpus.iter().copied().take(config.shards).collect());
    let shards = match config.shards {
        1 => format!("1 shard on CPU {cpus}"),
        more => format!("{more} shards on CPUs {cpus}"),
    };
    let memory = ByteSize(config.memory_bytes).human();
    writeln!(
        out,
        "{shards}, {memory} of memory, data in {}",
        config.data_dir.display()
    )?;
    let mut first = None;
    for (wanted, listener) in config.listen.iter().zip(&listeners.of_node) {
        let bound = HostPort::new(&wanted.host, listener.local_addr()?.port());
        writeln!(out, "listening on {bound}")?;
        first.get_or_insert(bound);
    }
    for (shard, listener) in listeners.of_shards.iter().enumerate() {
        let bound = HostPort::new(&config.listen[0].host, listener.local_addr()?.port());
        let ids = CoreIds::new(config.node_id, config.shards).expect("checked with the settings");
        writeln!(out, "shard {shard} is broker {} on {bound}", ids.id(shard))?;
    }
    writeln!(out, "admin on http://{}", control.address)?;
    let to = match first {
        Some(at) if at.port != 9092 => format!(" --bootstrap {}", reachable(&at)),
        _ => String::new(),
    };
    writeln!(
        out,
        "a first message: echo hello | millrace produce topic1{to}"
    )?;
    writeln!(
        out,
        "and back again:  millrace consume topic1 --from beginning{to}"
    )?;
    out.flush()
}

/// The address under which this machine reaches its own listener.
fn reachable(bound: &HostPort) -> HostPort {
    match bound.host.as_str() {
        "0.0.0.0" => HostPort::new("127.0.0.1", bound.port),
        "::" => HostPort::new("::1", bound.port),
        host => HostPort::new(host, bound.port),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_silence_the_broker_is_no_level() {
        for good in [
            "info",
            "WARN",
            "off",
            "info,millrace_net=debug",
            "millrace_engine",
            "error, millrace=trace",
            "info,[commit{group=1}]=debug",
        ] {
            assert!(log_filter(good).is_ok(), "{good}");
        }
        for bad in ["", "warning", "inof", "info,verbose", "info,", "a=b=c"] {
            assert!(log_filter(bad).is_err(), "{bad:?}");
        }
    }
}
