//! Owns the tests of a broker process whose shards are brokers of their own, used through the program's own clients.
//! Does not know what the answers say beyond what those clients show.
//! Invariant: what is counted is counted by the broker, not by a clock.

use super::{numbers, refusal, serve, sorted, Broker, Dir};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Stdio;

const FLAG: &[&str] = &["--advertise-cores"];

/// Over all shards, requests of an API that came to another shard than that of their partitions.
fn crossed(broker: &Broker, api: &str) -> u64 {
    let metrics = broker.get("/metrics");
    let is_of = |line: &&str| {
        line.starts_with("millrace_requests_crossed_total") && line.contains(&format!("\"{api}\""))
    };
    let counts = metrics.lines().filter(is_of);
    let counts: Vec<u64> = counts
        .map(|line| line.rsplit_once(' ').unwrap().1.parse().unwrap())
        .collect();
    assert_eq!(counts.len(), 2, "one of each shard: {metrics}");
    counts.iter().sum()
}

/// Produces to eight partitions, reads them back, and gives what crossed cores meanwhile, by API.
fn crossed_by_clients(broker: &Broker) -> [u64; 3] {
    broker.client_ok(&["topic", "create", "t", "--partitions", "8"], "");
    let lines: String = (0..2_000).map(|n| format!("key{n}:{n}\n")).collect();
    broker.client_ok(&["produce", "t", "--key-separator", ":"], &lines);
    let all: Vec<usize> = (0..2_000).collect();
    let consumed = broker.client_ok(&["consume", "t", "--exit-at-end"], "");
    assert_eq!(sorted(&consumed), all);
    ["Produce", "Fetch", "ListOffsets"].map(|api| crossed(broker, api))
}

#[test]
fn clients_that_follow_metadata_cross_cores_only_without_the_flag() {
    let dir = Dir::new("cores");
    let broker = Broker::start_on(&dir, 2, "127.0.0.1:0", FLAG).expect("it starts");
    assert_eq!(broker.cores.len(), 2);
    assert_eq!(crossed_by_clients(&broker), [0; 3]);
    drop(broker);

    let dir = Dir::new("no-cores");
    let broker = Broker::start(&dir, 2);
    assert!(broker.cores.is_empty());
    assert!(crossed_by_clients(&broker).iter().all(|count| *count > 0));
}

#[test]
fn the_load_generator_goes_to_the_core_of_each_partition() {
    let dir = Dir::new("cores-perf");
    let broker = Broker::start_on(&dir, 2, "127.0.0.1:0", FLAG).expect("it starts");
    let scenario = dir.0.join("short.toml");
    // What there is to do ends it: on a busy machine a short time may pass without an answer.
    let text = "reason = \"a test\"\nduration-seconds = 60\n[topic]\npartitions = 4\n\
        [producers]\ncount = 1\nrecord-bytes = \"100B\"\nbatch-records = 1\nrate = \"20 records/s\"\n\
        bytes = \"6KiB\"\n[consumers]\ncount = 1\n";
    std::fs::write(&scenario, text).unwrap();
    let mut command = super::millrace();
    command
        .args(["perf", "run", "--ceiling", "60"])
        .arg(&scenario);
    command.args(["--against", &format!("mine={}", broker.kafka)]);
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metrics = broker.get("/metrics");
    for shard in ["0", "1"] {
        let produced = format!("millrace_requests_total{{shard=\"{shard}\",api=\"Produce\"}} ");
        let line = metrics
            .lines()
            .find_map(|line| line.strip_prefix(&produced));
        assert!(
            line.expect(&metrics).parse::<u64>().unwrap() > 10,
            "shard {shard}: {metrics}"
        );
    }
    assert_eq!(
        ["Produce", "Fetch", "ListOffsets"].map(|api| crossed(&broker, api)),
        [0; 3]
    );
}

/// A port that is free, and the three after it, for the one test that has this number of two. Below the ports that the kernel
/// gives to whoever asks for any, so that only another run of these tests could want it.
fn fixed_port(test: u16) -> u16 {
    assert!(test < 2);
    let own = 12_000 + std::process::id() as u16 % 2_000 * 8 + test * 4;
    let free = |port| TcpListener::bind(("127.0.0.1", port)).is_ok();
    (own..own + 4_000)
        .step_by(8)
        .find(|first| (0..4).all(|next| free(first + next)))
        .expect("four free ports in a row")
}

fn port(address: &str) -> u16 {
    address.rsplit_once(':').unwrap().1.parse().unwrap()
}

#[test]
fn ports_follow_the_first_and_a_producer_outlives_the_core_it_produced_to() {
    let dir = Dir::new("fewer-cores");
    let first = fixed_port(0);
    let at = format!("127.0.0.1:{first}");
    let broker = Broker::start_on(&dir, 3, &at, FLAG).expect("it starts");
    let ports: Vec<u16> = broker.cores.iter().map(|at| port(at)).collect();
    assert_eq!(ports, [first + 1, first + 2, first + 3]);
    broker.client_ok(&["topic", "create", "t", "--partitions", "6"], "");
    let mut producer = super::millrace()
        .args(["produce", "t", "--key-separator", ":"])
        .args(["--bootstrap", &broker.kafka])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = producer.stdin.take().unwrap();
    let mut send = |range: std::ops::Range<usize>| {
        let lines: String = range.map(|n| format!("key{n}:{n}\n")).collect();
        input.write_all(lines.as_bytes()).unwrap();
        input.flush().unwrap();
    };
    send(0..100);
    let consumed = broker.client_ok(&["consume", "t", "--count", "100"], "");
    assert_eq!(consumed.lines().count(), 100);
    broker.signal(libc::SIGTERM);
    assert_eq!(broker.wait(), Some(0));
    // With one shard, the ports of the other two have nobody behind them, and their ids are no brokers any more.
    let broker = Broker::start_on(&dir, 1, &at, FLAG).expect("it starts");
    assert_eq!(broker.cores.len(), 1);
    send(100..200);
    drop(input);
    let mut said = String::new();
    producer
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut said)
        .unwrap();
    assert!(producer.wait().unwrap().success(), "{said}");
    let all: Vec<usize> = (0..200).collect();
    let consumed = broker.client_ok(&["consume", "t", "--exit-at-end"], "");
    assert_eq!(sorted(&consumed), all);
}

#[test]
fn what_has_no_room_for_its_cores_is_refused() {
    let dir = Dir::new("no-room");
    let first = fixed_port(1);
    let at = format!("127.0.0.1:{first}");
    let taken = format!("127.0.0.1:{}", first + 2);
    let _held = TcpListener::bind(&taken).unwrap();
    let message = refusal(serve(&dir.0, &at).args(["--advertise-cores", "--shards", "2"]));
    assert!(
        message.contains(&taken) && message.contains("for shard 1"),
        "{message}"
    );
    assert!(
        message.contains(&format!("process {}", std::process::id())),
        "{message}"
    );

    let mut check = super::millrace();
    check.args([
        "check",
        "--no-measure",
        "--advertise-cores",
        "--shards",
        "2",
        "--listen",
        &at,
    ]);
    check.args([
        "--admin-listen",
        "127.0.0.1:0",
        "--memory",
        "256MiB",
        "--data-dir",
    ]);
    let table = check.arg(dir.0.join("data")).output().unwrap();
    assert_eq!(table.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&table.stdout).contains("for shard 1"));

    let message =
        refusal(serve(&dir.0, "127.0.0.1:0").args(["--advertise-cores", "--node-id", "0"]));
    assert!(
        message.contains("advertise-cores: the cores of node 0"),
        "{message}"
    );
}

#[test]
fn topics_are_administered_as_ever() {
    let dir = Dir::new("cores-topics");
    let broker = Broker::start_on(&dir, 2, "127.0.0.1:0", FLAG).expect("it starts");
    broker.client_ok(&["topic", "create", "t", "--partitions", "2"], "");
    broker.client_ok(
        &[
            "topic",
            "alter",
            "t",
            "--partitions",
            "4",
            "--config",
            "retention.ms=1000000",
        ],
        "",
    );
    let described = broker.client_ok(&["topic", "describe", "t"], "");
    assert!(described.contains("retention.ms = 1000000"), "{described}");
    let is_row = |line: &&str| line.starts_with(|c: char| c.is_ascii_digit());
    let rows: Vec<&str> = described.lines().filter(is_row).collect();
    let led = |id: &str| rows.iter().filter(|row| row.contains(id)).count();
    assert_eq!(
        (rows.len(), led("1000"), led("1001")),
        (4, 2, 2),
        "{described}"
    );
    broker.client_ok(&["produce", "t"], &numbers(10));
    assert_eq!(broker.client_ok(&["topic", "list", "--names"], ""), "t\n");
    let refused = broker.client(&["topic", "create", "u", "--replication-factor", "2"], "");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("cores of one node"), "{said}");
    broker.client_ok(&["topic", "delete", "t"], "");
    assert_eq!(broker.client_ok(&["topic", "list", "--names"], ""), "");
}
