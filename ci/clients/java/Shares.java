import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.TreeSet;
import java.util.stream.LongStream;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.DescribeShareGroupsOptions;
import org.apache.kafka.clients.admin.ListGroupsOptions;
import org.apache.kafka.clients.admin.ListShareGroupOffsetsSpec;
import org.apache.kafka.clients.consumer.AcknowledgeType;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaShareConsumer;
import org.apache.kafka.common.GroupState;
import org.apache.kafka.common.GroupType;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicIdPartition;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.GroupIdNotFoundException;
import org.apache.kafka.common.errors.GroupNotEmptyException;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

/** Share groups (KIP-932) as the Java client has them. */
final class Shares {
    private final Client client;
    private final Runner runner;

    private Shares(Client client, Runner runner) {
        this.client = client;
        this.runner = runner;
    }

    static void addTo(Runner runner, Client client) {
        new Shares(client, runner).cases();
    }

    private void cases() {
        runner.add("share_implicit_acknowledgement", this::implicit);
        runner.add("share_explicit_accept_release_reject", this::explicit);
        runner.add("share_two_consumers_of_one_partition", this::together);
        runner.add("share_latest_and_what_comes_then", this::latest);
        runner.add("share_lock_ends_and_is_renewed", this::locks);
        runner.add("share_group_administration", this::administration);
    }

    private KafkaShareConsumer<byte[], byte[]> consumer(String group, Map<String, Object> settings) {
        Map<String, Object> config = new HashMap<>();
        config.put("bootstrap.servers", client.bootstrap);
        config.put("group.id", group);
        config.putAll(settings);
        return new KafkaShareConsumer<>(config, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    private KafkaShareConsumer<byte[], byte[]> explicitly(String group) {
        return consumer(group, Map.of("share.acknowledgement.mode", "explicit"));
    }

    private String group(Map<String, String> settings) throws Exception {
        String group = client.topicName("share");
        Collection<AlterConfigOp> ops = settings.entrySet().stream()
            .map(e -> new AlterConfigOp(new ConfigEntry(e.getKey(), e.getValue()), AlterConfigOp.OpType.SET))
            .toList();
        ConfigResource resource = new ConfigResource(ConfigResource.Type.GROUP, group);
        Client.get(client.admin.incrementalAlterConfigs(Map.of(resource, ops)).all());
        return group;
    }

    private String fromTheBeginning() throws Exception {
        return group(Map.of("share.auto.offset.reset", "earliest"));
    }

    /** Polls until there are so many records. */
    private static List<ConsumerRecord<byte[], byte[]>> poll(KafkaShareConsumer<byte[], byte[]> from, int count) {
        List<ConsumerRecord<byte[], byte[]>> found = new ArrayList<>();
        long deadline = System.nanoTime() + 30_000_000_000L;
        while (found.size() < count && System.nanoTime() < deadline) {
            from.poll(Duration.ofMillis(500)).forEach(found::add);
        }
        Runner.check(found.size() >= count, "only " + found.size() + " of " + count + " records came");
        return found;
    }

    private static void committed(KafkaShareConsumer<byte[], byte[]> by) {
        Map<TopicIdPartition, Optional<KafkaException>> results = by.commitSync();
        results.forEach((partition, error) -> Runner.checkEqual(error, Optional.empty(), partition.toString()));
    }

    private static List<Long> offsets(List<ConsumerRecord<byte[], byte[]>> records) {
        return records.stream().map(ConsumerRecord::offset).sorted().toList();
    }

    private static List<Long> range(long from, long to) {
        return LongStream.range(from, to).boxed().toList();
    }

    private long start(String group, String topic) throws Exception {
        var spec = Map.of(group, new ListShareGroupOffsetsSpec());
        var offsets = Client.get(client.admin.listShareGroupOffsets(spec).partitionsToOffsetInfo(group));
        var of = offsets.get(new TopicPartition(topic, 0));
        return of == null ? -1 : of.startOffset();
    }

    private void implicit() throws Exception {
        String topic = client.fresh("share");
        client.produce(Client.numbered(topic, 0, 50, 100));
        String group = fromTheBeginning();
        try (var consumer = consumer(group, Map.of())) {
            consumer.subscribe(List.of(topic));
            List<ConsumerRecord<byte[], byte[]>> found = poll(consumer, 50);
            Runner.checkEqual(offsets(found), range(0, 50), "offsets");
            Runner.checkEqual(found.get(0).deliveryCount(), Optional.of((short) 1), "delivery count");
            committed(consumer);
            Runner.checkEqual(start(group, topic), 50L, "start after the commit");
            client.produce(Client.numbered(topic, 0, 10, 100));
            Runner.checkEqual(offsets(poll(consumer, 10)), range(50, 60), "those behind");
            // The next poll acknowledges what the last one gave.
            consumer.poll(Duration.ofMillis(100));
            Runner.eventually(() -> start(group, topic), 60L, "start after the next poll");
        }
        try (var other = consumer(group, Map.of())) {
            other.subscribe(List.of(topic));
            client.produce(Client.numbered(topic, 0, 1, 100));
            Runner.checkEqual(offsets(poll(other, 1)), List.of(60L), "nothing comes again");
        }
    }

    private void explicit() throws Exception {
        String topic = client.fresh("share");
        client.produce(Client.numbered(topic, 0, 6, 10));
        String group = fromTheBeginning();
        try (var consumer = explicitly(group)) {
            consumer.subscribe(List.of(topic));
            for (ConsumerRecord<byte[], byte[]> record : poll(consumer, 6)) {
                switch ((int) record.offset()) {
                    case 1 -> consumer.acknowledge(record, AcknowledgeType.RELEASE);
                    case 2 -> consumer.acknowledge(record, AcknowledgeType.REJECT);
                    default -> consumer.acknowledge(record);
                }
            }
            committed(consumer);
            List<ConsumerRecord<byte[], byte[]>> again = poll(consumer, 1);
            Runner.checkEqual(offsets(again), List.of(1L), "what was released");
            Runner.checkEqual(again.get(0).deliveryCount(), Optional.of((short) 2), "its delivery count");
            Runner.expectError(IllegalStateException.class, () -> consumer.poll(Duration.ofMillis(100)));
            consumer.acknowledge(again.get(0));
            committed(consumer);
            Runner.checkEqual(start(group, topic), 6L, "start");
        }
        // Released again and again, a record is given up.
        client.produce(Client.numbered(topic, 0, 1, 10));
        try (var consumer = explicitly(group)) {
            consumer.subscribe(List.of(topic));
            for (short delivery = 1; delivery <= 5; delivery++) {
                ConsumerRecord<byte[], byte[]> record = poll(consumer, 1).get(0);
                Runner.checkEqual(record.deliveryCount(), Optional.of(delivery), "delivery count");
                consumer.acknowledge(record, AcknowledgeType.RELEASE);
                committed(consumer);
            }
            Runner.checkEqual(start(group, topic), 7L, "start behind what was given up");
        }
    }

    private void together() throws Exception {
        String topic = client.fresh("share");
        String group = fromTheBeginning();
        try (var a = consumer(group, Map.of("max.poll.records", "10"));
             var b = consumer(group, Map.of("max.poll.records", "10"))) {
            a.subscribe(List.of(topic));
            b.subscribe(List.of(topic));
            a.poll(Duration.ofMillis(500));
            b.poll(Duration.ofMillis(500));
            for (int batch = 0; batch < 40; batch++) {
                client.produce(Client.numbered(topic, 0, 10, 10));
            }
            Map<KafkaShareConsumer<byte[], byte[]>, TreeSet<Long>> read = Map.of(a, new TreeSet<>(), b, new TreeSet<>());
            long deadline = System.nanoTime() + 40_000_000_000L;
            while (read.get(a).size() + read.get(b).size() < 400 && System.nanoTime() < deadline) {
                for (var consumer : List.of(a, b)) {
                    for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofMillis(200))) {
                        Runner.check(read.values().stream().noneMatch(of -> of.contains(record.offset())),
                            record.offset() + " came once");
                        read.get(consumer).add(record.offset());
                    }
                }
            }
            Set<Long> all = new TreeSet<>(read.get(a));
            all.addAll(read.get(b));
            Runner.checkEqual(List.copyOf(all), range(0, 400), "all records");
            Runner.check(!read.get(a).isEmpty() && !read.get(b).isEmpty(), "both had some");
            committed(a);
            committed(b);
            Runner.eventually(() -> start(group, topic), 400L, "start");
        }
    }

    private void latest() throws Exception {
        String topic = client.fresh("share");
        client.produce(Client.numbered(topic, 0, 5, 10));
        try (var consumer = consumer(client.topicName("share"), Map.of())) {
            consumer.subscribe(List.of(topic));
            long deadline = System.nanoTime() + 5_000_000_000L;
            while (System.nanoTime() < deadline) {
                Runner.check(consumer.poll(Duration.ofMillis(500)).isEmpty(), "nothing of before comes");
            }
            client.produce(Client.numbered(topic, 0, 5, 10));
            Runner.checkEqual(offsets(poll(consumer, 5)), range(5, 10), "what came then");
        }
    }

    private void locks() throws Exception {
        String topic = client.fresh("share");
        client.produce(Client.numbered(topic, 0, 1, 10));
        String group = group(Map.of("share.auto.offset.reset", "earliest", "share.record.lock.duration.ms", "2000"));
        try (var slow = explicitly(group); var other = explicitly(group)) {
            slow.subscribe(List.of(topic));
            ConsumerRecord<byte[], byte[]> record = poll(slow, 1).get(0);
            Runner.checkEqual(slow.acquisitionLockTimeoutMs(), Optional.of(2000), "lock");
            slow.acknowledge(record, AcknowledgeType.RENEW);
            committed(slow);
            other.subscribe(List.of(topic));
            ConsumerRecord<byte[], byte[]> again = poll(other, 1).get(0);
            Runner.checkEqual(again.deliveryCount(), Optional.of((short) 2), "delivery count");
            other.acknowledge(again);
            committed(other);
            Runner.checkEqual(start(group, topic), 1L, "start");
        }
    }

    private void administration() throws Exception {
        String topic = client.fresh("share");
        client.produce(Client.numbered(topic, 0, 10, 10));
        String group = fromTheBeginning();
        try (var consumer = consumer(group, Map.of())) {
            consumer.subscribe(List.of(topic));
            poll(consumer, 10);
            committed(consumer);
            var options = new DescribeShareGroupsOptions().includeAuthorizedOperations(true);
            var described = Client.get(client.admin.describeShareGroups(List.of(group), options).all()).get(group);
            Runner.checkEqual(described.groupState(), GroupState.STABLE, "state");
            Runner.checkEqual(described.authorizedOperations(), Client.GROUP_OPERATIONS, "operations");
            var member = described.members().iterator().next();
            Runner.checkEqual(member.assignment().topicPartitions(), Set.of(new TopicPartition(topic, 0)), "assignment");
            var listed = Client.get(client.admin.listGroups(ListGroupsOptions.forShareGroups()).all());
            var types = listed.stream().filter(of -> of.groupId().equals(group)).map(of -> of.type()).toList();
            Runner.checkEqual(types, List.of(Optional.of(GroupType.SHARE)), "types of the group as listed");
            Runner.expectError(GroupNotEmptyException.class,
                () -> Client.get(client.admin.deleteShareGroups(List.of(group)).all()));
            Runner.expectError(GroupNotEmptyException.class, () -> Client.get(
                client.admin.alterShareGroupOffsets(group, Map.of(new TopicPartition(topic, 0), 3L)).all()));
        }
        Client.get(client.admin.alterShareGroupOffsets(group, Map.of(new TopicPartition(topic, 0), 3L)).all());
        Runner.checkEqual(start(group, topic), 3L, "start where it was moved");
        try (var consumer = consumer(group, Map.of())) {
            consumer.subscribe(List.of(topic));
            Runner.checkEqual(offsets(poll(consumer, 7)), range(3, 10), "from there");
        }
        Client.get(client.admin.deleteShareGroupOffsets(group, Set.of(topic)).all());
        Runner.checkEqual(start(group, topic), -1L, "start where it is forgotten");
        Client.get(client.admin.deleteShareGroups(List.of(group)).all());
        Runner.expectError(GroupIdNotFoundException.class,
            () -> Client.get(client.admin.describeShareGroups(List.of(group)).all()));
    }
}
