//! Owns runs of the whole load generator against its own sink, which counts like a broker.
//! Does not know how fast any of it is: what is checked are counts and that every sample is there.
//! Invariant: each test has a sink of its own on a free port.

use millrace_perf::client::{Client, TopicSpec};
use millrace_perf::error::PerfError;
use millrace_perf::limits;
use millrace_perf::run::{run, Consuming, Producing, ReadFrom, RunResult, Workload};
use millrace_perf::sink::Sink;
use millrace_perf::{idle, template};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

const ANY_PORT: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

fn producing() -> Producing {
    Producing {
        record_bytes: 100,
        batch_bytes: 1_000,
        partitions_per_request: 1,
        connections: 2,
        in_flight: 3,
        acks: -1,
        requests_per_second: None,
        bytes_max: None,
    }
}

fn consuming(from: ReadFrom) -> Consuming {
    Consuming {
        from,
        connections: 2,
        max_bytes: 64 << 10,
        partition_max_bytes: 16 << 10,
        max_wait_ms: 20,
        check_crc: true,
    }
}

fn workload(producing: Option<Producing>, consuming: Option<Consuming>) -> Workload {
    Workload {
        topic: "measured".into(),
        partitions: 5,
        replication: -1,
        topic_configs: Vec::new(),
        producing,
        consuming,
        warm_up: Duration::ZERO,
        duration: Duration::from_secs(60),
        cpu: None,
        spin: false,
    }
}

fn against(sink: &Sink, workload: &Workload) -> RunResult {
    run(workload, sink.address, Some(std::process::id())).expect("runs")
}

/// The next offsets of all partitions together: records that the sink acknowledged.
fn stored(sink: &Sink) -> u64 {
    let mut client = Client::connect(sink.address, Duration::from_secs(5)).expect("connects");
    client.negotiate().expect("answers");
    let offsets = client
        .offsets("measured", &[0, 1, 2, 3, 4], -1)
        .expect("answers");
    offsets.values().map(|&offset| offset as u64).sum()
}

#[test]
fn what_was_counted_is_what_was_acknowledged_and_can_be_read() {
    for (connections, partitions_per_request) in [(2, 1), (7, 1), (1, 5), (3, 2)] {
        let sink = Sink::start(ANY_PORT, None).expect("serves");
        let produced = against(
            &sink,
            &workload(
                Some(Producing {
                    connections,
                    partitions_per_request,
                    bytes_max: Some(1 << 20),
                    ..producing()
                }),
                None,
            ),
        );
        let outcome = produced.produced.as_ref().expect("produced");
        assert!(outcome.bytes >= 1 << 20, "{outcome:?}");
        assert!(outcome.seconds < 60.0, "the end of the work ends the run");
        assert_eq!(outcome.records, stored(&sink));
        assert_eq!(outcome.latency.samples, outcome.requests);
        assert_eq!((outcome.unanswered, outcome.unsent), (0, 0));
        assert!(!produced.has_failures());
        let batch_bytes = produced.batch_bytes.expect("there");
        assert_eq!(outcome.bytes % batch_bytes, 0);
        let broker = produced.broker.expect("sampled");
        assert!(broker.usage.rss_peak_bytes > 0);

        let consumed = against(&sink, &workload(None, Some(consuming(ReadFrom::Beginning))));
        let read = consumed.consumed.expect("consumed");
        assert_eq!((read.records, read.bytes), (outcome.records, outcome.bytes));
        assert!(read.seconds < 60.0, "the end of the topic ends the run");
        sink.stop().expect("no failure");
    }
}

#[test]
fn at_a_rate_each_intended_request_has_a_latency() {
    let sink = Sink::start(ANY_PORT, None).expect("serves");
    let mut workload = workload(
        Some(Producing {
            requests_per_second: Some(1_000.0),
            ..producing()
        }),
        None,
    );
    workload.warm_up = Duration::from_millis(50);
    workload.duration = Duration::from_millis(200);
    let outcome = against(&sink, &workload).produced.expect("produced");
    // 200 are meant for the window; rounding may put one on either side of an edge.
    assert!(outcome.latency.samples.abs_diff(200) <= 2, "{outcome:?}");
    sink.stop().expect("no failure");
}

#[test]
fn the_tail_is_read_and_joined_with_what_was_produced() {
    let sink = Sink::start(ANY_PORT, None).expect("serves");
    let mut workload = workload(
        Some(Producing {
            requests_per_second: Some(500.0),
            ..producing()
        }),
        Some(consuming(ReadFrom::Tail)),
    );
    workload.duration = Duration::from_millis(400);
    let result = against(&sink, &workload);
    let (produced, consumed) = (
        result.produced.expect("produced"),
        result.consumed.expect("consumed"),
    );
    assert!(consumed.records > 0 && consumed.records <= stored(&sink));
    // Every batch meant for the window was read in the end, and each has its latency.
    assert_eq!(result.unread, 0);
    let joined = result.end_to_end.expect("joined").samples;
    assert_eq!(joined, produced.latency.samples);
    assert_eq!((produced.unanswered, produced.unsent), (0, 0));
    sink.stop().expect("no failure");
}

#[test]
fn without_acknowledgements_nothing_is_waited_for() {
    let sink = Sink::start(ANY_PORT, None).expect("serves");
    let produced = against(
        &sink,
        &workload(
            Some(Producing {
                acks: 0,
                bytes_max: Some(100_000),
                ..producing()
            }),
            None,
        ),
    );
    let outcome = produced.produced.expect("produced");
    assert!(outcome.bytes >= 100_000 && outcome.unanswered == 0);
    sink.stop().expect("no failure");
}

#[test]
fn a_topic_with_too_few_partitions_is_refused() {
    let sink = Sink::start(ANY_PORT, None).expect("serves");
    let mut client = Client::connect(sink.address, Duration::from_secs(5)).expect("connects");
    client.negotiate().expect("answers");
    let small = TopicSpec {
        name: "measured".into(),
        partitions: 2,
        replication: -1,
        configs: Vec::new(),
    };
    client.prepare_topic(&small).expect("created");
    let result = run(&workload(Some(producing()), None), sink.address, None);
    assert!(matches!(result, Err(PerfError::Usage(_))), "{result:?}");
    let batch = template::batch(10, 1).expect("builds");
    assert_eq!(
        client.produce_one("measured", 1, &batch).expect("answers"),
        0
    );
    assert_eq!(
        client.produce_one("measured", 2, &batch).expect("answers"),
        3
    );
    sink.stop().expect("no failure");
}

#[test]
fn a_broker_that_goes_away_is_an_error_and_not_a_figure() {
    let listener = std::net::TcpListener::bind(ANY_PORT).expect("binds");
    let address = listener.local_addr().expect("bound");
    let broker = std::thread::spawn(move || drop(listener.accept().expect("accepts")));
    let result = run(&workload(Some(producing()), None), address, None);
    assert!(
        matches!(result, Err(PerfError::Closed | PerfError::Io { .. })),
        "{result:?}"
    );
    broker.join().expect("no panic");
}

#[test]
fn idle_connections_are_held() {
    let sink = Sink::start(ANY_PORT, None).expect("serves");
    let pid = Some(std::process::id());
    let held = idle::hold(sink.address, 20, Duration::from_millis(10), pid).expect("holds");
    assert_eq!(held.connections, 20);
    assert!(held.cpu_percent.is_some() && held.rss_bytes_before > Some(0));
    sink.stop().expect("no failure");
}

#[test]
fn the_disk_is_measured_and_left_clean() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("limits");
    std::fs::create_dir_all(&folder).expect("a folder");
    let file_bytes = 2 * limits::GROUP_BYTES as u64;
    let measured = limits::disk(&folder, file_bytes, Duration::from_millis(20)).expect("measures");
    assert!(measured.sequential_mib_per_second > 0.0);
    assert!(measured.small_flush.samples > 0 && measured.small_flush.p50_us > 0.0);
    assert_eq!(
        measured.small_durable_write.samples,
        measured.small_flush.samples
    );
    assert_eq!(std::fs::read_dir(&folder).expect("reads").count(), 0);
}
