//! Owns `millrace cluster ...`: what a cluster is, as its clients see it.
//! Does not know the protocol (that is `client`).
//! Invariant: changes nothing.

use crate::client::description::{self, Description};
use crate::client::{Bootstrap, Cluster};
use crate::failure::Failure;
use crate::group::shown;
use crate::text::table;
use serde_json::json;
use std::io::{self, Write};

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Show its id, its brokers, its features and who agrees on its metadata
    Describe(DescribeArgs),
}

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  millrace cluster describe\n  millrace cluster describe --json"
)]
struct DescribeArgs {
    /// Prints one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    bootstrap: Bootstrap,
}

pub fn run(args: Args) -> Result<(), Failure> {
    let Command::Describe(args) = args.command;
    let mut cluster = Cluster::new(&args.bootstrap.bootstrap);
    let described = description::describe(&mut cluster)?;
    print(&described, args.json, &mut io::stdout().lock()).map_err(Failure::output)
}

fn print(cluster: &Description, json: bool, out: &mut impl Write) -> io::Result<()> {
    if json {
        let broker = |b: &description::BrokerAt| json!({"id": b.id, "host": b.host, "port": b.port, "rack": b.rack});
        let quorum = cluster.quorum.as_ref();
        let line = json!({"cluster_id": cluster.cluster_id, "controller": cluster.controller,
            "brokers": cluster.brokers.iter().map(broker).collect::<Vec<_>>(),
            "features": cluster.features,
            "quorum": quorum.map(|q| json!({"leader": q.leader, "epoch": q.epoch,
                "committed": q.committed, "voters": q.voters}))});
        return writeln!(out, "{line}");
    }
    writeln!(out, "cluster id  {}", shown(&cluster.cluster_id))?;
    writeln!(out, "controller  {}", cluster.controller)?;
    if let Some(quorum) = &cluster.quorum {
        let voters: Vec<String> = quorum.voters.iter().map(i32::to_string).collect();
        writeln!(
            out,
            "quorum      leader {} in epoch {}, {} entries agreed on, voters {}",
            quorum.leader,
            quorum.epoch,
            quorum.committed,
            voters.join(", ")
        )?;
    }
    let features = cluster.features.iter();
    let features: Vec<String> = features
        .map(|(name, level)| format!("{} {level}", shown(name)))
        .collect();
    if !features.is_empty() {
        writeln!(out, "features    {}", features.join(", "))?;
    }
    writeln!(out)?;
    let row = |broker: &description::BrokerAt| {
        vec![
            broker.id.to_string(),
            shown(&format!("{}:{}", broker.host, broker.port)),
            shown(broker.rack.as_deref().unwrap_or_default()),
        ]
    };
    let rows = cluster.brokers.iter().map(row).collect();
    table(out, &["BROKER", "ADDRESS", "RACK"], rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::description::{BrokerAt, Quorum};

    fn printed(quorum: Option<Quorum>, json: bool) -> String {
        let cluster = Description {
            cluster_id: "abc".into(),
            controller: 1,
            brokers: vec![BrokerAt {
                id: 1,
                host: "h".into(),
                port: 9092,
                rack: None,
            }],
            features: [("transaction.version".to_string(), 2)].into(),
            quorum,
        };
        let mut out = Vec::new();
        print(&cluster, json, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn quorum() -> Option<Quorum> {
        Some(Quorum {
            leader: 1,
            epoch: 3,
            committed: 57,
            voters: vec![1],
        })
    }

    #[test]
    fn a_cluster_as_people_read_it() {
        let told = printed(quorum(), false);
        assert_eq!(
            told,
            "cluster id  abc\ncontroller  1\nquorum      leader 1 in epoch 3, 57 entries agreed on, voters 1\n\
             features    transaction.version 2\n\nBROKER  ADDRESS  RACK\n1       h:9092   -\n"
        );
        assert!(!printed(None, false).contains("quorum"));
    }

    #[test]
    fn a_cluster_as_programs_read_it() {
        let told: serde_json::Value = serde_json::from_str(&printed(quorum(), true)).unwrap();
        assert_eq!(told["quorum"]["committed"], 57);
        assert_eq!(told["brokers"][0]["port"], 9092);
        let told: serde_json::Value = serde_json::from_str(&printed(None, true)).unwrap();
        assert!(told["quorum"].is_null());
    }
}
