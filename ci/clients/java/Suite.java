import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.Callable;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import java.util.stream.LongStream;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.CreateTopicsOptions;
import org.apache.kafka.clients.admin.ListConfigResourcesOptions;
import org.apache.kafka.clients.admin.NewPartitionReassignment;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.NoOffsetForPartitionException;
import org.apache.kafka.clients.consumer.OffsetAndTimestamp;
import org.apache.kafka.clients.consumer.OffsetOutOfRangeException;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.InvalidRecordException;
import org.apache.kafka.common.ElectionType;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.ElectionNotNeededException;
import org.apache.kafka.common.errors.InvalidConfigurationException;
import org.apache.kafka.common.errors.InvalidPartitionsException;
import org.apache.kafka.common.errors.InvalidReplicaAssignmentException;
import org.apache.kafka.common.errors.InvalidReplicationFactorException;
import org.apache.kafka.common.errors.InvalidTopicException;
import org.apache.kafka.common.errors.NoReassignmentInProgressException;
import org.apache.kafka.common.errors.RecordTooLargeException;
import org.apache.kafka.common.errors.TopicExistsException;
import org.apache.kafka.common.errors.UnknownTopicOrPartitionException;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.record.TimestampType;

/**
 * The Java client's own newest release against the cases. Arguments: HOST:PORT [PART OF A CASE'S NAME], or
 * HOST:PORT --member GROUP TOPIC to be a member of that group.
 */
public final class Suite {
    private static final int NEAR_LIMIT = 1_000_000;
    private static final int OVER_LIMIT = 1_100_000;

    private final Client client;
    private final Runner runner = new Runner();

    private Suite(Client client) {
        this.client = client;
    }

    public static void main(String[] arguments) {
        Suite suite = new Suite(new Client(arguments[0]));
        if (arguments.length > 1 && arguments[1].equals("--member")) {
            Groups.memberUntilKilled(suite.client, arguments[2], arguments[3]);
            return;
        }
        suite.data();
        suite.reading();
        suite.sizes();
        suite.administration();
        suite.errors();
        Groups.addTo(suite.runner, suite.client);
        ConsumerGroups.addTo(suite.runner, suite.client);
        GroupAdmin.addTo(suite.runner, suite.client);
        Shares.addTo(suite.runner, suite.client);
        int code = suite.runner.run(arguments.length > 1 ? arguments[1] : null);
        System.out.flush();
        // Clients that a failed case left open must not keep the suite alive.
        Runtime.getRuntime().halt(code);
    }

    private void data() {
        for (String codec : List.of("none", "gzip", "snappy", "lz4", "zstd")) {
            for (String acks : List.of("0", "1", "all")) {
                runner.add("round_trip_" + codec + "_acks_" + acks, () -> roundTrip(codec, acks));
            }
        }
        runner.add("headers", this::headers);
        runner.add("nulls_and_empties", this::nulls);
        runner.add("idempotent_producer", this::idempotent);
        runner.add("many_partitions", this::manyPartitions);
        runner.add("created_on_first_use", () -> {
            String topic = client.topicName("auto");
            client.produce(Client.numbered(topic, 0, 5, 0));
            Runner.checkEqual(client.consume(topic, 0, 0, 5).size(), 5, "records");
        });
        runner.add("volume", this::volume);
        runner.add("timestamps", this::timestamps);
    }

    private void roundTrip(String codec, String acks) throws Exception {
        String topic = client.fresh("codec");
        List<ProducerRecord<byte[], byte[]>> sent = Client.numbered(topic, 0, 25, 200);
        Map<String, String> settings =
            Map.of("acks", acks, "compression.type", codec, "enable.idempotence", "false", "linger.ms", "5");
        List<RecordMetadata> done = client.produce(sent, settings);
        if (!acks.equals("0")) {
            List<Long> offsets = done.stream().map(RecordMetadata::offset).toList();
            Runner.checkEqual(offsets, LongStream.range(0, 25).boxed().toList(), "offsets");
        }
        List<ConsumerRecord<byte[], byte[]>> found = client.consume(topic, 0, 0, 25);
        Runner.checkEqual(Client.values(found), Client.sentValues(sent), "values");
        Runner.checkEqual(Client.text(found.get(24).key()), "key-24", "last key");
    }

    private void headers() throws Exception {
        String topic = client.fresh("headers");
        ProducerRecord<byte[], byte[]> sent = Client.record(topic, 0, "k", "v");
        sent.headers().add("a", Client.bytes("1")).add("b", new byte[0]).add("a", Client.bytes("2")).add("n", null);
        client.produce(List.of(sent));
        List<String> found = new ArrayList<>();
        for (Header header : client.consume(topic, 0, 0, 1).get(0).headers()) {
            found.add(header.key() + "=" + Client.text(header.value()));
        }
        Runner.checkEqual(found, List.of("a=1", "b=", "a=2", "n=null"), "headers");
    }

    private void nulls() throws Exception {
        String topic = client.fresh("nulls");
        List<ProducerRecord<byte[], byte[]>> sent = List.of(
            Client.record(topic, 0, null, "v"), Client.record(topic, 0, "k", null),
            Client.record(topic, 0, "", ""), Client.record(topic, 0, null, null));
        client.produce(sent);
        List<List<String>> found = client.consume(topic, 0, 0, 4).stream()
            .map(r -> Arrays.asList(Client.text(r.key()), Client.text(r.value()))).toList();
        List<List<String>> want = sent.stream()
            .map(r -> Arrays.asList(Client.text(r.key()), Client.text(r.value()))).toList();
        Runner.checkEqual(found, want, "records");
    }

    private void idempotent() throws Exception {
        String topic = client.fresh("idempotent", 3, Map.of());
        // The client's default is idempotent with five requests in flight; small batches fill the flight.
        try (KafkaProducer<byte[], byte[]> producer = client.producer(Map.of("batch.size", "100", "linger.ms", "0"))) {
            for (int n = 0; n < 1500; n++) {
                producer.send(Client.record(topic, n % 3, "k", "" + n));
            }
        }
        for (int p = 0; p < 3; p++) {
            int first = p;
            List<String> want = IntStream.range(0, 500).mapToObj(n -> "" + (first + 3 * n)).toList();
            Runner.checkEqual(Client.values(client.consume(topic, p, 0, 500)), want, "partition " + p);
            Runner.checkEqual(client.endOffset(topic, p), 500L, "end of " + p);
        }
    }

    private void manyPartitions() throws Exception {
        String topic = client.fresh("many", 48, Map.of());
        List<ProducerRecord<byte[], byte[]>> sent = new ArrayList<>();
        IntStream.range(0, 48).forEach(p -> sent.addAll(Client.numbered(topic, p, 3, 0)));
        client.produce(sent);
        Map<Integer, Long> start = IntStream.range(0, 48).boxed().collect(Collectors.toMap(p -> p, p -> 0L));
        List<ConsumerRecord<byte[], byte[]>> found = client.consume(topic, start, 144, Map.of());
        Map<Integer, List<String>> byPartition = new HashMap<>();
        found.forEach(r -> byPartition.computeIfAbsent(r.partition(), p -> new ArrayList<>()).add(Client.text(r.value())));
        Runner.checkEqual(byPartition.keySet(), start.keySet(), "partitions");
        byPartition.forEach((p, values) ->
            Runner.checkEqual(values, Client.sentValues(Client.numbered(topic, 0, 3, 0)), "partition " + p));
    }

    private void volume() throws Exception {
        String topic = client.fresh("volume", 4, Map.of());
        List<ProducerRecord<byte[], byte[]>> sent = new ArrayList<>();
        IntStream.range(0, 4).forEach(p -> sent.addAll(Client.numbered(topic, p, 10_000, 400)));
        client.produce(sent, Map.of("compression.type", "lz4"));
        for (int p = 0; p < 4; p++) {
            List<ConsumerRecord<byte[], byte[]>> found = client.consume(topic, p, 0, 10_000);
            Runner.checkEqual(Client.values(found), Client.sentValues(Client.numbered(topic, p, 10_000, 400)), "of " + p);
        }
    }

    private void timestamps() throws Exception {
        long before = System.currentTimeMillis();
        long stamp = before - 123_456;
        String created = client.fresh("created");
        client.produce(List.of(new ProducerRecord<>(created, 0, stamp, null, Client.bytes("v"))));
        ConsumerRecord<byte[], byte[]> one = client.consume(created, 0, 0, 1).get(0);
        Runner.checkEqual(List.of(one.timestamp(), one.timestampType()), List.of(stamp, TimestampType.CREATE_TIME), "created");
        String appended = client.fresh("appended", 1, Map.of("message.timestamp.type", "LogAppendTime"));
        RecordMetadata done = client.produce(List.of(new ProducerRecord<>(appended, 0, stamp, null, Client.bytes("v")))).get(0);
        ConsumerRecord<byte[], byte[]> two = client.consume(appended, 0, 0, 1).get(0);
        Runner.checkEqual(two.timestampType(), TimestampType.LOG_APPEND_TIME, "type");
        Runner.check(two.timestamp() >= before - 5000, "timestamp " + two.timestamp());
        Runner.checkEqual(two.timestamp(), done.timestamp(), "the producer was told the same");
    }

    private void reading() {
        runner.add("seek", this::seek);
        runner.add("seek_to_ends", this::seekToEnds);
        runner.add("offsets_for_times", this::offsetsForTimes);
        runner.add("pause_and_resume", this::pauseAndResume);
        runner.add("out_of_range_is_an_error", () -> {
            String topic = client.fresh("range");
            client.produce(Client.numbered(topic, 0, 3, 0));
            Runner.expectError(OffsetOutOfRangeException.class, () -> client.consume(topic, 0, 100, 1));
        });
        runner.add("out_of_range_resets", () -> {
            String topic = client.fresh("reset");
            client.produce(Client.numbered(topic, 0, 3, 0));
            var found = client.consume(topic, Map.of(0, 100L), 3, Map.of("auto.offset.reset", "earliest"));
            Runner.checkEqual(found.get(0).offset(), 0L, "first offset");
        });
        runner.add("no_position_is_an_error", () -> {
            String topic = client.fresh("position");
            try (var consumer = client.consumer(Map.of())) {
                consumer.assign(List.of(new TopicPartition(topic, 0)));
                Runner.expectError(NoOffsetForPartitionException.class, () -> consumer.poll(Duration.ofSeconds(5)));
            }
        });
        runner.add("a_reader_keeps_its_session", this::session);
    }

    private void seek() throws Exception {
        String topic = client.fresh("seek");
        client.produce(Client.numbered(topic, 0, 100, 0));
        TopicPartition tp = new TopicPartition(topic, 0);
        try (var consumer = client.consumer(Map.of("max.poll.records", "7"))) {
            consumer.assign(List.of(tp));
            for (long at : new long[] {50, 0, 99, 1, 37}) {
                consumer.seek(tp, at);
                Runner.checkEqual(Client.poll(consumer, 1).get(0).offset(), at, "first offset");
            }
        }
    }

    private void seekToEnds() throws Exception {
        String topic = client.fresh("ends");
        client.produce(Client.numbered(topic, 0, 10, 0));
        TopicPartition tp = new TopicPartition(topic, 0);
        try (var consumer = client.consumer(Map.of())) {
            consumer.assign(List.of(tp));
            consumer.seekToEnd(List.of(tp));
            Runner.checkEqual(consumer.position(tp), 10L, "position at the end");
            Runner.checkEqual(consumer.poll(Duration.ofSeconds(1)).count(), 0, "records at the end");
            client.produce(List.of(Client.record(topic, 0, "k", "late")));
            Runner.checkEqual(Client.values(Client.poll(consumer, 1)), List.of("late"), "the late record");
            consumer.seekToBeginning(List.of(tp));
            Runner.checkEqual(consumer.position(tp), 0L, "position at the beginning");
            Runner.checkEqual(Client.poll(consumer, 11).get(0).offset(), 0L, "first offset");
        }
    }

    private void offsetsForTimes() throws Exception {
        String topic = client.fresh("times");
        TopicPartition tp = new TopicPartition(topic, 0);
        long base = System.currentTimeMillis() - 600_000;
        for (long stamp : new long[] {base, base + 1000, base + 500, base + 3000}) {
            client.produce(List.of(new ProducerRecord<>(topic, 0, stamp, null, Client.bytes("v"))));
        }
        long[][] wants = {{-1, 0, 0}, {0, 0, 0}, {1, 1, 1000}, {1000, 1, 1000}, {1001, 3, 3000}, {3000, 3, 3000}};
        try (var consumer = client.consumer(Map.of())) {
            for (long[] want : wants) {
                OffsetAndTimestamp found = consumer.offsetsForTimes(Map.of(tp, base + want[0])).get(tp);
                Runner.checkEqual(
                    List.of(found.offset(), found.timestamp()), List.of(want[1], base + want[2]), "for " + want[0]);
            }
            Runner.checkEqual(consumer.offsetsForTimes(Map.of(tp, base + 3001)).get(tp), null, "after the last");
        }
        var largest = client.admin.listOffsets(Map.of(tp, OffsetSpec.maxTimestamp())).partitionResult(tp);
        Runner.checkEqual(Client.get(largest).offset(), 3L, "of the largest timestamp");
        var earliest = client.admin.listOffsets(Map.of(tp, OffsetSpec.earliest())).partitionResult(tp);
        Runner.checkEqual(Client.get(earliest).offset(), 0L, "earliest");
        var latest = client.admin.listOffsets(Map.of(tp, OffsetSpec.latest())).partitionResult(tp);
        Runner.checkEqual(Client.get(latest).offset(), 4L, "latest");
    }

    private void pauseAndResume() throws Exception {
        String topic = client.fresh("pause", 2, Map.of());
        client.produce(Client.numbered(topic, 0, 5, 0));
        client.produce(Client.numbered(topic, 1, 5, 0));
        List<TopicPartition> both = List.of(new TopicPartition(topic, 0), new TopicPartition(topic, 1));
        try (var consumer = client.consumer(Map.of())) {
            consumer.assign(both);
            consumer.seekToBeginning(both);
            consumer.pause(both.subList(0, 1));
            Client.poll(consumer, 5).forEach(r -> Runner.checkEqual(r.partition(), 1, "partition while paused"));
            consumer.resume(both);
            Client.poll(consumer, 5).forEach(r -> Runner.checkEqual(r.partition(), 0, "partition after"));
        }
    }

    /** A reader of many partitions that are written to one after another: fetch sessions send only what changed. */
    private void session() throws Exception {
        String topic = client.fresh("session", 10, Map.of());
        List<TopicPartition> all = IntStream.range(0, 10).mapToObj(p -> new TopicPartition(topic, p)).toList();
        try (var consumer = client.consumer(Map.of())) {
            consumer.assign(all);
            consumer.seekToBeginning(all);
            for (int n = 0; n < 50; n++) {
                client.produce(List.of(Client.record(topic, n % 10, "k", "" + n)));
                Runner.checkEqual(Client.values(Client.poll(consumer, 1)), List.of("" + n), "record " + n);
            }
        }
    }

    private void sizes() {
        runner.add("near_the_size_limit", () -> {
            String topic = client.fresh("near");
            client.produce(List.of(new ProducerRecord<>(topic, 0, null, new byte[NEAR_LIMIT])));
            Runner.checkEqual(client.consume(topic, 0, 0, 1).get(0).value().length, NEAR_LIMIT, "size");
        });
        runner.add("over_the_size_limit", () -> {
            String topic = client.fresh("over");
            List<ProducerRecord<byte[], byte[]>> big = List.of(new ProducerRecord<>(topic, 0, null, new byte[OVER_LIMIT]));
            Runner.expectError(RecordTooLargeException.class, () -> client.produce(big));
        });
        runner.add("a_small_fetch_limit_makes_progress", () -> {
            String topic = client.fresh("small");
            for (int n = 0; n < 5; n++) {
                client.produce(List.of(new ProducerRecord<>(topic, 0, null, new byte[100_000])));
            }
            Map<String, String> limits = Map.of("max.partition.fetch.bytes", "1000", "fetch.max.bytes", "1000");
            Runner.checkEqual(client.consume(topic, Map.of(0, 0L), 5, limits).size(), 5, "records");
        });
        runner.add("compacted_topic_needs_keys", () -> {
            String topic = client.fresh("compact", 1, Map.of("cleanup.policy", "compact"));
            Runner.expectError(InvalidRecordException.class, () -> client.produce(List.of(Client.record(topic, 0, null, "v"))));
        });
    }

    private void administration() {
        runner.add("create_and_list", () -> {
            String topic = client.fresh("create", 3, Map.of());
            Runner.eventually(() -> Client.get(client.admin.listTopics().names()).contains(topic), true, "listed");
            var found = Client.get(client.admin.describeTopics(List.of(topic)).topicNameValues().get(topic));
            Runner.checkEqual(found.partitions().size(), 3, "partitions");
            found.partitions().forEach(p -> Runner.checkEqual(p.isr(), List.of(p.leader()), "isr of " + p.partition()));
        });
        runner.add("create_tells_what_it_made", () -> {
            String topic = client.topicName("made");
            var result = client.admin.createTopics(List.of(new NewTopic(topic, 2, (short) 1)));
            Runner.checkEqual(Client.get(result.numPartitions(topic)), 2, "partitions");
            Runner.checkEqual(Client.get(result.config(topic)).get("cleanup.policy").value(), "delete", "cleanup.policy");
        });
        runner.add("defaults_of_partitions_and_replication", () -> {
            String topic = client.topicName("default");
            var wanted = new NewTopic(topic, java.util.Optional.empty(), java.util.Optional.empty());
            Runner.checkEqual(Client.get(client.admin.createTopics(List.of(wanted)).replicationFactor(topic)), 1, "factor");
        });
        runner.add("validate_only_creates_nothing", () -> {
            String topic = client.topicName("validate");
            var options = new CreateTopicsOptions().validateOnly(true);
            Client.get(client.admin.createTopics(List.of(new NewTopic(topic, 1, (short) 1)), options).all());
            Runner.check(!Client.get(client.admin.listTopics().names()).contains(topic), "it is not listed");
        });
        runner.add("create_partitions", () -> {
            String topic = client.fresh("grow", 2, Map.of());
            Client.get(client.admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(5))).all());
            client.produce(Client.numbered(topic, 4, 2, 0));
            Runner.checkEqual(client.consume(topic, 4, 0, 2).size(), 2, "records");
        });
        runner.add("describe_configs", this::describeConfigs);
        runner.add("incremental_alter_configs", this::incrementalAlter);
        runner.add("describe_broker_configs", () -> {
            String id = Client.get(client.admin.describeCluster().nodes()).iterator().next().idString();
            var resource = new ConfigResource(ConfigResource.Type.BROKER, id);
            var found = Client.get(client.admin.describeConfigs(List.of(resource)).values().get(resource));
            Runner.check(!found.entries().isEmpty(), "has entries");
        });
        runner.add("delete_records", this::deleteRecords);
        runner.add("describe_cluster", () -> {
            var cluster = client.admin.describeCluster();
            var nodes = Client.get(cluster.nodes());
            Runner.checkEqual(nodes.size(), 1, "nodes");
            Runner.check(nodes.contains(Client.get(cluster.controller())), "the controller is a node");
            Runner.check(!Client.get(cluster.clusterId()).isEmpty(), "has an id");
        });
        runner.add("leaders_and_moves", this::leadersAndMoves);
        runner.add("list_config_resources", () -> {
            String topic = client.fresh("listed");
            var listed = Client.get(client.admin.listConfigResources().all());
            var resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
            Runner.check(listed.contains(resource), "the topic is listed");
            var brokers = Client.get(client.admin
                .listConfigResources(Set.of(ConfigResource.Type.BROKER), new ListConfigResourcesOptions()).all());
            Runner.checkEqual(brokers.size(), 1, "brokers");
        });
        runner.add("log_dirs", this::logDirs);
        runner.add("delete_topic_and_create_again", this::deleteTopic);
    }

    private void leadersAndMoves() throws Exception {
        var partition = new TopicPartition(client.fresh("stays"), 0);
        for (ElectionType type : ElectionType.values()) {
            var elected = Client.get(client.admin.electLeaders(type, Set.of(partition)).partitions());
            Throwable why = elected.get(partition).orElseThrow();
            Runner.check(why instanceof ElectionNotNeededException, type + ": " + why);
        }
        int here = Client.get(client.admin.describeCluster().nodes()).iterator().next().id();
        moveTo(partition, Optional.of(here));
        Runner.expectError(InvalidReplicaAssignmentException.class, () -> moveTo(partition, Optional.of(here + 77)));
        Runner.expectError(NoReassignmentInProgressException.class, () -> moveTo(partition, Optional.empty()));
        Runner.checkEqual(Client.get(client.admin.listPartitionReassignments().reassignments()), Map.of(), "moves");
    }

    private Void moveTo(TopicPartition partition, Optional<Integer> broker) throws Exception {
        var to = broker.map(id -> new NewPartitionReassignment(List.of(id)));
        return Client.get(client.admin.alterPartitionReassignments(Map.of(partition, to)).all());
    }

    private void describeConfigs() throws Exception {
        String topic = client.fresh("describe", 1, Map.of("retention.ms", "3600000"));
        Runner.checkEqual(
            client.describe(topic, "retention.ms", "cleanup.policy", "max.message.bytes", "compression.type"),
            List.of("3600000", "delete", "1048588", "producer"), "values");
        var resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
        var config = Client.get(client.admin.describeConfigs(List.of(resource)).values().get(resource));
        Runner.checkEqual(config.get("retention.ms").source(), ConfigEntry.ConfigSource.DYNAMIC_TOPIC_CONFIG, "source");
        Runner.checkEqual(config.get("cleanup.policy").source(), ConfigEntry.ConfigSource.DEFAULT_CONFIG, "default's source");
    }

    private void incrementalAlter() throws Exception {
        String topic = client.fresh("incremental", 1, Map.of("retention.ms", "3600000"));
        alter(topic, "max.message.bytes", "2000000", AlterConfigOp.OpType.SET);
        Callable<Object> both = () -> client.describe(topic, "max.message.bytes", "retention.ms");
        Runner.eventually(both, List.of("2000000", "3600000"), "after set");
        alter(topic, "retention.ms", "", AlterConfigOp.OpType.DELETE);
        Runner.eventually(both, List.of("2000000", "604800000"), "after delete");
        alter(topic, "cleanup.policy", "compact", AlterConfigOp.OpType.APPEND);
        Runner.eventually(() -> client.describe(topic, "cleanup.policy"), List.of("delete,compact"), "after append");
        alter(topic, "cleanup.policy", "compact", AlterConfigOp.OpType.SUBTRACT);
        Runner.eventually(() -> client.describe(topic, "cleanup.policy"), List.of("delete"), "after subtract");
    }

    private Object alter(String topic, String name, String value, AlterConfigOp.OpType how) throws Exception {
        var resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
        var change = new AlterConfigOp(new ConfigEntry(name, value), how);
        return Client.get(client.admin.incrementalAlterConfigs(Map.of(resource, List.of(change))).all());
    }

    private void deleteRecords() throws Exception {
        String topic = client.fresh("records");
        TopicPartition tp = new TopicPartition(topic, 0);
        client.produce(Client.numbered(topic, 0, 10, 0));
        var deleted = client.admin.deleteRecords(Map.of(tp, RecordsToDelete.beforeOffset(4)));
        Runner.checkEqual(Client.get(deleted.lowWatermarks().get(tp)).lowWatermark(), 4L, "low watermark");
        Runner.checkEqual(client.beginningOffset(topic, 0), 4L, "beginning");
        var past = client.admin.deleteRecords(Map.of(tp, RecordsToDelete.beforeOffset(11)));
        Runner.expectError(
            org.apache.kafka.common.errors.OffsetOutOfRangeException.class,
            () -> Client.get(past.lowWatermarks().get(tp)));
    }

    private void logDirs() throws Exception {
        String topic = client.fresh("dirs", 2, Map.of());
        client.produce(Client.numbered(topic, 0, 10, 1000));
        int id = Client.get(client.admin.describeCluster().nodes()).iterator().next().id();
        var folders = Client.get(client.admin.describeLogDirs(List.of(id)).descriptions().get(id));
        long size = folders.values().stream()
            .filter(f -> f.replicaInfos().containsKey(new TopicPartition(topic, 0)))
            .mapToLong(f -> f.replicaInfos().get(new TopicPartition(topic, 0)).size()).sum();
        Runner.check(size >= 10_000, "bytes of partition 0: " + size);
    }

    private void deleteTopic() throws Exception {
        String topic = client.fresh("again");
        client.produce(Client.numbered(topic, 0, 5, 0));
        Client.get(client.admin.deleteTopics(List.of(topic)).all());
        Runner.eventually(() -> Client.get(client.admin.listTopics().names()).contains(topic), false, "listed");
        Runner.eventually(() -> {
            try {
                return client.create(topic, 1, Map.of()) == null;
            } catch (TopicExistsException e) {
                return false;
            }
        }, true, "created again");
        client.produce(List.of(Client.record(topic, 0, "k", "new")));
        Runner.checkEqual(Client.values(client.consume(topic, 0, 0, 1)), List.of("new"), "values");
        Runner.checkEqual(client.endOffset(topic, 0), 1L, "end");
    }

    private void errors() {
        refused("invalid_topic_name", InvalidTopicException.class, () -> client.create("no spaces", 1, Map.of()));
        refused("invalid_partitions", InvalidPartitionsException.class, () -> client.create(client.topicName("zero"), 0, Map.of()));
        refused("invalid_replication", InvalidReplicationFactorException.class, () ->
            Client.get(client.admin.createTopics(List.of(new NewTopic(client.topicName("rf"), 1, (short) 3))).all()));
        refused("unknown_config", InvalidConfigurationException.class, () ->
            client.create(client.topicName("cfg"), 1, Map.of("no.such.config", "1")));
        refused("invalid_config", InvalidConfigurationException.class, () ->
            client.create(client.topicName("cfg"), 1, Map.of("retention.ms", "soon")));
        refused("duplicate_topic", TopicExistsException.class, () -> client.create(client.fresh("twice"), 1, Map.of()));
        refused("delete_unknown_topic", UnknownTopicOrPartitionException.class, () ->
            Client.get(client.admin.deleteTopics(List.of(client.topicName("none"))).all()));
        refused("describe_unknown_topic", UnknownTopicOrPartitionException.class, () ->
            Client.get(client.admin.describeTopics(List.of(client.topicName("none"))).allTopicNames()));
        refused("fewer_partitions", InvalidPartitionsException.class, () -> {
            var fewer = Map.of(client.fresh("fewer", 3, Map.of()), NewPartitions.increaseTo(2));
            return Client.get(client.admin.createPartitions(fewer).all());
        });
        refused("alter_unknown_topic", UnknownTopicOrPartitionException.class, () ->
            alter(client.topicName("none"), "retention.ms", "1000", AlterConfigOp.OpType.SET));
        refused("alter_to_an_invalid_config", InvalidConfigurationException.class, () ->
            alter(client.fresh("bad"), "cleanup.policy", "keep", AlterConfigOp.OpType.SET));
        refused("offsets_of_unknown_partition", UnknownTopicOrPartitionException.class, () -> {
            TopicPartition tp = new TopicPartition(client.fresh("one"), 7);
            var options = new org.apache.kafka.clients.admin.ListOffsetsOptions().timeoutMs(3000);
            try {
                return Client.get(client.admin.listOffsets(Collections.singletonMap(tp, OffsetSpec.latest()), options).all());
            } catch (org.apache.kafka.common.errors.TimeoutException e) {
                // The client keeps asking for a partition that may yet come, until its own time is up.
                throw new UnknownTopicOrPartitionException(e.getMessage());
            }
        });
    }

    private void refused(String name, Class<? extends Throwable> kind, Callable<?> call) {
        runner.add(name, () -> Runner.expectError(kind, call));
    }
}
