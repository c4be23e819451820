//! Owns the tests of the built program: a broker process, used through the program's own clients.
//! Does not know other clients, nor what happens inside the broker.
//! Invariant: every process that a test starts is killed when the test ends.

mod cores;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};

fn millrace() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_millrace"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("MILLRACE_") {
            command.env_remove(name);
        }
    }
    command
}

/// A directory that is removed when the test ends.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Dir {
        let path =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Dir(path)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            eprintln!("cannot remove {}: {error}", self.0.display());
        }
    }
}

struct Broker {
    child: Child,
    /// Kept open, so that the broker can write to it.
    _out: BufReader<ChildStdout>,
    kafka: String,
    admin: String,
    /// Where each shard listens, of those that are brokers of their own.
    cores: Vec<String>,
}

impl Broker {
    fn start(dir: &Dir, shards: usize) -> Broker {
        Broker::start_on(dir, shards, "127.0.0.1:0", &[]).expect("it starts")
    }

    /// None where it ends before it serves.
    fn start_on(dir: &Dir, shards: usize, listen: &str, more: &[&str]) -> Option<Broker> {
        let mut command = serve(&dir.0, listen);
        let mut child = command
            .arg("--shards")
            .arg(shards.to_string())
            .args(more)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let (mut kafka, mut admin) = (None, None);
        let mut cores = Vec::new();
        let mut line = String::new();
        while kafka.is_none() || admin.is_none() {
            line.clear();
            if out.read_line(&mut line).unwrap() == 0 {
                child.wait().unwrap();
                return None;
            }
            if let Some(at) = line.trim().strip_prefix("listening on ") {
                kafka = Some(at.to_string());
            }
            if line.starts_with("shard ") {
                cores.push(line.trim().rsplit_once(" on ").unwrap().1.to_string());
            }
            if let Some(at) = line.trim().strip_prefix("admin on http://") {
                admin = Some(at.to_string());
            }
        }
        Some(Broker {
            child,
            _out: out,
            kafka: kafka.unwrap(),
            admin: admin.unwrap(),
            cores,
        })
    }

    fn signal(&self, signal: i32) {
        // SAFETY: the child has not been waited for, so its id is still its own.
        assert_eq!(unsafe { libc::kill(self.child.id() as i32, signal) }, 0);
    }

    /// Exit code; None where a signal killed it.
    fn wait(mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }

    fn client(&self, args: &[&str], input: &str) -> Output {
        let mut command = millrace();
        command.args(args).args(["--bootstrap", &self.kafka]);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(input.as_bytes())
            .unwrap();
        child.wait_with_output().unwrap()
    }

    fn client_ok(&self, args: &[&str], input: &str) -> String {
        let output = self.client(args, input);
        assert!(
            output.status.success(),
            "{args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(&self.admin).unwrap();
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // Fails where it has been waited for already, which is what is wanted.
        if self.child.kill().is_ok() {
            self.child
                .wait()
                .expect("a child that was killed can be waited for");
        }
    }
}

fn serve(data: &Path, listen: &str) -> Command {
    let mut command = millrace();
    command
        .arg("serve")
        .arg("--data-dir")
        .arg(data.join("data"));
    command.args([
        "--listen",
        listen,
        "--admin-listen",
        "127.0.0.1:0",
        "--memory",
        "256MiB",
    ]);
    command
}

/// What a serve that is refused says.
fn refusal(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8(output.stderr).unwrap()
}

fn numbers(count: usize) -> String {
    (0..count).map(|n| format!("{n}\n")).collect()
}

fn sorted(lines: &str) -> Vec<usize> {
    let mut numbers: Vec<usize> = lines.lines().map(|l| l.parse().unwrap()).collect();
    numbers.sort_unstable();
    numbers
}

#[test]
fn records_outlive_a_kill_a_clean_stop_and_other_shard_counts() {
    let dir = Dir::new("outlive");
    let count = 5_000;
    let all: Vec<usize> = (0..count).collect();
    let broker = Broker::start(&dir, 2);
    broker.client_ok(&["topic", "create", "numbers", "--partitions", "5"], "");
    for codec in ["none", "zstd"] {
        // A key for every line, so that every partition has some.
        let lines: String = (0..count).map(|n| format!("{codec}{n}:{n}\n")).collect();
        let topic = if codec == "none" { "numbers" } else { "packed" };
        broker.client_ok(
            &[
                "produce",
                topic,
                "--key-separator",
                ":",
                "--compression",
                codec,
            ],
            &lines,
        );
    }
    broker.signal(libc::SIGKILL);
    assert_eq!(broker.wait(), None);

    for shards in [1, 3] {
        let broker = Broker::start(&dir, shards);
        for topic in ["numbers", "packed"] {
            assert_eq!(
                sorted(&broker.client_ok(&["consume", topic, "--exit-at-end"], "")),
                all,
                "{shards}"
            );
        }
        let health = broker.get("/health");
        assert!(health.starts_with("HTTP/1.1 200"), "{health}");
        // Supervisors may signal the process and then its group: that is one wish.
        broker.signal(libc::SIGTERM);
        broker.signal(libc::SIGTERM);
        assert_eq!(broker.wait(), Some(0));
    }
}

#[test]
fn a_second_broker_is_refused() {
    let dir = Dir::new("second");
    let broker = Broker::start(&dir, 1);
    let pid = broker.child.id().to_string();
    let message = refusal(&mut serve(&dir.0, "127.0.0.1:0"));
    assert!(
        message.contains("in use by") && message.contains(&pid),
        "{message}"
    );
    let other = Dir::new("other");
    let message = refusal(&mut serve(&other.0, &broker.kafka));
    assert!(
        message.contains("port is used by") && message.contains(&pid),
        "{message}"
    );
    // Neither disturbed the first.
    broker.client_ok(&["topic", "list"], "");
}

#[test]
fn topics_are_created_altered_described_and_deleted() {
    let dir = Dir::new("topics");
    let broker = Broker::start(&dir, 2);
    broker.client_ok(
        &[
            "topic",
            "create",
            "t",
            "--partitions",
            "2",
            "--config",
            "retention.ms=1000000",
        ],
        "",
    );
    assert_eq!(
        broker
            .client(
                "topic create t".split(' ').collect::<Vec<_>>().as_slice(),
                ""
            )
            .status
            .code(),
        Some(1)
    );
    broker.client_ok(
        &[
            "topic",
            "alter",
            "t",
            "--partitions",
            "4",
            "--config",
            "segment.bytes=2000000",
        ],
        "",
    );
    broker.client_ok(&["topic", "alter", "t", "--unset", "retention.ms"], "");
    let described = broker.client_ok(&["topic", "describe", "t"], "");
    assert!(
        described.contains("segment.bytes = 2000000") && !described.contains("retention.ms"),
        "{described}"
    );
    assert_eq!(
        described
            .lines()
            .filter(|l| l.starts_with(|c: char| c.is_ascii_digit()))
            .count(),
        4
    );
    assert_eq!(broker.client_ok(&["topic", "list", "--names"], ""), "t\n");
    broker.client_ok(&["topic", "delete", "t"], "");
    assert_eq!(broker.client_ok(&["topic", "list", "--names"], ""), "");
    let missing = broker.client(&["consume", "t", "--exit-at-end"], "");
    assert!(String::from_utf8_lossy(&missing.stderr).contains("UNKNOWN_TOPIC_OR_PARTITION"));
}

#[test]
fn consuming_begins_and_ends_where_it_is_told() {
    let dir = Dir::new("places");
    let broker = Broker::start(&dir, 1);
    broker.client_ok(
        &["produce", "t", "--partition", "0", "--header", "a=b"],
        &numbers(100),
    );
    let consume = |args: &[&str]| broker.client_ok(&[&["consume", "t"], args].concat(), "");
    assert_eq!(consume(&["--count", "2"]), "0\n1\n");
    assert_eq!(consume(&["--from", "97", "--exit-at-end"]), "97\n98\n99\n");
    assert_eq!(consume(&["--from", "-1", "--exit-at-end"]), "99\n");
    assert_eq!(consume(&["--from", "end", "--exit-at-end"]), "");
    assert_eq!(consume(&["--from", "2020-01-01", "--count", "1"]), "0\n");
    assert_eq!(consume(&["--from", "2100-01-01", "--exit-at-end"]), "");
    assert_eq!(
        consume(&["--count", "1", "--format", "{partition} {offset} {headers}"]),
        "0 0 a=b\n"
    );
    let json: serde_json::Value =
        serde_json::from_str(&consume(&["--count", "1", "--format", "json"])).unwrap();
    assert_eq!(
        (&json["value"], &json["headers"][0]["value"]),
        (&"0".into(), &"b".into())
    );
    let beyond = broker.client(&["consume", "t", "--from", "101"], "");
    assert!(String::from_utf8_lossy(&beyond.stderr).contains("after the end"));
}

#[test]
fn check_measures_without_starting() {
    let dir = Dir::new("check");
    let data = dir.0.join("data");
    let mut command = millrace();
    command.arg("check").arg("--data-dir").arg(&data);
    command.args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
    let output = command.output().unwrap();
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{table}");
    assert!(
        table.contains("flush") && table.contains("p99") && table.contains("disk writes"),
        "{table}"
    );
    assert!(!data.exists(), "check creates nothing");

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = taken.local_addr().unwrap().to_string();
    let output = command
        .args(["--no-measure", "--listen", &at])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stdout).contains("STOP  address"));
}

#[test]
fn a_scenario_is_measured_and_drawn() {
    let dir = Dir::new("perf");
    let broker = Broker::start(&dir, 1);
    let scenario = dir.0.join("slow.toml");
    // What there is to do ends it: on a busy machine a short time may pass without an answer.
    let text = "reason = \"a test\"\nduration-seconds = 60\n[topic]\npartitions = 2\n\
        [producers]\ncount = 2\nrecord-bytes = \"100B\"\nbatch-records = 1\nrate = \"20 records/s\"\n\
        bytes = \"4KiB\"\n[consumers]\ncount = 1\n";
    std::fs::write(&scenario, text).unwrap();
    let (json, html) = (dir.0.join("report.json"), dir.0.join("report.html"));
    let run = |scenario: &str| {
        let mut command = millrace();
        command.args(["perf", "run", scenario, "--ceiling", "60"]);
        command.args(["--against", &format!("mine={}", broker.kafka)]);
        command.arg("--json").arg(&json).arg("--html").arg(&html);
        command.output().unwrap()
    };
    let output = run(scenario.to_str().unwrap());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let report: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(&json).unwrap()).unwrap();
    let run_of = &report["scenarios"][0]["runs"][0];
    assert_eq!(run_of["broker"], "mine");
    assert!(run_of["result"]["produced"]["records"].as_u64() > Some(0));
    assert!(run_of["result"]["end_to_end"]["samples"].as_u64() > Some(0));
    // The broker was found by its port.
    assert!(run_of["result"]["broker"]["rss_peak_bytes"].as_u64() > Some(0));
    assert!(run_of["ceiling"]["maximum"]["produced"]["mib_per_second"].as_f64() > Some(0.0));
    assert!(std::fs::read_to_string(&html).unwrap().contains("<main"));
    // What was made is gone.
    assert_eq!(broker.client_ok(&["topic", "list", "--names"], ""), "");

    std::fs::write(&scenario, text.replace("count = 2", "cuont = 2")).unwrap();
    let refused = run(scenario.to_str().unwrap());
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(
        !refused.status.success() && said.contains("cuont") && said.contains("slow.toml"),
        "{said}"
    );
}

#[test]
fn a_reader_that_goes_is_not_an_error() {
    let mut child = millrace()
        .args(["completions", "bash"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    assert!(child.wait().unwrap().success());
}
