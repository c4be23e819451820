//! Owns short ways to do with `rdkafka` what many cases do, and what a case's failure is.
//! Does not know the cases.
//! Invariant: nothing here waits without a limit.

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{Consumer, StreamConsumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{OwnedHeaders, OwnedMessage};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};
use std::cell::Cell;
use std::fmt::Debug;
use std::time::{Duration, Instant};

const WAIT_MAX: Duration = Duration::from_secs(60);

/// Why a case failed; `code` where it is the broker's answer.
pub struct Failure {
    pub text: String,
    pub code: Option<RDKafkaErrorCode>,
}

impl Failure {
    pub fn new(text: &str) -> Self {
        Failure {
            text: text.to_string(),
            code: None,
        }
    }

    pub fn coded(code: RDKafkaErrorCode, what: &str) -> Self {
        Failure {
            text: format!("{what}: {code}"),
            code: Some(code),
        }
    }
}

impl From<KafkaError> for Failure {
    fn from(error: KafkaError) -> Self {
        Failure {
            text: error.to_string(),
            code: error.rdkafka_error_code(),
        }
    }
}

pub fn check(condition: bool, what: &str) -> Result<(), Failure> {
    if condition {
        Ok(())
    } else {
        Err(Failure::new(&format!("not so: {what}")))
    }
}

pub fn check_equal<T: PartialEq + Debug>(got: T, want: T, what: &str) -> Result<(), Failure> {
    if got == want {
        return Ok(());
    }
    let mut text = format!("{what}: got {got:?}, want {want:?}");
    text.truncate(
        text.char_indices()
            .nth(600)
            .map_or(text.len(), |(at, _)| at),
    );
    Err(Failure::new(&text))
}

/// For what a broker may carry out behind its answer.
pub async fn eventually<T: PartialEq + Debug>(
    want: T,
    mut call: impl FnMut() -> Result<T, Failure>,
) -> Result<(), Failure> {
    let deadline = Instant::now() + Duration::from_secs(15);
    let mut got = call()?;
    while got != want && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(100)).await;
        got = call()?;
    }
    check_equal(got, want, "in the end")
}

pub fn expect_error<T: Debug>(
    result: Result<T, Failure>,
    code: RDKafkaErrorCode,
) -> Result<(), Failure> {
    match result {
        Err(failure) if failure.code == Some(code) => Ok(()),
        Err(failure) => Err(Failure::new(&format!(
            "want {code:?}, got {}",
            failure.text
        ))),
        Ok(value) => Err(Failure::new(&format!(
            "no error, but {value:?}; want {code:?}"
        ))),
    }
}

/// The one answer of an admin call that asked for one thing.
pub fn only(answers: Vec<Result<String, (String, RDKafkaErrorCode)>>) -> Result<String, Failure> {
    let answer = answers.into_iter().next();
    let answer = answer.ok_or_else(|| Failure::new("an empty answer"))?;
    answer.map_err(|(name, code)| Failure::coded(code, &name))
}

/// One record to send.
#[derive(Clone)]
pub struct Sent {
    pub partition: i32,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub timestamp: Option<i64>,
    pub headers: Option<OwnedHeaders>,
}

impl Sent {
    pub fn value(value: &[u8]) -> Self {
        Sent {
            partition: 0,
            key: None,
            value: Some(value.to_vec()),
            timestamp: None,
            headers: None,
        }
    }

    /// `count` different records of one partition, values padded to `size` bytes.
    pub fn numbered(partition: i32, count: usize, size: usize) -> Vec<Sent> {
        let make = |n| Sent {
            partition,
            key: Some(format!("key-{n}").into_bytes()),
            ..Sent::value(format!("{:x<size$}", format!("value-{n}-")).as_bytes())
        };
        (0..count).map(make).collect()
    }
}

pub struct Client {
    bootstrap: String,
    pub admin: AdminClient<DefaultClientContext>,
    names: Cell<u32>,
}

impl Client {
    pub fn new(bootstrap: &str) -> Self {
        let admin = ClientConfig::new()
            .set("bootstrap.servers", bootstrap)
            .create();
        Client {
            bootstrap: bootstrap.to_string(),
            admin: admin.expect("the client starts"),
            names: Cell::new(0),
        }
    }

    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// A name that no other case and no other run uses.
    pub fn topic_name(&self, prefix: &str) -> String {
        self.names.set(self.names.get() + 1);
        format!("{prefix}-rs-{}-{}", std::process::id(), self.names.get())
    }

    pub async fn fresh(
        &self,
        prefix: &str,
        partitions: i32,
        config: &[(&str, &str)],
    ) -> Result<String, Failure> {
        let topic = self.topic_name(prefix);
        self.create(&topic, partitions, config).await?;
        Ok(topic)
    }

    pub async fn create(
        &self,
        topic: &str,
        partitions: i32,
        config: &[(&str, &str)],
    ) -> Result<String, Failure> {
        let mut wanted = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
        for (name, value) in config {
            wanted = wanted.set(name, value);
        }
        only(
            self.admin
                .create_topics([&wanted], &AdminOptions::new())
                .await?,
        )
    }

    /// Returns the offsets; -1 or lower where the broker gave none.
    pub async fn produce(
        &self,
        topic: &str,
        records: &[Sent],
        settings: &[(&str, &str)],
    ) -> Result<Vec<i64>, Failure> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.bootstrap);
        config
            .set("message.max.bytes", "10000000")
            .set("message.timeout.ms", "40000");
        for (name, value) in settings {
            config.set(*name, *value);
        }
        let producer: FutureProducer = config.create()?;
        let mut waiting = Vec::with_capacity(records.len());
        for sent in records {
            let mut record: FutureRecord<'_, Vec<u8>, Vec<u8>> =
                FutureRecord::to(topic).partition(sent.partition);
            record.key = sent.key.as_ref();
            record.payload = sent.value.as_ref();
            record.timestamp = sent.timestamp;
            record.headers = sent.headers.clone();
            waiting.push(producer.send_result(record).map_err(|(error, _)| error)?);
        }
        let mut offsets = Vec::with_capacity(records.len());
        for delivery in waiting {
            let done = delivery
                .await
                .map_err(|_| Failure::new("the producer gave up a record"))?;
            offsets.push(done.map_err(|(error, _)| error)?.offset);
        }
        producer.flush(WAIT_MAX)?;
        Ok(offsets)
    }

    /// A consumer that only assigns; the group's name is what the client insists on.
    pub fn consumer(&self) -> StreamConsumer {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.bootstrap)
            .set("group.id", "assigned");
        config
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "error");
        config.create().expect("the consumer starts")
    }

    /// Reads `count` records of a partition from `start` on.
    pub async fn consume(
        &self,
        topic: &str,
        partition: i32,
        start: Offset,
        count: usize,
    ) -> Result<Vec<OwnedMessage>, Failure> {
        let consumer = self.consumer();
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, start)?;
        consumer.assign(&list)?;
        let mut found = Vec::with_capacity(count);
        while found.len() < count {
            let next = tokio::time::timeout(WAIT_MAX, consumer.recv()).await;
            let next = next
                .map_err(|_| Failure::new(&format!("read {} of {count} in time", found.len())))?;
            found.push(next?.detach());
        }
        Ok(found)
    }

    /// Low and high watermark. This call alone does not retry while a new topic's leader is still being made known.
    pub async fn watermarks(&self, topic: &str, partition: i32) -> Result<(i64, i64), Failure> {
        let consumer = self.consumer();
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            match consumer.fetch_watermarks(topic, partition, Duration::from_secs(20)) {
                Err(error)
                    if error.rdkafka_error_code()
                        == Some(RDKafkaErrorCode::NotLeaderForPartition)
                        && Instant::now() < deadline =>
                {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                other => return Ok(other?),
            }
        }
    }
}
