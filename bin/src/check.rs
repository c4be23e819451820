//! Owns `millrace check`: what `serve` would find on this machine, as a table, with measurements.
//! Does not know how a finding is made (that is `host`), and starts nothing.
//! Invariant: it fails exactly where `serve` would refuse to start.

use crate::config::{Config, Settings};
use crate::failure::Failure;
use crate::host::{self, disk, ports, Finding, Verdict};
use crate::listeners;
use crate::lock::{self, Held};
use crate::units::ByteSize;
use std::io::Write;

/// A flush slower than this makes every acknowledgement slow; typical of disks without a cache.
const FLUSH_P50_SLOW_MS: f64 = 5.0;

#[derive(clap::Args)]
#[command(after_help = "Example:\n  millrace check --data-dir /srv/millrace\n\n\
    Takes the settings of `millrace serve`, writes up to 528 MiB of temporary files to the data\n\
    directory to measure it, and ends with a non-zero code where `serve` would refuse to start.")]
pub struct Args {
    #[command(flatten)]
    settings: Settings,

    /// Leaves out the measurement of the disk
    #[arg(long)]
    no_measure: bool,
}

pub fn run(args: Args) -> Result<(), Failure> {
    let config = args.settings.resolve()?;
    let mut rows = host::findings(&config);
    rows.push(lock_finding(&config));
    rows.extend(port_findings(&config));
    if !args.no_measure {
        for (_, dir) in host::directories(&config) {
            rows.extend(measured(dir));
        }
    }
    print(&rows).map_err(Failure::output)?;
    let stops = rows
        .iter()
        .filter(|row| row.verdict == Verdict::Stops)
        .count();
    if stops > 0 {
        return Err(
            Failure::new(format!("{stops} of these would stop `millrace serve`"))
                .todo("Change what is marked STOP above."),
        );
    }
    Ok(())
}

fn lock_finding(config: &Config) -> Finding {
    match lock::holder(&config.data_dir) {
        Ok(None) => Finding::fine("lock", "free"),
        Ok(Some(held)) => {
            let who = match held {
                Held::By(pid) => format!("held by process {pid}"),
                Held::BySomeone => "held by another process".to_string(),
            };
            Finding::stops(
                "lock",
                who,
                "A broker runs on this data directory: stop it, or name another --data-dir.",
            )
        }
        Err(error) => Finding::stops(
            "lock",
            error.to_string(),
            "Check that this user may read the data directory.",
        ),
    }
}

fn port_findings(config: &Config) -> Vec<Finding> {
    let of_node = config.listen.iter();
    let of_node = of_node.map(|wanted| (wanted.clone(), ports::bind(wanted, "listen")));
    let of_shards = listeners::wanted_of_shards(config).into_iter();
    let of_shards = of_shards.enumerate().map(|(shard, wanted)| {
        let bound = listeners::bind_of_shard(&wanted, shard);
        (wanted, bound)
    });
    // All stay bound until the last is: one may be in the way of another.
    let mut bound: Vec<_> = of_node.chain(of_shards).collect();
    let admin = ports::bind(&config.admin_listen, "admin-listen");
    bound.push((config.admin_listen.clone(), admin));
    bound
        .into_iter()
        .map(|(address, bound)| match bound {
            Ok(_closed_again) => Finding::fine("address", format!("{address} is free")),
            Err(Failure::Told { what, todo }) => {
                // Advice is optional in both, and none looks the same in the table.
                Finding::stops("address", what, todo.unwrap_or_default())
            }
            Err(Failure::BrokenPipe) => unreachable!("binding writes nothing"),
        })
        .collect()
}

fn measured(dir: &std::path::Path) -> Vec<Finding> {
    let measured = match disk::measure(dir) {
        Ok(measured) => measured,
        Err(error) => {
            let value = format!("{}: {error}", dir.display());
            return vec![Finding::warning(
                "disk",
                value,
                "It could not be measured; see the rows above.",
            )];
        }
    };
    let ms = |d: std::time::Duration| d.as_secs_f64() * 1e3;
    let value = format!(
        "p50 {:.3} ms, p99 {:.3} ms (4 KiB write + fdatasync, {} times)",
        ms(measured.flush_p50),
        ms(measured.flush_p99),
        measured.flushes
    );
    let flush = if ms(measured.flush_p50) > FLUSH_P50_SLOW_MS {
        Finding::warning(
            "flush",
            value,
            "Every acknowledgement waits for a flush: a device with power-loss protection, for example given to \
             --journal-dir, is many times faster.",
        )
    } else {
        Finding::fine("flush", value)
    };
    let speed = ByteSize(measured.write_bytes_per_second as u64).human();
    vec![
        flush,
        Finding::fine(
            "disk writes",
            format!("{speed}/s (1 MiB direct, sequential)"),
        ),
    ]
}

fn print(rows: &[Finding]) -> std::io::Result<()> {
    let width = rows.iter().map(|row| row.item.len()).max().unwrap_or(0);
    let mut out = std::io::stdout().lock();
    for row in rows {
        let mark = match row.verdict {
            Verdict::Fine => "ok  ",
            Verdict::Warning => "WARN",
            Verdict::Stops => "STOP",
        };
        writeln!(out, "{mark}  {:width$}  {}", row.item, row.value)?;
        if !row.advice.is_empty() {
            writeln!(out, "      {:width$}  -> {}", "", row.advice)?;
        }
    }
    out.flush()
}
