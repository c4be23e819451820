//! Owns making configuration files and the small files of a Kafka log directory.
//! Does not know which settings there are beyond those it names.
//! Invariant: all but those named wrong are files that would be taken.

use super::{made, Made};
use millrace_engine::types::batch::crc32c;

pub fn make() -> Vec<Made> {
    let mut all: Vec<Made> = CONFIGS
        .iter()
        .map(|(name, text)| made("config", *name, *text))
        .collect();
    all.push(made(
        "adopt",
        "offsets",
        "0\n2\ntopic 0 5\nother-topic 12 0\n",
    ));
    all.push(made("adopt", "epochs", "0\n3\n0 0\n1 7\n4 20\n"));
    all.push(made("adopt", "no-epochs", "0\n0\n"));
    let metadata = "version: 0\ntopic_id: ASNFZ4mrze_-3LqYdlQyEA\n";
    all.push(made("adopt", "partition.metadata", metadata));
    all.push(made(
        "adopt",
        "producers",
        producers(&[(5, 11, 40, 1), (6, -1, 41, 0)]),
    ));
    all.push(made("adopt", "no-producers", producers(&[])));
    all
}

const CONFIGS: &[(&str, &str)] = &[
    (
        "all",
        "data-dir = \"/srv/millrace\"\njournal-dir = \"/journal\"\nlisten = [\"0.0.0.0:9092\", \"[::1]:0\"]\n\
         advertise = \"broker1.example:9092\"\nadvertise-cores = true\nshards = 2\ncpus = \"0-1,4\"\nmemory = \"1.5GiB\"\nnode-id = 3\n\
         admin-listen = \"127.0.0.1:9644\"\nlog-level = \"info,millrace_net=debug\"\n",
    ),
    ("numbers", "cpus = [0, 4]\nmemory = 536870912\nlisten = \"localhost:9092\"\n"),
    ("sizes", "memory = \"512 mib\" # what a comment says\nshards = 1\n"),
    ("empty", ""),
    ("wrong-key", "data-dirr = \"x\"\n"),
    ("wrong-type", "shards = { a = [1, 2.5, 1979-05-27] }\n"),
    ("wrong-cpu", "cpus = \"0-8191\"\n"),
    ("tables", "[a.b]\nc = '''x'''\n[[d]]\n\"e f\" = +inf\n"),
];

/// A producer snapshot: id, last sequence, last offset, records of the last batch less one.
fn producers(entries: &[(i64, i32, i64, i32)]) -> Vec<u8> {
    let mut body = (entries.len() as u32).to_be_bytes().to_vec();
    for (id, last_sequence, last_offset, delta) in entries {
        body.extend(id.to_be_bytes());
        body.extend(3i16.to_be_bytes());
        body.extend(last_sequence.to_be_bytes());
        body.extend(last_offset.to_be_bytes());
        body.extend(delta.to_be_bytes());
        body.extend(99i64.to_be_bytes());
        body.extend((-1i32).to_be_bytes());
        body.extend((-1i64).to_be_bytes());
    }
    [
        &1i16.to_be_bytes()[..],
        &crc32c(&body).to_be_bytes(),
        &body[..],
    ]
    .concat()
}
