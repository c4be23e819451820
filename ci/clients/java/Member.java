import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import java.util.stream.Collectors;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.TopicPartition;

/** A consumer of a group, by the classic protocol unless its settings say otherwise, with what it reads and what it was told of its partitions. */
final class Member implements ConsumerRebalanceListener, AutoCloseable {
    /** Longer than a case, so that only a member that leaves is gone ... */
    private static final String SESSION_MS = "120000";
    /** ... and the shortest that Kafka's defaults allow, for one that is to be lost. */
    static final String SESSION_MS_MIN = "6000";

    final KafkaConsumer<byte[], byte[]> consumer;
    final List<ConsumerRecord<byte[], byte[]>> read = new ArrayList<>();
    /** In turn, as in `assigned [0, 1]`. */
    final List<String> changes = new ArrayList<>();

    Member(Client client, String group, List<String> topics, Map<String, String> settings) {
        Map<String, String> config = new HashMap<>();
        config.put("group.id", group);
        config.put("group.protocol", "classic");
        config.put("auto.offset.reset", "earliest");
        config.put("session.timeout.ms", SESSION_MS);
        config.put("heartbeat.interval.ms", "500");
        config.put("max.poll.interval.ms", "120000");
        // Never within a case: only a close commits.
        config.put("auto.commit.interval.ms", "600000");
        config.putAll(settings);
        if (config.get("group.protocol").equals("consumer")) {
            // The broker says them.
            config.remove("session.timeout.ms");
            config.remove("heartbeat.interval.ms");
        }
        consumer = client.consumer(config);
        if (!topics.isEmpty()) {
            consumer.subscribe(topics, this);
        }
    }

    static Map<String, String> assignor(Class<?> assignor) {
        return Map.of("partition.assignment.strategy", assignor.getName());
    }

    @Override
    public void onPartitionsAssigned(Collection<TopicPartition> partitions) {
        changed("assigned", partitions);
    }

    @Override
    public void onPartitionsRevoked(Collection<TopicPartition> partitions) {
        changed("revoked", partitions);
    }

    private void changed(String what, Collection<TopicPartition> partitions) {
        if (!partitions.isEmpty()) {
            changes.add(what + " " + names(partitions));
        }
    }

    static Set<String> names(Collection<TopicPartition> partitions) {
        return partitions.stream().map(TopicPartition::toString).collect(Collectors.toCollection(TreeSet::new));
    }

    List<ConsumerRecord<byte[], byte[]>> poll() {
        List<ConsumerRecord<byte[], byte[]>> found = new ArrayList<>();
        consumer.poll(Duration.ofMillis(100)).forEach(found::add);
        read.addAll(found);
        return found;
    }

    Set<String> assignment() {
        return names(consumer.assignment());
    }

    /** Leaves the group, unless it is a static member. */
    @Override
    public void close() {
        consumer.close();
    }
}
