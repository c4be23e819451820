//! Owns `millrace group describe`: how far a group has read, who reads for it, and its state.
//! Does not know the protocol.
//! Invariant: every partition that is committed or assigned is shown, whatever else is known of it.

use super::{counted, number, share, shown, topics};
use crate::client::assignment::Assignment;
use crate::client::groups::{self, Description, Listed, Member, Offsets, Place, Seen};
use crate::client::offsets::Spec;
use crate::client::shares::SHARE;
use crate::client::{Bootstrap, Cluster};
use crate::failure::{each, Failure};
use crate::text::table;
use millrace_net::wire::ErrorCode;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

#[derive(clap::Args)]
#[command(after_help = "Examples:\n  millrace group describe billing\n  \
    millrace group describe billing --members\n  \
    millrace group describe billing --json | jq 'select(.lag > 1000)'\n\n\
    Shows for each partition the offset the group committed, the end of the log, the lag between\n\
    them, and the member that reads it. A - is what is not there, a ? what cannot be read.")]
pub struct Args {
    /// Names of groups
    #[arg(required = true)]
    group: Vec<String>,
    /// The members and what each of them reads, instead of offsets
    #[arg(long, conflicts_with = "state")]
    members: bool,
    /// State, coordinator, assignor and number of members, instead of offsets
    #[arg(long)]
    state: bool,
    /// Prints one JSON object a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    bootstrap: Bootstrap,
}

pub fn run(args: Args, out: &mut impl Write) -> Result<(), Failure> {
    let mut cluster = Cluster::new(&args.bootstrap.bootstrap);
    each(&args.group, |group| {
        let seen = groups::look(&mut cluster, group)?;
        if let Seen::Listed(found) = &seen {
            if found.kind == SHARE && !args.state {
                return share::describe(&mut cluster, found, args.members, args.json, out);
            }
        }
        if !args.members && !args.state {
            return describe_offsets(&mut cluster, group, seen, args.json, out);
        }
        let found = match seen {
            Seen::Described(found) => found,
            Seen::Listed(found) => {
                let todo = format!(
                    "`millrace group describe {group}` shows its offsets, `millrace group list` its state."
                );
                return Err(Failure::new(members_are_hidden(&found)).todo(todo));
            }
            Seen::Absent(error) => return Err(error.into()),
        };
        let printed = if args.members {
            print_members(group, &found, args.json, out)
        } else {
            print_state(group, &found, args.json, out)
        };
        printed.map_err(Failure::output)
    })
}

fn members_are_hidden(found: &Listed) -> String {
    let (name, kind) = (shown(&found.name), shown(&found.kind));
    format!("the members of group {name} cannot be shown: it is of type {kind}, not classic")
}

fn describe_offsets(
    cluster: &mut Cluster,
    group: &str,
    seen: Seen,
    json: bool,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let (state, members) = match seen {
        Seen::Described(found) => (found.state, found.members),
        Seen::Listed(found) => {
            eprintln!("millrace: {}", members_are_hidden(&found));
            (found.state, Vec::new())
        }
        Seen::Absent(error) => return Err(error.into()),
    };
    let committed = groups::committed(cluster, group)?;
    let unread = members.iter().filter(|m| m.assignment.is_none()).count();
    if unread > 0 {
        let unread = counted(unread, "member");
        eprintln!("millrace: what {unread} of group {group} read is in a form unknown here");
    }
    let owners = owners(&members);
    let places: BTreeSet<&Place> = committed.keys().chain(owners.keys()).collect();
    let ends = ends(cluster, group, &places)?;
    let rows: Vec<Row> = places
        .into_iter()
        .map(|place| Row {
            topic: &place.0,
            partition: place.1,
            committed: committed.get(place).copied(),
            end: ends.get(place).copied(),
            owner: owners.get(place).copied(),
        })
        .collect();
    print_offsets(group, &state, &rows, json, out).map_err(Failure::output)
}

/// Ends of the logs; partitions without one are left out and told, once for each topic.
fn ends(cluster: &mut Cluster, group: &str, places: &BTreeSet<&Place>) -> Result<Offsets, Failure> {
    let mut ends = Offsets::new();
    for (topic, partitions) in topics::by_topic(places.iter().copied()) {
        let found = match topics::offsets(cluster, topic, &partitions, Spec::Latest) {
            Err(error) if error.code() == Some(ErrorCode::UnknownTopicOrPartition) => {
                eprintln!(
                    "millrace: topic {topic}, of which group {group} has offsets, is not there\n  \
                     `millrace group delete-offsets` forgets them."
                );
                continue;
            }
            done => done?,
        };
        let missing = partitions.iter().filter(|p| !found.contains_key(p)).count();
        if missing > 0 {
            eprintln!(
                "millrace: {} of {topic} not there, or without a leader\n  \
                 `millrace topic describe {topic}` shows its partitions.",
                counted(missing, "partition")
            );
        }
        ends.extend(
            found
                .into_iter()
                .map(|(p, end)| ((topic.to_string(), p), end)),
        );
    }
    Ok(ends)
}

/// Who reads each partition; the first of several, which there are only while the group changes.
fn owners(members: &[Member]) -> BTreeMap<Place, &Member> {
    let mut owners = BTreeMap::new();
    for member in members {
        for (topic, partitions) in member.assignment.iter().flatten() {
            for partition in partitions {
                owners.entry((topic.clone(), *partition)).or_insert(member);
            }
        }
    }
    owners
}

/// One partition of a group.
struct Row<'a> {
    topic: &'a str,
    partition: i32,
    committed: Option<i64>,
    end: Option<i64>,
    owner: Option<&'a Member>,
}

impl Row<'_> {
    /// Negative where the log lost what the group had read.
    fn lag(&self) -> Option<i64> {
        Some(self.end?.saturating_sub(self.committed?))
    }
}

fn print_offsets(
    group: &str,
    state: &str,
    rows: &[Row],
    json: bool,
    out: &mut impl Write,
) -> io::Result<()> {
    if json {
        return rows.iter().try_for_each(|row| {
            let line = json!({"group": group, "topic": row.topic, "partition": row.partition,
                "committed_offset": row.committed, "log_end_offset": row.end, "lag": row.lag(),
                "member_id": row.owner.map(|m| &m.id), "client_id": row.owner.map(|m| &m.client_id),
                "host": row.owner.map(|m| &m.host)});
            writeln!(out, "{line}")
        });
    }
    writeln!(out, "group {} ({})", shown(group), shown(state))?;
    let line = |row: &Row| {
        let of_owner =
            |part: fn(&Member) -> &String| shown(row.owner.map_or("", |m| part(m).as_str()));
        vec![
            shown(row.topic),
            row.partition.to_string(),
            number(row.committed),
            number(row.end),
            number(row.lag()),
            of_owner(|m| &m.id),
            of_owner(|m| &m.client_id),
            of_owner(|m| &m.host),
        ]
    };
    let head = [
        "TOPIC",
        "PARTITION",
        "COMMITTED",
        "END",
        "LAG",
        "MEMBER",
        "CLIENT",
        "HOST",
    ];
    table(out, &head, rows.iter().map(line).collect())
}

fn print_members(
    group: &str,
    found: &Description,
    json: bool,
    out: &mut impl Write,
) -> io::Result<()> {
    if json {
        return found.members.iter().try_for_each(|m| {
            let line = json!({"group": group, "member_id": m.id, "instance_id": m.instance_id,
                "client_id": m.client_id, "host": m.host, "partitions": m.assignment.as_ref().map(count),
                "assignment": m.assignment});
            writeln!(out, "{line}")
        });
    }
    writeln!(out, "group {} ({})", shown(group), shown(&found.state))?;
    let line = |member: &Member| {
        let (partitions, assignment) = match &member.assignment {
            None => ("?".to_string(), "?".to_string()),
            Some(assignment) => (count(assignment).to_string(), listed(assignment)),
        };
        vec![
            shown(&member.id),
            shown(member.instance_id.as_deref().unwrap_or_default()),
            shown(&member.client_id),
            shown(&member.host),
            partitions,
            assignment,
        ]
    };
    let head = [
        "MEMBER",
        "INSTANCE",
        "CLIENT",
        "HOST",
        "PARTITIONS",
        "ASSIGNMENT",
    ];
    table(out, &head, found.members.iter().map(line).collect())
}

fn count(assignment: &Assignment) -> usize {
    assignment.values().map(BTreeSet::len).sum()
}

/// `orders:0,3 audit:1`, which is how other commands take it.
fn listed(assignment: &Assignment) -> String {
    let topic = |(topic, partitions): (&String, &BTreeSet<i32>)| {
        let numbers: Vec<String> = partitions.iter().map(i32::to_string).collect();
        format!("{topic}:{}", numbers.join(","))
    };
    let some = assignment
        .iter()
        .filter(|(_, partitions)| !partitions.is_empty());
    let topics: Vec<String> = some.map(topic).collect();
    shown(&topics.join(" "))
}

fn print_state(
    group: &str,
    found: &Description,
    json: bool,
    out: &mut impl Write,
) -> io::Result<()> {
    let Description {
        coordinator,
        state,
        protocol_type,
        assignor,
        members,
    } = found;
    if json {
        let line = json!({"group": group, "coordinator": coordinator.node,
            "coordinator_address": coordinator.at.to_string(), "state": state,
            "protocol_type": protocol_type, "assignor": assignor, "members": members.len()});
        return writeln!(out, "{line}");
    }
    writeln!(out, "group {}", shown(group))?;
    writeln!(out, "state {}", shown(state))?;
    writeln!(
        out,
        "coordinator {} at {}",
        coordinator.node, coordinator.at
    )?;
    writeln!(out, "protocol type {}", shown(protocol_type))?;
    writeln!(out, "assignor {}", shown(assignor))?;
    writeln!(out, "members {}", members.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::groups::Coordinator;
    use crate::units::HostPort;

    fn assigned(topics: &[(&str, &[i32])]) -> Option<Assignment> {
        let topic = |(t, p): &(&str, &[i32])| (t.to_string(), p.iter().copied().collect());
        Some(topics.iter().map(topic).collect())
    }

    fn member(id: &str, assignment: Option<Assignment>) -> Member {
        Member {
            id: id.to_string(),
            instance_id: None,
            client_id: "app".to_string(),
            host: "/10.0.0.1".to_string(),
            assignment,
        }
    }

    fn described(members: Vec<Member>) -> Description {
        Description {
            coordinator: Coordinator {
                node: 3,
                at: HostPort::new("b3", 9092),
            },
            state: "Stable".to_string(),
            protocol_type: "consumer".to_string(),
            assignor: "range".to_string(),
            members,
        }
    }

    fn text(print: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> String {
        let mut out = Vec::new();
        print(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn values(lines: &str) -> Vec<serde_json::Value> {
        let lines = lines.lines();
        lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    #[test]
    fn partitions_show_how_far_and_by_whom_they_are_read() {
        let reader = member("m-1", None);
        let row = |partition, committed, end, owner| Row {
            topic: "t",
            partition,
            committed,
            end,
            owner,
        };
        let rows = [
            row(0, Some(7), Some(10), Some(&reader)),
            row(1, Some(5), None, None),
            row(2, None, Some(4), Some(&reader)),
            row(3, Some(9), Some(4), None),
        ];
        assert_eq!(
            text(|out| print_offsets("g", "Stable", &rows, false, out)),
            "group g (Stable)\n\
             TOPIC  PARTITION  COMMITTED  END  LAG  MEMBER  CLIENT  HOST\n\
             t      0          7          10   3    m-1     app     /10.0.0.1\n\
             t      1          5          -    -    -       -       -\n\
             t      2          -          4    -    m-1     app     /10.0.0.1\n\
             t      3          9          4    -5   -       -       -\n"
        );
        let lines = values(&text(|out| print_offsets("g", "", &rows[..2], true, out)));
        assert_eq!(
            lines,
            [
                json!({"group": "g", "topic": "t", "partition": 0, "committed_offset": 7,
                    "log_end_offset": 10, "lag": 3, "member_id": "m-1", "client_id": "app",
                    "host": "/10.0.0.1"}),
                json!({"group": "g", "topic": "t", "partition": 1, "committed_offset": 5,
                    "log_end_offset": null, "lag": null, "member_id": null, "client_id": null,
                    "host": null}),
            ]
        );
    }

    #[test]
    fn a_partition_has_the_owner_it_is_assigned_to() {
        let members = [
            member("a", assigned(&[("t", &[0, 1])])),
            member("b", None),
            member("c", assigned(&[("t", &[1, 2]), ("u", &[0])])),
        ];
        let owners = owners(&members);
        let found: Vec<_> = owners
            .iter()
            .map(|((topic, p), member)| format!("{topic}-{p} {}", member.id))
            .collect();
        assert_eq!(found, ["t-0 a", "t-1 a", "t-2 c", "u-0 c"]);
    }

    #[test]
    fn members_show_what_they_are_assigned() {
        let mut idle = member("b\u{7}", assigned(&[("t", &[])]));
        idle.instance_id = Some("fixed".to_string());
        let members = vec![
            member("a", assigned(&[("t", &[1, 0]), ("u", &[3])])),
            idle,
            member("c", None),
        ];
        let found = described(members);
        assert_eq!(
            text(|out| print_members("g", &found, false, out)),
            "group g (Stable)\n\
             MEMBER  INSTANCE  CLIENT  HOST       PARTITIONS  ASSIGNMENT\n\
             a       -         app     /10.0.0.1  3           t:0,1 u:3\n\
             b\\u{7}  fixed     app     /10.0.0.1  0           -\n\
             c       -         app     /10.0.0.1  ?           ?\n"
        );
        let lines = values(&text(|out| print_members("g", &found, true, out)));
        assert_eq!(lines[0]["assignment"], json!({"t": [0, 1], "u": [3]}));
        assert_eq!(lines[0]["partitions"], 3);
        assert_eq!(lines[1]["instance_id"], "fixed");
        assert!(lines[2]["assignment"].is_null() && lines[2]["partitions"].is_null());
    }

    #[test]
    fn the_state_names_the_coordinator() {
        let found = described(vec![member("a", None)]);
        assert_eq!(
            text(|out| print_state("g", &found, false, out)),
            "group g\nstate Stable\ncoordinator 3 at b3:9092\nprotocol type consumer\nassignor range\nmembers 1\n"
        );
        let lines = values(&text(|out| print_state("g", &found, true, out)));
        assert_eq!(
            lines,
            [
                json!({"group": "g", "coordinator": 3, "coordinator_address": "b3:9092",
                "state": "Stable", "protocol_type": "consumer", "assignor": "range", "members": 1})
            ]
        );
    }
}
