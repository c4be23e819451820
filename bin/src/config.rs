//! Owns the settings of `serve`: flag, `MILLRACE_*` variable and TOML key in one definition each.
//! Does not know what the machine can do (that is `host`) nor how the crates use their settings.
//! Invariant: a setting's value comes from the flag, else the variable, else the file, else the default.

use crate::failure::Failure;
use crate::host;
use crate::units::{host_ports, name_values, ByteSize, CpuList, HostPort, NameValue};
use millrace_engine::api::meta::config::check_fixed;
use millrace_engine::api::meta::Overrides;
use millrace_engine::types::limits::DISK_RESERVE_BYTES_DEFAULT;
use millrace_net::{CoreIds, CoresRefused};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// A configuration file is read whole; a larger one is a mistake.
const CONFIG_FILE_BYTES_MAX: u64 = 1 << 20;

/// Memory a shard needs at the least: one journal commit of the largest batch, read and request
/// buffers, and some tail to serve readers from.
pub const MEMORY_PER_SHARD_BYTES_MIN: u64 = 64 << 20;

/// Default for the budget: half the machine, but no more than this for each shard.
const MEMORY_PER_SHARD_BYTES_DEFAULT_MAX: u64 = 1 << 30;

/// More shards than this is a mistake in a number.
const SHARDS_MAX: usize = 1_024;

/// What a person may write; everything is optional. One struct serves as flags, variables and file.
#[derive(clap::Args, Deserialize, Clone, Debug, Default)]
// A help text is about the settings, not about what is set where it is read.
#[command(mut_args(|arg| arg.hide_env_values(true)))]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Settings {
    /// Reads settings from a TOML file: the names of these flags without the dashes in front
    #[arg(long, env = "MILLRACE_CONFIG", value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<PathBuf>,

    /// Directory of everything that is stored [default: ./data]
    #[arg(long, env = "MILLRACE_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,

    /// Directory of the journals, for a device of their own [default: in the data directory]
    #[arg(long, env = "MILLRACE_JOURNAL_DIR", value_name = "DIR")]
    pub journal_dir: Option<PathBuf>,

    /// Address to serve Kafka clients on; repeat it for more; port 0 picks a free one and prints it
    /// [default: 127.0.0.1:9092]
    #[arg(
        long,
        env = "MILLRACE_LISTEN",
        value_name = "HOST:PORT",
        value_delimiter = ','
    )]
    #[serde(deserialize_with = "host_ports")]
    pub listen: Vec<HostPort>,

    /// Address that clients are told to connect to; port 0 means the port listened on
    /// [default: the first address listened on]
    #[arg(long, env = "MILLRACE_ADVERTISE", value_name = "HOST:PORT")]
    pub advertise: Option<HostPort>,

    /// Makes every shard a broker of its own to clients, with its own id and port, so that they connect to the core that has
    /// the partition. The ports follow the first one listened on (and advertised): 9093 and up for 9092. For few clients with
    /// much traffic; each makes a connection to every shard
    #[arg(
        long,
        env = "MILLRACE_ADVERTISE_CORES",
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    pub advertise_cores: Option<bool>,

    /// Number of shards, each a thread pinned to one core [default: all cores]
    #[arg(long, env = "MILLRACE_SHARDS", value_name = "N")]
    pub shards: Option<usize>,

    /// CPUs to pin the shards to, as in 0-3,8 [default: those this process may run on]
    #[arg(long, env = "MILLRACE_CPUS", value_name = "LIST")]
    pub cpus: Option<CpuList>,

    /// The whole memory budget, as in 512MiB [default: half the memory, at most 1GiB a shard]
    #[arg(long, env = "MILLRACE_MEMORY", value_name = "BYTES")]
    pub memory: Option<ByteSize>,

    /// Disk space that stays free, beyond what is needed to store what was accepted: before it is touched, produces are
    /// refused [default: 256MiB]
    #[arg(long, env = "MILLRACE_DISK_RESERVE", value_name = "BYTES")]
    pub disk_reserve: Option<ByteSize>,

    /// Number of this node in its cluster [default: 1]
    #[arg(long, env = "MILLRACE_NODE_ID", value_name = "N")]
    pub node_id: Option<i32>,

    /// Address of the admin HTTP server: /health and /metrics [default: 127.0.0.1:9644]
    #[arg(long, env = "MILLRACE_ADMIN_LISTEN", value_name = "HOST:PORT")]
    pub admin_listen: Option<HostPort>,

    /// Broker setting by its Kafka name, as in auto.create.topics.enable=false; repeat it for more
    #[arg(
        long,
        env = "MILLRACE_SET",
        value_name = "NAME=VALUE",
        value_delimiter = ';'
    )]
    #[serde(deserialize_with = "name_values")]
    pub set: Vec<NameValue>,

    /// Makes every flush take so much longer, as on a slower disk: to measure with
    #[arg(
        long,
        env = "MILLRACE_DEBUG_FLUSH_DELAY_MS",
        value_name = "MS",
        hide = true
    )]
    pub debug_flush_delay_ms: Option<u64>,

    /// How much to log: error, warn, info, debug, trace, or filters by module [default: info]
    #[arg(long, env = "MILLRACE_LOG_LEVEL", value_name = "LEVEL")]
    pub log_level: Option<String>,
}

/// Every setting with its value; checked by itself, not yet against the machine.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub data_dir: PathBuf,
    pub journal_dir: Option<PathBuf>,
    /// At least one; a port may be 0.
    pub listen: Vec<HostPort>,
    pub advertise: Option<HostPort>,
    /// There are broker ids and ports for the shards, then.
    pub advertise_cores: bool,
    pub shards: usize,
    /// At least one; shard `i` is pinned to `cpus[i % cpus.len()]`.
    pub cpus: Vec<usize>,
    pub memory_bytes: u64,
    pub disk_reserve_bytes: u64,
    pub node_id: i32,
    pub admin_listen: HostPort,
    pub log_level: String,
    /// Longer than a flush takes anyway; 0 but to measure.
    pub debug_flush_delay_ms: u64,
    /// Broker settings by Kafka's names: known ones, with valid values.
    pub broker_settings: Overrides,
}

impl Settings {
    /// Reads the file, if one is named, and fills in the defaults.
    pub fn resolve(self) -> Result<Config, Failure> {
        let machine = host::Machine::probe();
        let file = match &self.config {
            Some(path) => read_file(path)?,
            None => Settings::default(),
        };
        self.over(file).with_defaults(&machine)
    }

    /// What is set here, else what is set in `file`.
    fn over(self, file: Settings) -> Settings {
        Settings {
            config: self.config,
            data_dir: self.data_dir.or(file.data_dir),
            journal_dir: self.journal_dir.or(file.journal_dir),
            listen: if self.listen.is_empty() {
                file.listen
            } else {
                self.listen
            },
            advertise: self.advertise.or(file.advertise),
            advertise_cores: self.advertise_cores.or(file.advertise_cores),
            shards: self.shards.or(file.shards),
            cpus: self.cpus.or(file.cpus),
            memory: self.memory.or(file.memory),
            disk_reserve: self.disk_reserve.or(file.disk_reserve),
            node_id: self.node_id.or(file.node_id),
            admin_listen: self.admin_listen.or(file.admin_listen),
            log_level: self.log_level.or(file.log_level),
            debug_flush_delay_ms: self.debug_flush_delay_ms.or(file.debug_flush_delay_ms),
            // The last one of a name counts.
            set: file.set.into_iter().chain(self.set).collect(),
        }
    }

    /// Fills in the defaults and checks every setting by itself.
    pub fn with_defaults(self, machine: &host::Machine) -> Result<Config, Failure> {
        let mut cpus = machine.cpus.clone();
        let mut shards_default = machine.parallelism;
        if let Some(CpuList(wanted)) = self.cpus {
            if let Some(missing) = wanted.iter().find(|cpu| !machine.cpus.contains(cpu)) {
                return Err(Failure::new(format!(
                    "cpus: this process may not run on CPU {missing}"
                ))
                .todo(format!("Choose from {}.", CpuList(machine.cpus.clone()))));
            }
            shards_default = wanted.len();
            cpus = wanted;
        }
        let shards = self.shards.unwrap_or(shards_default);
        if shards == 0 || shards > SHARDS_MAX {
            return Err(
                Failure::new(format!("shards: {shards} is not possible")).todo(format!(
                    "Choose from 1 to {SHARDS_MAX}; the number of cores is best."
                )),
            );
        }
        let memory_default =
            (machine.memory_bytes / 2).min(MEMORY_PER_SHARD_BYTES_DEFAULT_MAX * shards as u64);
        let memory_bytes = self.memory.map_or(memory_default, |m| m.0);
        let memory_min = MEMORY_PER_SHARD_BYTES_MIN * shards as u64;
        if memory_bytes < memory_min {
            return Err(Failure::new(format!(
                "memory: {} is too little for {shards} shards",
                ByteSize(memory_bytes).human()
            ))
            .todo(format!(
                "Give at least --memory {}, or fewer --shards.",
                ByteSize(memory_min)
            )));
        }
        let node_id = self.node_id.unwrap_or(1);
        if node_id < 0 {
            return Err(
                Failure::new(format!("node-id: {node_id} is negative")).todo("Choose 0 or more.")
            );
        }
        let broker_settings = broker_settings(self.set)?;
        let listen = if self.listen.is_empty() {
            vec![HostPort::new("127.0.0.1", 9092)]
        } else {
            self.listen
        };
        if let Some(advertise) = self.advertise.as_ref().filter(|a| is_everywhere(&a.host)) {
            return Err(Failure::new(format!(
                "advertise: no client can connect to {}",
                advertise.host
            ))
            .todo("Name the address or the host by which clients reach this machine."));
        }
        let advertise_cores = self.advertise_cores.unwrap_or(false);
        if advertise_cores {
            check_cores(node_id, shards, &listen[0], self.advertise.as_ref())?;
        }
        Ok(Config {
            data_dir: not_empty(
                "data-dir",
                self.data_dir.unwrap_or_else(|| PathBuf::from("./data")),
            )?,
            journal_dir: self
                .journal_dir
                .map(|dir| not_empty("journal-dir", dir))
                .transpose()?,
            listen,
            advertise: self.advertise,
            advertise_cores,
            shards,
            cpus,
            memory_bytes,
            disk_reserve_bytes: self
                .disk_reserve
                .map_or(DISK_RESERVE_BYTES_DEFAULT, |r| r.0),
            node_id,
            admin_listen: self
                .admin_listen
                .unwrap_or_else(|| HostPort::new("127.0.0.1", 9644)),
            log_level: self.log_level.unwrap_or_else(|| "info".to_string()),
            debug_flush_delay_ms: self.debug_flush_delay_ms.unwrap_or(0),
            broker_settings,
        })
    }
}

/// Whether this address means every address of the machine it is used on.
fn is_everywhere(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let address: Result<std::net::IpAddr, _> = bare.parse();
    address.is_ok_and(|address| address.is_unspecified())
}

/// Whether each shard can be a broker of its own, on ports after that of the node.
fn check_cores(
    node_id: i32,
    shards: usize,
    listen: &HostPort,
    advertise: Option<&HostPort>,
) -> Result<(), Failure> {
    CoreIds::new(node_id, shards).map_err(|refused| {
        let todo = match refused {
            CoresRefused::Node(_) => "Choose another --node-id, or leave out --advertise-cores.",
            CoresRefused::Shards(_) => "Choose fewer --shards, or leave out --advertise-cores.",
        };
        Failure::new(format!("advertise-cores: {refused}")).todo(todo)
    })?;
    let given = [("listen", Some(listen)), ("advertise", advertise)];
    for (name, address) in given {
        let Some(port) = address.map(|at| at.port).filter(|port| *port != 0) else {
            continue;
        };
        if usize::from(port) + shards > usize::from(u16::MAX) {
            return Err(Failure::new(format!(
                "advertise-cores: there are no {shards} ports after {port}, one for each shard"
            ))
            .todo(format!("Choose a lower port for --{name}.")));
        }
    }
    Ok(())
}

/// Kafka's names of what has a flag of its own here.
const HAVE_FLAGS: [(&str, &str); 4] = [
    ("log.dirs", "--data-dir"),
    ("node.id", "--node-id"),
    ("listeners", "--listen"),
    ("advertised.listeners", "--advertise"),
];

fn broker_settings(set: Vec<NameValue>) -> Result<Overrides, Failure> {
    let mut settings = Overrides::new();
    for NameValue { name, value } in set {
        if let Some((_, flag)) = HAVE_FLAGS.iter().find(|(kafka, _)| *kafka == name) {
            return Err(Failure::new(format!("set: {name} has a flag of its own"))
                .todo(format!("Use {flag}.")));
        }
        settings.insert(name, value);
    }
    check_fixed(&settings).map_err(|error| {
        Failure::new(format!("set: {error}"))
            .todo("`millrace topic` and any Kafka tool show the settings there are.")
    })
}

fn not_empty(name: &str, path: PathBuf) -> Result<PathBuf, Failure> {
    if path.as_os_str().is_empty() {
        return Err(Failure::new(format!("{name}: the path is empty"))
            .todo("Name a directory, or leave it out."));
    }
    Ok(path)
}

fn read_file(path: &Path) -> Result<Settings, Failure> {
    let failed = |why: String| {
        Failure::new(format!(
            "cannot use the configuration file {}: {why}",
            path.display()
        ))
    };
    let size = std::fs::metadata(path)
        .map_err(|e| failed(e.to_string()))?
        .len();
    if size > CONFIG_FILE_BYTES_MAX {
        return Err(failed(format!(
            "it has {size} bytes, more than {CONFIG_FILE_BYTES_MAX}"
        )));
    }
    let text = std::fs::read_to_string(path).map_err(|e| failed(e.to_string()))?;
    parse_file(&text).map_err(|e| {
        failed(e)
            .todo("The keys are the flags of `millrace serve --help` without the dashes in front.")
    })
}

/// What the text of a configuration file sets.
pub fn parse_file(text: &str) -> Result<Settings, String> {
    toml::from_str(text).map_err(|e| e.to_string().trim_end().to_string())
}

/// `MILLRACE_*` variables that nothing reads: most likely misspelt. `known` are those that are read.
pub fn unknown_variables(known: &[String]) -> Vec<String> {
    let mut unknown: Vec<String> = std::env::vars_os()
        .filter_map(|(name, _)| name.into_string().ok())
        .filter(|name| name.starts_with("MILLRACE_") && !known.contains(name))
        .collect();
    unknown.sort();
    unknown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> host::Machine {
        host::Machine {
            cpus: vec![0, 1, 4],
            parallelism: 3,
            memory_bytes: 8 << 30,
        }
    }

    #[test]
    fn defaults_need_nothing() {
        let config = Settings::default().with_defaults(&machine()).unwrap();
        assert_eq!(config.data_dir, PathBuf::from("./data"));
        assert_eq!(config.listen, vec![HostPort::new("127.0.0.1", 9092)]);
        assert_eq!((config.shards, config.cpus.as_slice()), (3, &[0, 1, 4][..]));
        assert_eq!(config.memory_bytes, 3 << 30);
        assert_eq!(config.disk_reserve_bytes, 256 << 20);
        assert_eq!(config.admin_listen.to_string(), "127.0.0.1:9644");
    }

    #[test]
    fn a_flag_beats_the_file_and_the_file_beats_the_default() {
        let file = parse_file(
            "data-dir = \"/file\"\nshards = 2\nmemory = \"1GiB\"\nlisten = \"0.0.0.0:1\"\n\
             [set]\n\"num.partitions\" = 3\n\"auto.create.topics.enable\" = false",
        )
        .unwrap();
        let flags = Settings {
            data_dir: Some("/flag".into()),
            set: vec!["num.partitions=4".parse().unwrap()],
            ..Settings::default()
        };
        let config = flags.over(file).with_defaults(&machine()).unwrap();
        assert_eq!(config.data_dir, PathBuf::from("/flag"));
        assert_eq!(
            (config.shards, config.memory_bytes, config.node_id),
            (2, 1 << 30, 1)
        );
        assert_eq!(config.listen, vec![HostPort::new("0.0.0.0", 1)]);
        let set = config.broker_settings.iter();
        let set: Vec<_> = set.map(|(n, v)| (n.as_str(), v.as_str())).collect();
        assert_eq!(
            set,
            [
                ("auto.create.topics.enable", "false"),
                ("num.partitions", "4")
            ]
        );
    }

    #[test]
    fn clients_are_never_told_to_connect_to_every_address() {
        for text in ["0.0.0.0:9092", "[::]:9092"] {
            let file = parse_file(&format!("advertise = \"{text}\"")).unwrap();
            let refused = file.with_defaults(&machine()).unwrap_err().to_string();
            assert!(refused.contains("no client can connect"), "{refused}");
        }
        let file = parse_file("advertise = \"broker:9092\"\nlisten = \"0.0.0.0:9092\"").unwrap();
        assert!(file.with_defaults(&machine()).is_ok());
    }

    #[test]
    fn fractions_need_no_quotes() {
        let file = parse_file("[set]\n\"log.cleaner.min.cleanable.ratio\" = 0.25").unwrap();
        let config = file.with_defaults(&machine()).unwrap();
        let set = &config.broker_settings;
        assert_eq!(set["log.cleaner.min.cleanable.ratio"], "0.25");
    }

    #[test]
    fn cores_are_advertised_where_that_is_said_and_there_is_room() {
        let resolve = |text| {
            let config = parse_file(text).unwrap().with_defaults(&machine());
            config.unwrap().advertise_cores
        };
        assert!(!resolve(""));
        assert!(resolve("advertise-cores = true\nlisten = \"x:65532\""));
        assert!(resolve(
            "advertise-cores = true\nlisten = \"x:0\"\nnode-id = 999"
        ));
        assert!(!resolve("advertise-cores = false\nnode-id = 0"));
        let off = Settings {
            advertise_cores: Some(false),
            ..Settings::default()
        };
        let config = off.over(parse_file("advertise-cores = true").unwrap());
        assert_eq!(config.advertise_cores, Some(false));
    }

    #[test]
    fn every_flag_is_a_key_of_the_same_name_and_a_variable_of_that_name() {
        use clap::{Args, CommandFactory, Parser};
        #[derive(Parser)]
        struct Only {
            #[command(flatten)]
            _settings: Settings,
        }
        assert!(
            Settings::augment_args(clap::Command::new("x"))
                .get_arguments()
                .count()
                > 5
        );
        for arg in Only::command()
            .get_arguments()
            .filter(|a| a.get_id() != "config")
        {
            assert!(arg.is_hide_env_values_set());
            let flag = arg.get_long().unwrap();
            let variable = format!("MILLRACE_{}", flag.to_uppercase().replace('-', "_"));
            assert_eq!(arg.get_env().unwrap().to_str(), Some(variable.as_str()));
            // A list of lists is the wrong type for every key, so the message is about the type if the key is known.
            let error = parse_file(&format!("{flag} = [[1]]")).unwrap_err();
            assert!(!error.contains("unknown field"), "{flag}: {error}");
        }
    }

    #[test]
    fn an_unknown_key_is_named_with_its_file() {
        let path =
            std::env::temp_dir().join(format!("millrace-config-{}.toml", std::process::id()));
        std::fs::write(&path, "shards = 1\ndata_dirr = \"x\"\n").unwrap();
        let message = read_file(&path).unwrap_err().to_string();
        std::fs::remove_file(&path).unwrap();
        assert!(
            message.contains("data_dirr") && message.contains(path.to_str().unwrap()),
            "{message}"
        );
    }

    #[test]
    fn impossible_values_are_refused_by_name() {
        for (text, name) in [
            ("shards = 0", "shards"),
            ("shards = 100000", "shards"),
            ("cpus = \"7\"", "cpus"),
            ("memory = \"1MiB\"", "memory"),
            ("node-id = -1", "node-id"),
            ("data-dir = \"\"", "data-dir"),
            (
                "advertise-cores = true\nnode-id = 0",
                "advertise-cores: the cores of node 0",
            ),
            (
                "advertise-cores = true\nnode-id = 1000",
                "advertise-cores: the cores of node 1000",
            ),
            (
                "advertise-cores = true\nshards = 1001\nmemory = \"80GiB\"",
                "advertise-cores: 1001 shards",
            ),
            (
                "advertise-cores = true\nlisten = \"x:65533\"",
                "advertise-cores: there are no 3 ports",
            ),
            (
                "advertise-cores = true\nadvertise = \"x:65535\"",
                "advertise-cores: there are no 3 ports",
            ),
            ("set = { \"no.such.setting\" = 1 }", "set: Unknown"),
            ("set = { \"num.partitions\" = 0 }", "set: Invalid"),
            ("set = { \"node.id\" = 7 }", "set: node.id has a flag"),
        ] {
            let error = parse_file(text)
                .unwrap()
                .with_defaults(&machine())
                .unwrap_err()
                .to_string();
            assert!(error.starts_with(name), "{text}: {error}");
        }
    }
}
