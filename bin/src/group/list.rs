//! Owns `millrace group list`: the groups of all brokers with their states.
//! Does not know the protocol, or which broker has which group.
//! Invariant: a broker that does not answer hides no group of the others, and the command does not succeed.

use super::{first_of, shown};
use crate::client::groups::{self, Listed};
use crate::client::{Bootstrap, Cluster};
use crate::failure::Failure;
use crate::text::table;
use serde_json::json;
use std::io::Write;

/// Every state that some kind of group has in Apache Kafka.
const STATES: [&str; 8] = [
    "Empty",
    "PreparingRebalance",
    "CompletingRebalance",
    "Assigning",
    "Reconciling",
    "Stable",
    "NotReady",
    "Dead",
];

#[derive(clap::Args)]
#[command(after_help = "Examples:\n  millrace group list\n  \
    millrace group list --state empty --state dead\n  \
    millrace group list --json | jq -r 'select(.state == \"Stable\") | .group'")]
pub struct Args {
    /// Groups in this state only; repeat it for more
    #[arg(long, short, value_name = "STATE", ignore_case = true,
          value_parser = clap::builder::PossibleValuesParser::new(STATES))]
    state: Vec<String>,
    /// Prints one JSON object a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    bootstrap: Bootstrap,
}

pub fn run(args: Args, out: &mut impl Write) -> Result<(), Failure> {
    let mut cluster = Cluster::new(&args.bootstrap.bootstrap);
    let (listed, errors) = groups::list(&mut cluster)?;
    if !args.state.is_empty() {
        if let Some(group) = listed.iter().find(|group| group.state.is_empty()) {
            return Err(Failure::new(format!(
                "the broker does not tell states in its list of groups (group {})",
                shown(&group.name)
            ))
            .todo("List without --state; `millrace group describe GROUP --state` tells the state of one."));
        }
    }
    print(&in_states(listed, &args.state), args.json, out).map_err(Failure::output)?;
    first_of(errors)
}

/// Those in one of the states, or all of them where no state is named.
fn in_states(groups: Vec<Listed>, states: &[String]) -> Vec<Listed> {
    let wanted = |group: &Listed| {
        states.is_empty() || states.iter().any(|s| s.eq_ignore_ascii_case(&group.state))
    };
    groups.into_iter().filter(wanted).collect()
}

fn print(groups: &[Listed], json: bool, out: &mut impl Write) -> std::io::Result<()> {
    if json {
        return groups.iter().try_for_each(|group| {
            let text = |value: &String| (!value.is_empty()).then(|| value.clone());
            let line = json!({"group": group.name, "state": text(&group.state),
                "protocol_type": group.protocol_type, "type": text(&group.kind)});
            writeln!(out, "{line}")
        });
    }
    let row = |group: &Listed| {
        vec![
            shown(&group.name),
            shown(&group.state),
            shown(&group.protocol_type),
        ]
    };
    let head = ["GROUP", "STATE", "PROTOCOL-TYPE"];
    table(out, &head, groups.iter().map(row).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(name: &str, state: &str) -> Listed {
        Listed {
            name: name.to_string(),
            protocol_type: "consumer".to_string(),
            state: state.to_string(),
            kind: String::new(),
        }
    }

    fn printed(groups: &[Listed], json: bool) -> String {
        let mut out = Vec::new();
        print(groups, json, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn states_are_chosen_however_they_are_written() {
        let groups = || {
            vec![
                listed("a", "Stable"),
                listed("b", "Empty"),
                listed("c", "Dead"),
            ]
        };
        let names = |states: &[&str]| {
            let states: Vec<String> = states.iter().map(|s| s.to_string()).collect();
            let groups = in_states(groups(), &states).into_iter();
            groups.map(|g| g.name).collect::<Vec<_>>()
        };
        assert_eq!(names(&[]), ["a", "b", "c"]);
        assert_eq!(names(&["stable", "DEAD"]), ["a", "c"]);
        assert_eq!(names(&["Assigning"]), [""; 0]);
    }

    #[test]
    fn groups_print_as_a_table_or_as_lines_of_json() {
        let mut groups = [listed("a", "Stable"), listed("b", "")];
        groups[1].protocol_type.clear();
        assert_eq!(
            printed(&groups, false),
            "GROUP  STATE   PROTOCOL-TYPE\na      Stable  consumer\nb      -       -\n"
        );
        let lines = printed(&groups, true);
        let lines: Vec<serde_json::Value> = lines
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(
            lines,
            [
                json!({"group": "a", "state": "Stable", "protocol_type": "consumer", "type": null}),
                json!({"group": "b", "state": null, "protocol_type": "", "type": null}),
            ]
        );
    }
}
