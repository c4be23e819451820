//! Owns `millrace topic ...`: creating, listing, describing, deleting and altering topics.
//! Does not know the protocol (that is `client`).
//! Invariant: with several topics, an error of one is told after the others were done.

use crate::client::admin;
use crate::client::cluster::Topic;
use crate::client::offsets::{self, Spec};
use crate::client::{Bootstrap, Cluster, Isolation};
use crate::failure::{each, Failure};
use crate::text::table;
use std::io::{self, Write};

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Create a topic
    Create(Create),
    /// List the topics
    List(List),
    /// Show the partitions and settings of topics
    Describe(Describe),
    /// Delete topics and everything in them
    Delete(Delete),
    /// Add partitions to a topic, or change its settings
    Alter(Alter),
}

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  millrace topic create orders --partitions 16\n  \
    millrace topic create audit --config retention.ms=-1 --config cleanup.policy=compact"
)]
struct Create {
    /// Name of the new topic
    name: String,
    /// Number of partitions [default: the broker's num.partitions]
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
    partitions: Option<i32>,
    /// Copies of each partition [default: the broker's default.replication.factor]
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(i16).range(1..))]
    replication_factor: Option<i16>,
    /// A setting of the topic; repeat it for more
    #[arg(long, short, value_name = "KEY=VALUE", value_parser = key_value)]
    config: Vec<(String, String)>,
    #[command(flatten)]
    bootstrap: Bootstrap,
}

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  millrace topic list\n  millrace topic list --names | grep '^orders'"
)]
struct List {
    /// Names only, one a line
    #[arg(long)]
    names: bool,
    /// Topics that the broker keeps for itself, too
    #[arg(long)]
    internal: bool,
    #[command(flatten)]
    bootstrap: Bootstrap,
}

#[derive(clap::Args)]
#[command(after_help = "Example:\n  millrace topic describe orders\n\n\
    Shows for each partition its leader, replicas, the replicas in sync, and the offsets at which it\n\
    begins and ends; then the settings that were made on the topic itself.")]
struct Describe {
    /// Names of topics
    #[arg(required = true)]
    name: Vec<String>,
    #[command(flatten)]
    bootstrap: Bootstrap,
}

#[derive(clap::Args)]
#[command(after_help = "Example:\n  millrace topic delete orders audit")]
struct Delete {
    /// Names of topics
    #[arg(required = true)]
    name: Vec<String>,
    #[command(flatten)]
    bootstrap: Bootstrap,
}

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  millrace topic alter orders --partitions 32\n  \
    millrace topic alter orders --config retention.ms=3600000 --unset max.message.bytes"
)]
#[command(group = clap::ArgGroup::new("change").required(true).multiple(true))]
struct Alter {
    /// Name of the topic
    name: String,
    /// Number of partitions afterwards; it can only grow
    #[arg(long, short, value_name = "N", group = "change", value_parser = clap::value_parser!(i32).range(1..))]
    partitions: Option<i32>,
    /// A setting to change; repeat it for more
    #[arg(long, short, value_name = "KEY=VALUE", group = "change", value_parser = key_value)]
    config: Vec<(String, String)>,
    /// A setting to put back to its default; repeat it for more
    #[arg(long, short, value_name = "KEY", group = "change")]
    unset: Vec<String>,
    #[command(flatten)]
    bootstrap: Bootstrap,
}

/// `key=value`; the value may be empty or hold more `=`.
pub fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => {
            Ok((key.trim().to_string(), value.to_string()))
        }
        _ => Err(format!("`{text}` is not KEY=VALUE")),
    }
}

pub fn run(args: Args) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match args.command {
        Command::Create(create) => run_create(create, &mut out),
        Command::List(list) => run_list(list, &mut out),
        Command::Describe(describe) => run_describe(describe, &mut out),
        Command::Delete(delete) => run_delete(delete, &mut out),
        Command::Alter(alter) => run_alter(alter, &mut out),
    }
}

fn run_create(args: Create, out: &mut impl Write) -> Result<(), Failure> {
    let mut cluster = Cluster::new(&args.bootstrap.bootstrap);
    let (partitions, replicas) = (
        args.partitions.unwrap_or(-1),
        args.replication_factor.unwrap_or(-1),
    );
    admin::create(&mut cluster, &args.name, partitions, replicas, &args.config)?;
    writeln!(out, "created {}", args.name).map_err(Failure::output)
}

fn run_list(args: List, out: &mut impl Write) -> Result<(), Failure> {
    let mut cluster = Cluster::new(&args.bootstrap.bootstrap);
    let mut topics = Vec::new();
    let mut failed = None;
    for topic in cluster.topics(None)? {
        match topic {
            Ok(topic) if topic.internal && !args.internal => {}
            Ok(topic) => topics.push(topic),
            Err(error) => failed = Some(error),
        }
    }
    topics.sort_by(|a, b| a.name.cmp(&b.name));
    if args.names {
        topics
            .iter()
            .try_for_each(|t| writeln!(out, "{}", t.name))
            .map_err(Failure::output)?;
    } else {
        let rows = topics.iter().map(|t| {
            let replicas = t
                .partitions
                .iter()
                .map(|p| p.replicas.len())
                .max()
                .unwrap_or(0);
            vec![
                t.name.clone(),
                t.partitions.len().to_string(),
                replicas.to_string(),
            ]
        });
        table(out, &["TOPIC", "PARTITIONS", "REPLICAS"], rows.collect())
            .map_err(Failure::output)?;
    }
    failed.map_or(Ok(()), |error| Err(error.into()))
}

fn run_describe(args: Describe, out: &mut impl Write) -> Result<(), Failure> {
    let mut cluster = Cluster::new(&args.bootstrap.bootstrap);
    each(&args.name, |name| {
        let names = [name];
        let topic = cluster.topics(Some(&names))?.into_iter().next();
        let topic = topic
            .ok_or_else(|| Failure::new(format!("the broker says nothing about topic {name}")))??;
        describe(&mut cluster, &topic, out)
    })
}

fn describe(cluster: &mut Cluster, topic: &Topic, out: &mut impl Write) -> Result<(), Failure> {
    let mut rows = Vec::with_capacity(topic.partitions.len());
    // A partition without a leader has no offsets to show; the others have.
    let led: Vec<_> = topic
        .partitions
        .iter()
        .filter(|p| p.leader >= 0)
        .cloned()
        .collect();
    let mut offsets_of =
        |spec| cluster.retry(|c| offsets::list(c, &topic.name, &led, spec, Isolation::Uncommitted));
    let (begins, ends) = (offsets_of(Spec::Earliest)?, offsets_of(Spec::Latest)?);
    for p in &topic.partitions {
        let offset = |from: &std::collections::BTreeMap<i32, i64>| {
            from.get(&p.index).map_or("-".to_string(), i64::to_string)
        };
        let leader = if p.leader < 0 {
            "none".to_string()
        } else {
            p.leader.to_string()
        };
        rows.push(vec![
            p.index.to_string(),
            leader,
            if p.leader_epoch < 0 {
                "-".to_string()
            } else {
                p.leader_epoch.to_string()
            },
            list(&p.replicas),
            list(&p.isr),
            offset(&begins),
            offset(&ends),
        ]);
    }
    let configs = admin::configs(cluster, &topic.name)?;
    let print = |out: &mut dyn Write| -> io::Result<()> {
        writeln!(
            out,
            "topic {}{}",
            topic.name,
            if topic.internal { " (internal)" } else { "" }
        )?;
        if !topic.id.is_nil() {
            writeln!(
                out,
                "id {}",
                millrace_engine::types::base64url(topic.id.as_bytes())
            )?;
        }
        table(
            out,
            &[
                "PARTITION",
                "LEADER",
                "EPOCH",
                "REPLICAS",
                "IN-SYNC",
                "BEGIN",
                "END",
            ],
            rows,
        )?;
        for config in configs.iter().filter(|c| c.set_on_topic) {
            writeln!(
                out,
                "{} = {}",
                config.name,
                config.value.as_deref().unwrap_or("(hidden)")
            )?;
        }
        Ok(())
    };
    print(out).map_err(Failure::output)
}

fn run_delete(args: Delete, out: &mut impl Write) -> Result<(), Failure> {
    let mut cluster = Cluster::new(&args.bootstrap.bootstrap);
    each(&args.name, |name| {
        admin::delete(&mut cluster, name)?;
        writeln!(out, "deleted {name}").map_err(Failure::output)
    })
}

fn run_alter(args: Alter, out: &mut impl Write) -> Result<(), Failure> {
    let mut cluster = Cluster::new(&args.bootstrap.bootstrap);
    if let Some(total) = args.partitions {
        admin::widen(&mut cluster, &args.name, total)?;
    }
    let set = args
        .config
        .into_iter()
        .map(|(key, value)| (key, Some(value)));
    let changes: Vec<_> = set
        .chain(args.unset.into_iter().map(|key| (key, None)))
        .collect();
    if !changes.is_empty() {
        admin::configure(&mut cluster, &args.name, &changes)?;
    }
    writeln!(out, "altered {}", args.name).map_err(Failure::output)
}

fn list(numbers: &[i32]) -> String {
    let texts: Vec<String> = numbers.iter().map(i32::to_string).collect();
    texts.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_split_at_the_first_equals_sign() {
        assert_eq!(key_value("a=b=c"), Ok(("a".to_string(), "b=c".to_string())));
        assert_eq!(key_value("a="), Ok(("a".to_string(), String::new())));
        assert!(key_value("a").is_err() && key_value("=b").is_err());
    }
}
