//! Owns `millrace group describe` of share groups: where each is in its partitions, and its members.
//! Does not know the protocol.
//! Invariant: what is not known is shown as such, never as a number.

use super::{number, shown};
use crate::client::groups::{Listed, Place};
use crate::client::shares::{self, ShareMember, ShareOffset};
use crate::client::Cluster;
use crate::failure::Failure;
use crate::text::table;
use serde_json::json;
use std::collections::BTreeMap;
use std::io::{self, Write};

/// Offsets, or with `members` who is in the group.
pub fn describe(
    cluster: &mut Cluster,
    found: &Listed,
    members: bool,
    json: bool,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let printed = match members {
        true => print_members(found, &shares::members(cluster, &found.name)?, json, out),
        false => print_offsets(found, &shares::offsets(cluster, &found.name)?, json, out),
    };
    printed.map_err(Failure::output)
}

fn print_offsets(
    group: &Listed,
    offsets: &BTreeMap<Place, ShareOffset>,
    json: bool,
    out: &mut impl Write,
) -> io::Result<()> {
    if json {
        return offsets.iter().try_for_each(|((topic, partition), at)| {
            let line = json!({"group": group.name, "state": group.state, "type": group.kind,
                "topic": topic, "partition": partition, "start": at.start, "lag": at.lag});
            writeln!(out, "{line}")
        });
    }
    let row = |((topic, partition), at): (&Place, &ShareOffset)| {
        vec![
            shown(&group.name),
            shown(&group.state),
            shown(topic),
            partition.to_string(),
            number(at.start),
            number(at.lag),
        ]
    };
    let head = ["GROUP", "STATE", "TOPIC", "PARTITION", "START", "LAG"];
    table(out, &head, offsets.iter().map(row).collect())
}

fn print_members(
    group: &Listed,
    members: &[ShareMember],
    json: bool,
    out: &mut impl Write,
) -> io::Result<()> {
    let places = |member: &ShareMember| -> Vec<String> {
        let one = |(topic, partition): &Place| format!("{topic}-{partition}");
        member.places.iter().map(one).collect()
    };
    if json {
        return members.iter().try_for_each(|member| {
            let line = json!({"group": group.name, "type": group.kind, "member": member.id,
                "client": member.client_id, "host": member.host, "partitions": places(member)});
            writeln!(out, "{line}")
        });
    }
    let row = |member: &ShareMember| {
        vec![
            shown(&group.name),
            shown(&member.id),
            shown(&member.client_id),
            shown(&member.host),
            shown(&places(member).join(",")),
        ]
    };
    let head = ["GROUP", "MEMBER", "CLIENT", "HOST", "PARTITIONS"];
    table(out, &head, members.iter().map(row).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_and_members_print_as_tables() {
        let group = Listed {
            name: "g".into(),
            protocol_type: "share".into(),
            state: "Stable".into(),
            kind: "share".into(),
        };
        let at = |start, lag| ShareOffset { start, lag };
        let offsets = BTreeMap::from([
            (("t".to_string(), 0), at(Some(5), Some(2))),
            (("t".to_string(), 1), at(None, None)),
        ]);
        let mut out = Vec::new();
        print_offsets(&group, &offsets, false, &mut out).unwrap();
        let member = ShareMember {
            id: "m".into(),
            client_id: "c".into(),
            host: "/h".into(),
            places: offsets.keys().cloned().collect(),
        };
        print_members(&group, &[member], false, &mut out).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "GROUP  STATE   TOPIC  PARTITION  START  LAG\n\
             g      Stable  t      0          5      2\n\
             g      Stable  t      1          -      -\n\
             GROUP  MEMBER  CLIENT  HOST  PARTITIONS\n\
             g      m       c       /h    t-0,t-1\n"
        );
    }
}
