//! Owns the tests of the transaction coordinator: what single steps do, and the bench that histories run on as well.
//! Does not know shards or the wire.
//! Invariant: the log alone gives the same transactions.

mod histories;

use super::super::batch::KeyValue;
use super::super::coordinator::{Append, Memory};
use super::super::types::GroupError;
use super::*;
use std::collections::BTreeSet;

#[derive(Default)]
struct TestLog {
    records: Vec<KeyValue>,
    refuses: bool,
}

impl Append for TestLog {
    fn append(&mut self, records: &[KeyValue]) -> Result<(), GroupError> {
        if self.refuses {
            return Err(GroupError::NotAvailable);
        }
        self.records.extend_from_slice(records);
        Ok(())
    }
}

/// A coordinator with a clock and producer ids of its own.
struct Bench {
    coordinator: TxnCoordinator,
    log: TestLog,
    now_ms: u64,
    next_id: i64,
}

const CONFIG: TxnConfig = TxnConfig {
    timeout_max_ms: 900_000,
    id_expiration_ms: 10_000_000,
};

fn coordinator() -> TxnCoordinator {
    TxnCoordinator::new(CONFIG, Memory::new(1 << 30))
}

impl Bench {
    fn new() -> Bench {
        Bench {
            coordinator: coordinator(),
            log: TestLog::default(),
            now_ms: 1_000,
            next_id: 100,
        }
    }

    fn step<R>(
        &mut self,
        spare_id: Option<i64>,
        f: impl FnOnce(&mut TxnCoordinator, &mut TxnCtx) -> R,
    ) -> R {
        let mut ctx = TxnCtx {
            now_ms: self.now_ms,
            wall_ms: self.now_ms as i64,
            log: &mut self.log,
            spare_id,
        };
        f(&mut self.coordinator, &mut ctx)
    }

    /// As a shard does it: an id is only spent where one is needed.
    fn with_spare(
        &mut self,
        f: impl Fn(&mut TxnCoordinator, &mut TxnCtx) -> Result<Step, TxnError>,
    ) -> Result<Producer, TxnError> {
        match self.step(None, &f)? {
            Step::Done(producer) => Ok(producer),
            Step::NeedsProducerId => {
                self.next_id += 1;
                match self.step(Some(self.next_id), &f)? {
                    Step::Done(producer) => Ok(producer),
                    Step::NeedsProducerId => panic!("it has one"),
                }
            }
        }
    }

    fn init(&mut self, id: &str, expected: Option<Producer>) -> Result<Producer, TxnError> {
        let asked = InitProducer {
            transactional_id: id.into(),
            timeout_ms: 60_000,
            expected,
        };
        self.with_spare(|c, ctx| c.init(&asked, ctx))
    }

    fn add(&mut self, id: &str, producer: Producer, indexes: &[i32]) -> Result<(), TxnError> {
        let asked = AddPartitions {
            of: of(id, producer),
            partitions: partitions(indexes),
            version: 2,
        };
        self.step(None, |c, ctx| c.add(&asked, ctx))
    }

    fn end(
        &mut self,
        id: &str,
        producer: Producer,
        commit: bool,
        version: i16,
    ) -> Result<Producer, TxnError> {
        let asked = EndTxn {
            of: of(id, producer),
            commit,
            version,
        };
        self.with_spare(|c, ctx| c.end(&asked, ctx))
    }

    /// Has all markers written that are due; gives what they were.
    fn carry_out(&mut self) -> Vec<Prepared> {
        let prepared = self.coordinator.take_prepared();
        for one in &prepared {
            self.step(None, |c, ctx| c.complete(one, ctx)).unwrap();
        }
        prepared
    }

    fn pass(&mut self, ms: u64) {
        let end = self.now_ms + ms;
        while let Some(due) = self
            .coordinator
            .next_deadline_ms()
            .filter(|due| *due <= end)
        {
            self.now_ms = self.now_ms.max(due);
            self.step(None, |c, ctx| c.tick(ctx));
        }
        self.now_ms = end;
    }

    fn state(&self, id: &str) -> TxnState {
        self.coordinator.describe(id).expect("it is known").state
    }

    /// What the log alone gives.
    fn replayed(&self) -> TxnCoordinator {
        let mut again = coordinator();
        for record in &self.log.records {
            let (now_ms, wall_ms) = (self.now_ms, self.now_ms as i64);
            again
                .replay(&record.key, record.value.as_deref(), now_ms, wall_ms)
                .unwrap();
        }
        again
    }
}

fn of(id: &str, producer: Producer) -> TxnOf {
    TxnOf {
        transactional_id: id.into(),
        producer,
    }
}

fn partitions(indexes: &[i32]) -> TopicPartitions {
    [("t".to_string(), indexes.iter().copied().collect())].into()
}

fn bumped(producer: Producer) -> Producer {
    Producer {
        epoch: producer.epoch + 1,
        ..producer
    }
}

#[test]
fn a_transaction_goes_from_its_first_partition_to_its_end() {
    let mut bench = Bench::new();
    let first = bench.init("id", None).unwrap();
    assert_eq!(first, Producer { id: 101, epoch: 0 });
    assert_eq!(bench.state("id"), TxnState::Empty);
    bench.add("id", first, &[0, 1]).unwrap();
    let written = bench.log.records.len();
    bench.add("id", first, &[1]).unwrap();
    assert_eq!(bench.log.records.len(), written, "it was there already");
    bench.add("id", first, &[2]).unwrap();
    assert_eq!(bench.state("id"), TxnState::Ongoing);
    let second = bench.end("id", first, true, 2).unwrap();
    assert_eq!(second, bumped(first));
    assert_eq!(bench.state("id"), TxnState::PrepareCommit);
    let early = bench.add("id", second, &[0]);
    assert_eq!(early, Err(TxnError::ConcurrentTransactions));
    let prepared = bench.carry_out();
    let expected = Prepared {
        of: of("id", second),
        commit: true,
        version: 2,
        partitions: partitions(&[0, 1, 2]),
    };
    assert_eq!(prepared, [expected]);
    assert_eq!(bench.state("id"), TxnState::CompleteCommit);
    assert!(bench.carry_out().is_empty());
    // Asked again, it is answered the same; and the next one begins.
    assert_eq!(bench.end("id", first, true, 2), Ok(second));
    let other = bench.end("id", first, false, 2);
    assert_eq!(other, Err(TxnError::InvalidTxnState));
    bench.add("id", second, &[5]).unwrap();
    assert_eq!(
        bench.end("id", first, true, 2),
        Err(TxnError::ProducerFenced)
    );
}

#[test]
fn by_the_first_version_the_epoch_stays() {
    let mut bench = Bench::new();
    let producer = bench.init("id", None).unwrap();
    let nothing = bench.end("id", producer, true, 0);
    assert_eq!(nothing, Err(TxnError::InvalidTxnState));
    bench.add("id", producer, &[0]).unwrap();
    assert_eq!(bench.end("id", producer, false, 0), Ok(Producer::NONE));
    let again = bench.end("id", producer, false, 0);
    assert_eq!(again, Err(TxnError::ConcurrentTransactions));
    let prepared = bench.carry_out();
    assert_eq!((prepared[0].commit, prepared[0].version), (false, 0));
    assert_eq!(prepared[0].of.producer, producer);
    assert_eq!(bench.end("id", producer, false, 0), Ok(Producer::NONE));
    let other = bench.end("id", producer, true, 0);
    assert_eq!(other, Err(TxnError::InvalidTxnState));
    bench.add("id", producer, &[0]).unwrap();
}

/// Kafka's table of ends where no transaction is open: whether it is a retry or of the current epoch, abort and commit.
#[test]
fn ends_without_a_transaction_are_as_in_kafkas_table() {
    use TxnError::{InvalidTxnState, ProducerFenced};
    let begin = |state: TxnState| {
        let mut bench = Bench::new();
        let mut producer = bench.init("id", None).unwrap();
        match state {
            TxnState::Empty => producer = bench.init("id", Some(producer)).unwrap(),
            other => {
                bench.add("id", producer, &[0]).unwrap();
                let commit = other == TxnState::CompleteCommit;
                producer = bench.end("id", producer, commit, 2).unwrap();
                bench.carry_out();
            }
        }
        assert_eq!(bench.state("id"), state);
        (bench, producer)
    };
    let check = |state, commit, retry: Result<bool, TxnError>, current: Result<bool, TxnError>| {
        let (mut bench, producer) = begin(state);
        let expect = |result: Result<bool, TxnError>| {
            result.map(|bumps| if bumps { bumped(producer) } else { producer })
        };
        let before = Producer {
            epoch: producer.epoch - 1,
            ..producer
        };
        let got = bench.end("id", before, commit, 2);
        assert_eq!(got, expect(retry), "{state:?}, retry, commit: {commit}");
        let got = bench.end("id", producer, commit, 2);
        assert_eq!(got, expect(current), "{state:?}, current, commit: {commit}");
    };
    check(TxnState::Empty, false, Err(ProducerFenced), Ok(true));
    check(
        TxnState::Empty,
        true,
        Err(ProducerFenced),
        Err(InvalidTxnState),
    );
    check(TxnState::CompleteAbort, false, Ok(false), Ok(true));
    let invalid = || Err(InvalidTxnState);
    check(TxnState::CompleteAbort, true, invalid(), invalid());
    check(TxnState::CompleteCommit, false, invalid(), Ok(true));
    check(TxnState::CompleteCommit, true, Ok(false), invalid());
}

/// The end of a transaction is answered before its markers are written: whoever ends the next one in the meantime, to which
/// nothing could be added, is not fenced.
#[test]
fn an_owner_waits_for_the_end_of_its_transaction() {
    for committed in [false, true] {
        for commit in [false, true] {
            let mut bench = Bench::new();
            let first = bench.init("id", None).unwrap();
            bench.add("id", first, &[0]).unwrap();
            let second = bench.end("id", first, committed, 2).unwrap();
            let early = bench.add("id", second, &[0]);
            assert_eq!(early, Err(TxnError::ConcurrentTransactions));
            for producer in [first, second] {
                let early = bench.end("id", producer, commit, 2);
                assert_eq!(early, Err(TxnError::ConcurrentTransactions));
            }
            let stranger = bench.end("id", bumped(second), commit, 2);
            assert_eq!(stranger, Err(TxnError::ProducerFenced));
            bench.carry_out();
            let empty = bench.end("id", second, false, 2);
            assert_eq!(empty, Ok(bumped(second)), "{committed} {commit}");
        }
    }
}

#[test]
fn who_asks_for_the_id_fences_who_had_it() {
    let mut bench = Bench::new();
    let old = bench.init("id", None).unwrap();
    bench.add("id", old, &[0]).unwrap();
    let busy = bench.init("id", None);
    assert_eq!(busy, Err(TxnError::ConcurrentTransactions));
    assert_eq!(bench.state("id"), TxnState::PrepareAbort);
    let busy = bench.init("id", None);
    assert_eq!(busy, Err(TxnError::ConcurrentTransactions));
    let prepared = bench.carry_out();
    assert!(!prepared[0].commit && prepared[0].of.producer.epoch > old.epoch);
    let new = bench.init("id", None).unwrap();
    assert_eq!(new.id, old.id);
    let fenced = || Err(TxnError::ProducerFenced);
    assert_eq!(bench.add("id", old, &[0]), fenced());
    for version in [0, 2] {
        for commit in [false, true] {
            assert_eq!(
                bench.end("id", old, commit, version).map(|_| ()),
                fenced(),
                "{version} {commit}"
            );
        }
    }
    assert_eq!(bench.init("id", Some(old)).map(|_| ()), fenced());
    bench.add("id", new, &[0]).unwrap();
    // Nor does it end what the new one began.
    assert_eq!(bench.init("id", Some(old)).map(|_| ()), fenced());
    assert_eq!(bench.state("id"), TxnState::Ongoing);
    let other = Producer { id: 7, epoch: 0 };
    let unknown = bench.add("id", other, &[0]);
    assert_eq!(unknown, Err(TxnError::InvalidProducerIdMapping));
    let unknown = bench.add("another", new, &[0]);
    assert_eq!(unknown, Err(TxnError::InvalidProducerIdMapping));
}

#[test]
fn a_producer_that_goes_on_gets_the_next_epoch_once() {
    let mut bench = Bench::new();
    let first = bench.init("id", None).unwrap();
    let second = bench.init("id", Some(first)).unwrap();
    assert_eq!(second, bumped(first));
    assert_eq!(bench.init("id", Some(first)), Ok(second), "a retry");
    let third = bench.init("id", Some(second)).unwrap();
    assert_eq!(third, bumped(second));
    let late = bench.init("id", Some(first));
    assert_eq!(late, Err(TxnError::ProducerFenced));
}

#[test]
fn used_up_epochs_give_a_new_producer_id() {
    let mut bench = Bench::new();
    let first = bench.init("id", None).unwrap();
    let mut last = first;
    while last.epoch < i16::MAX - 1 {
        last = bench.init("id", Some(last)).unwrap();
    }
    // By an end, which hands out the new id with the answer.
    bench.add("id", last, &[0]).unwrap();
    let next = bench.end("id", last, true, 2).unwrap();
    assert_eq!(next, Producer { id: 102, epoch: 0 });
    let early = bench.add("id", next, &[0]);
    assert_eq!(early, Err(TxnError::ConcurrentTransactions));
    for producer in [last, next] {
        let again = bench.end("id", producer, true, 2);
        assert_eq!(again, Err(TxnError::ConcurrentTransactions));
    }
    let prepared = bench.carry_out();
    let markers = Producer {
        id: first.id,
        epoch: i16::MAX,
    };
    assert_eq!(prepared[0].of.producer, markers);
    assert_eq!(bench.end("id", last, true, 2), Ok(next));
    bench.add("id", next, &[0]).unwrap();

    // And by asking for it.
    let mut bench = Bench::new();
    let mut last = bench.init("id", None).unwrap();
    while last.epoch < i16::MAX - 1 {
        last = bench.init("id", Some(last)).unwrap();
    }
    let next = bench.init("id", Some(last)).unwrap();
    assert_eq!(next, Producer { id: 102, epoch: 0 });
    assert_eq!(bench.init("id", Some(last)), Ok(next), "a retry");

    // An abort for somebody else takes the last epoch there is, and then the next id.
    let mut last = next;
    while last.epoch < i16::MAX - 1 {
        last = bench.init("id", Some(last)).unwrap();
    }
    bench.add("id", last, &[0]).unwrap();
    let busy = bench.init("id", None);
    assert_eq!(busy, Err(TxnError::ConcurrentTransactions));
    assert_eq!(bench.carry_out()[0].of.producer.epoch, i16::MAX);
    let next = bench.init("id", None).unwrap();
    assert_eq!(next, Producer { id: 103, epoch: 0 });
}

#[test]
fn what_takes_too_long_is_aborted() {
    let mut bench = Bench::new();
    let producer = bench.init("id", None).unwrap();
    bench.pass(100_000);
    assert_eq!(bench.state("id"), TxnState::Empty, "nothing was begun");
    bench.add("id", producer, &[0]).unwrap();
    bench.pass(40_000);
    bench.add("id", producer, &[1]).unwrap();
    bench.log.refuses = true;
    bench.pass(30_000);
    assert_eq!(bench.state("id"), TxnState::Ongoing);
    bench.log.refuses = false;
    bench.pass(1_000);
    assert_eq!(
        bench.state("id"),
        TxnState::PrepareAbort,
        "the first partition began it"
    );
    let prepared = bench.carry_out();
    assert_eq!(prepared[0].partitions, partitions(&[0, 1]));
    let late = bench.end("id", producer, true, 2);
    assert_eq!(late, Err(TxnError::ProducerFenced));
}

#[test]
fn time_passes_across_a_restart() {
    let mut bench = Bench::new();
    let producer = bench.init("id", None).unwrap();
    bench.add("id", producer, &[0]).unwrap();
    bench.now_ms += 40_000;
    let left = bench.replayed().next_deadline_ms().unwrap() - bench.now_ms;
    assert_eq!(left, 20_000);
    bench.now_ms += 40_000;
    let left = bench.replayed().next_deadline_ms().unwrap() - bench.now_ms;
    assert_eq!(left, 0);
}

#[test]
fn ids_that_nobody_uses_are_forgotten() {
    let mut bench = Bench::new();
    let used = bench.init("used", None).unwrap();
    bench.init("idle", None).unwrap();
    bench.add("used", used, &[0]).unwrap();
    bench.now_ms += 10_000_000;
    bench.step(None, |c, ctx| c.expire(ctx));
    assert_eq!(bench.coordinator.ids(), ["used"]);
    assert_eq!(bench.replayed().ids(), ["used"]);
    let gone = bench.coordinator.describe("idle");
    assert_eq!(gone, Err(TxnError::NotFound));
}

#[test]
fn what_is_asked_is_checked() {
    let mut bench = Bench::new();
    let asked = |id: &str, timeout_ms| InitProducer {
        transactional_id: id.into(),
        timeout_ms,
        expected: None,
    };
    let mut refused = |asked: InitProducer| {
        let before = bench.log.records.len();
        let result = bench.with_spare(|c, ctx| c.init(&asked, ctx));
        assert_eq!(bench.log.records.len(), before);
        result.unwrap_err()
    };
    assert_eq!(refused(asked("", 1_000)), TxnError::InvalidRequest);
    let long = "x".repeat(40_000);
    assert_eq!(refused(asked(&long, 1_000)), TxnError::InvalidRequest);
    assert_eq!(refused(asked("id", 0)), TxnError::InvalidTimeout);
    assert_eq!(refused(asked("id", 900_001)), TxnError::InvalidTimeout);
    let producer = bench.init("id", None).unwrap();
    let many: Vec<i32> = (0..30_000).collect();
    let refused = bench.add("id", producer, &many);
    assert_eq!(refused, Err(TxnError::TooManyPartitions));
    assert_eq!(bench.state("id"), TxnState::Empty);
}

#[test]
fn memory_is_given_back() {
    let memory = Memory::new(2_000);
    let mut bench = Bench::new();
    bench.coordinator = TxnCoordinator::new(CONFIG, memory.clone());
    let mut made = 0;
    while bench.init(&format!("id{made}"), None).is_ok() {
        made += 1;
        assert!(made < 100);
    }
    assert!(made > 1 && memory.is_full());
    let full = bench.init("one more", None);
    assert_eq!(full, Err(TxnError::NotAvailable));
    bench.now_ms += 10_000_000;
    bench.step(None, |c, ctx| c.expire(ctx));
    assert!(!memory.is_full());
    assert_eq!(bench.coordinator.bytes(), 0);
    bench.init("one more", None).unwrap();
    bench.coordinator = coordinator();
    assert!(!memory.is_full());
}

#[test]
fn partitions_are_verified() {
    let mut bench = Bench::new();
    let producer = bench.init("id", None).unwrap();
    bench.add("id", producer, &[0, 1]).unwrap();
    let missing = |bench: &Bench, producer, indexes: &[i32]| {
        let of = of("id", producer);
        bench.coordinator.missing(&of, &partitions(indexes))
    };
    assert_eq!(missing(&bench, producer, &[0, 1]), Ok([].into()));
    let two = missing(&bench, producer, &[1, 2]);
    assert_eq!(two, Ok(partitions(&[2])));
    let next = bench
        .end("id", producer, true, 0)
        .map(|_| producer)
        .unwrap();
    let ending = missing(&bench, next, &[0]);
    assert_eq!(ending, Err(TxnError::ConcurrentTransactions));
    bench.carry_out();
    let over = missing(&bench, next, &[0]);
    assert_eq!(over, Ok(partitions(&[0])));
    let fenced = missing(&bench, bumped(next), &[0]);
    assert_eq!(fenced, Err(TxnError::ProducerFenced));
}
