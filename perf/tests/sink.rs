//! Owns runs of the whole load generator against its own sink, which counts like a broker.
//! Does not know how fast any of it is: what is checked are counts and that every sample is there.
//! Invariant: each test has a sink of its own on a free port.

use millrace_perf::client::{Client, TopicSpec};
use millrace_perf::error::PerfError;
use millrace_perf::limits;
use millrace_perf::measure::{measure, Against, Options};
use millrace_perf::run::{
    run, Backfill, BatchSize, Consuming, Producing, ReadFrom, RunResult, Workload,
};
use millrace_perf::sink::Sink;
use millrace_perf::{idle, report, scenario, template};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

const ANY_PORT: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

fn producing() -> Producing {
    Producing {
        shape: template::BatchShape::plain(100),
        batch: BatchSize::Bytes(1_000),
        partitions_per_request: 1,
        spread: false,
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
        readers: 1,
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
        backfill: None,
        idle_connections: 0,
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
        assert_eq!(report::losses(&produced), Vec::<String>::new());
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
    let time = Duration::from_millis(20);
    let measured = limits::disk(&folder, file_bytes, None, time).expect("measures");
    assert!(measured.sequential_mib_per_second > 0.0);
    assert!(measured.small_flush.samples > 0 && measured.small_flush.p50_us > 0.0);
    assert_eq!(
        measured.small_durable_write.samples,
        measured.small_flush.samples
    );
    assert_eq!(std::fs::read_dir(&folder).expect("reads").count(), 0);
}

#[test]
fn several_readers_read_everything_while_another_reads_what_was_there() {
    let sink = Sink::start(ANY_PORT, None).expect("serves");
    let history = Workload {
        topic: "history".into(),
        ..workload(
            Some(Producing {
                bytes_max: Some(4 << 20),
                ..producing()
            }),
            None,
        )
    };
    let filled = against(&sink, &history).produced.expect("produced");
    let mut both = workload(
        Some(Producing {
            requests_per_second: Some(200.0),
            spread: true,
            partitions_per_request: 2,
            ..producing()
        }),
        Some(Consuming {
            readers: 3,
            ..consuming(ReadFrom::Tail)
        }),
    );
    both.backfill = Some(Backfill {
        topic: "history".into(),
        partitions: 5,
        consuming: consuming(ReadFrom::Beginning),
    });
    both.idle_connections = 7;
    both.warm_up = Duration::from_millis(100);
    let result = against(&sink, &both);
    let backfilled = result.backfilled.as_ref().expect("read");
    assert_eq!(
        backfilled.records, filled.records,
        "all of it, none of the other"
    );
    assert!(backfilled.seconds < 60.0, "its end ends the window");
    assert_eq!(report::losses(&result), Vec::<String>::new());
    // Warm-up included, so that every reader has read at least something: each batch thrice.
    let produced = stored(&sink);
    assert!(result.end_to_end.is_some() && produced > 0);
    sink.stop().expect("no failure");
}

#[test]
fn a_scenario_is_measured_with_its_ceiling_and_leaves_nothing() {
    let text = "reason = \"a test\"\nduration-seconds = 0.3\nwarm-up-seconds = 0.1\n[topic]\npartitions = 4\n\
        [producers]\ncount = 2\nrecord-bytes = \"100B\"\nbatch-records = 2\nrate = \"400 records/s\"\n\
        [consumers]\ncount = 1\n[history]\nbytes = \"1MiB\"\npartitions = 3\n";
    let scenario = scenario::parse(text, "test").expect("sound");
    let sink = Sink::start(ANY_PORT, None).expect("serves");
    let against = Against {
        name: "sink".into(),
        bootstrap: sink.address.to_string(),
        pid: None,
    };
    let options = Options {
        topic_configs: Vec::new(),
        duration: None,
        warm_up: None,
        history_bytes_max: Some(256 << 10),
        ceiling: Duration::from_millis(100),
        cpu: None,
        sink_cpu: None,
        spin: false,
        // A sink deletes nothing.
        keep_topics: true,
    };
    let run = measure("test", &scenario, &against, &options).expect("measures");
    let produced = run.result.produced.as_ref().expect("produced");
    assert!(produced.requests > 0 && !produced.series.is_empty());
    assert!(run.baseline.is_some() && run.calibration.is_none());
    let ceiling = run
        .ceiling
        .maximum
        .as_ref()
        .and_then(|run| run.produced.as_ref());
    assert!(ceiling.expect("measured").mib_per_second > produced.mib_per_second);
    assert!(run.ceiling.same.is_some());
    // It is this very process, which a look at `/proc` would find to be the broker.
    assert!(run.result.broker.is_none());
    sink.stop().expect("no failure");
}
