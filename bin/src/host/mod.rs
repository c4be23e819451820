//! Owns what there is to know of the machine before serving: findings with a verdict and advice.
//! Does not know the engine; it names what would stop it or slow it.
//! Invariant: a finding that is not fine says what to change.

pub mod disk;
pub mod kernel;
pub mod limits;
pub mod ports;

use crate::config::Config;
use millrace_engine::api::EngineConfig;

/// How a finding bears on `serve`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    Fine,
    /// `serve` works, with a loss that the advice names.
    Warning,
    /// `serve` would refuse to start.
    Stops,
}

/// One row of `millrace check`.
#[derive(Clone, Debug)]
pub struct Finding {
    pub item: &'static str,
    pub value: String,
    pub verdict: Verdict,
    /// What to change; empty where all is fine.
    pub advice: String,
}

impl Finding {
    pub fn fine(item: &'static str, value: impl Into<String>) -> Finding {
        Finding {
            item,
            value: value.into(),
            verdict: Verdict::Fine,
            advice: String::new(),
        }
    }

    pub fn warning(
        item: &'static str,
        value: impl Into<String>,
        advice: impl Into<String>,
    ) -> Finding {
        Finding {
            item,
            value: value.into(),
            verdict: Verdict::Warning,
            advice: advice.into(),
        }
    }

    pub fn stops(
        item: &'static str,
        value: impl Into<String>,
        advice: impl Into<String>,
    ) -> Finding {
        Finding {
            item,
            value: value.into(),
            verdict: Verdict::Stops,
            advice: advice.into(),
        }
    }
}

/// What the defaults of the configuration depend on.
#[derive(Clone, Debug)]
pub struct Machine {
    /// CPUs this process may run on, ascending; at least one.
    pub cpus: Vec<usize>,
    /// Cores worth of time it may use (a container's quota may be less than its CPUs).
    pub parallelism: usize,
    /// Memory it may use: the machine's, or its control group's if that is less.
    pub memory_bytes: u64,
}

impl Machine {
    pub fn probe() -> Machine {
        let cpus = limits::allowed_cpus();
        let parallelism = std::thread::available_parallelism()
            .map_or(1, |n| n.get())
            .min(cpus.len());
        Machine {
            cpus,
            parallelism,
            memory_bytes: limits::memory_bytes(),
        }
    }
}

/// Everything that `serve` looks at before it starts; touches the data directory only to probe it.
pub fn findings(config: &Config) -> Vec<Finding> {
    let mut all = vec![
        kernel::version(),
        kernel::io_uring(),
        kernel::huge_pages(),
        limits::cpus(config),
        limits::memory(config),
        limits::memlock(config.shards),
        limits::nofile(config.shards),
    ];
    let used = config.data_dir.join("manifest.json").exists();
    let engine = EngineConfig {
        memory_bytes: config.memory_bytes,
        disk_reserve_bytes: config.disk_reserve_bytes,
        ..EngineConfig::new(config.data_dir.clone())
    };
    for (item, dir) in directories(config) {
        let bytes = if dir == config.data_dir {
            engine.disk_bytes_min(config.shards)
        } else {
            engine.journal_bytes_min(config.shards)
        };
        all.extend(disk::findings(item, dir, disk::Room { bytes, used }));
    }
    all
}

/// The directories that hold data, each with the name it has in a finding.
pub fn directories(config: &Config) -> Vec<(&'static str, &std::path::Path)> {
    let mut dirs = vec![("data directory", config.data_dir.as_path())];
    if let Some(journal) = &config.journal_dir {
        dirs.push(("journal directory", journal.as_path()));
    }
    dirs
}
