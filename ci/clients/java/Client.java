import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Properties;
import java.util.Set;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.ConsumerGroupDescription;
import org.apache.kafka.clients.admin.GroupListing;
import org.apache.kafka.clients.admin.ListGroupsOptions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.KafkaFuture;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.acl.AclOperation;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** Short ways to do with the Java client what many cases do. */
final class Client {
    /** What anybody may do with a group where nobody is kept from anything. */
    static final Set<AclOperation> GROUP_OPERATIONS = Set.of(AclOperation.READ, AclOperation.DELETE, AclOperation.DESCRIBE,
        AclOperation.DESCRIBE_CONFIGS, AclOperation.ALTER_CONFIGS);
    final String bootstrap;
    final Admin admin;
    private int names;

    Client(String bootstrap) {
        this.bootstrap = bootstrap;
        Properties config = new Properties();
        config.put("bootstrap.servers", bootstrap);
        config.put("default.api.timeout.ms", "30000");
        this.admin = Admin.create(config);
    }

    String topicName(String prefix) {
        names += 1;
        return prefix + "-" + ProcessHandle.current().pid() + "-" + System.currentTimeMillis() % 100_000_000 + "-" + names;
    }

    String fresh(String prefix, int partitions, Map<String, String> config) throws Exception {
        String topic = topicName(prefix);
        create(topic, partitions, config);
        return topic;
    }

    String fresh(String prefix) throws Exception {
        return fresh(prefix, 1, Map.of());
    }

    Object create(String topic, int partitions, Map<String, String> config) throws Exception {
        NewTopic wanted = new NewTopic(topic, partitions, (short) 1).configs(config);
        return get(admin.createTopics(List.of(wanted)).all());
    }

    static <T> T get(KafkaFuture<T> future) throws Exception {
        try {
            return future.get();
        } catch (ExecutionException e) {
            throw e.getCause() instanceof Exception cause ? cause : e;
        }
    }

    static ProducerRecord<byte[], byte[]> record(String topic, int partition, String key, String value) {
        return new ProducerRecord<>(topic, partition, bytes(key), bytes(value));
    }

    /** `count` different records of one partition, values padded to `size`. */
    static List<ProducerRecord<byte[], byte[]>> numbered(String topic, int partition, int count, int size) {
        return IntStream.range(0, count)
            .mapToObj(n -> record(topic, partition, "key-" + n, pad("value-" + n + "-", size)))
            .toList();
    }

    static String pad(String text, int size) {
        return text + "x".repeat(Math.max(0, size - text.length()));
    }

    static byte[] bytes(String text) {
        return text == null ? null : text.getBytes(java.nio.charset.StandardCharsets.UTF_8);
    }

    static String text(byte[] bytes) {
        return bytes == null ? null : new String(bytes, java.nio.charset.StandardCharsets.UTF_8);
    }

    KafkaProducer<byte[], byte[]> producer(Map<String, String> settings) {
        Map<String, Object> config = new HashMap<>();
        config.put("bootstrap.servers", bootstrap);
        config.put("max.request.size", "10000000");
        config.put("delivery.timeout.ms", "40000");
        config.put("request.timeout.ms", "20000");
        config.putAll(settings);
        return new KafkaProducer<>(config, new ByteArraySerializer(), new ByteArraySerializer());
    }

    List<RecordMetadata> produce(List<ProducerRecord<byte[], byte[]>> records, Map<String, String> settings)
        throws Exception {
        try (KafkaProducer<byte[], byte[]> producer = producer(settings)) {
            List<Future<RecordMetadata>> sent = new ArrayList<>();
            records.forEach(record -> sent.add(producer.send(record)));
            producer.flush();
            List<RecordMetadata> done = new ArrayList<>();
            for (Future<RecordMetadata> future : sent) {
                done.add(future.get());
            }
            return done;
        }
    }

    List<RecordMetadata> produce(List<ProducerRecord<byte[], byte[]>> records) throws Exception {
        return produce(records, Map.of());
    }

    KafkaConsumer<byte[], byte[]> consumer(Map<String, String> settings) {
        Map<String, Object> config = new HashMap<>();
        config.put("bootstrap.servers", bootstrap);
        config.put("enable.auto.commit", "false");
        config.put("auto.offset.reset", "none");
        config.putAll(settings);
        return new KafkaConsumer<>(config, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    static List<ConsumerRecord<byte[], byte[]>> poll(KafkaConsumer<byte[], byte[]> consumer, int count) {
        List<ConsumerRecord<byte[], byte[]>> found = new ArrayList<>();
        long deadline = System.nanoTime() + Duration.ofSeconds(60).toNanos();
        while (found.size() < count) {
            Runner.check(System.nanoTime() < deadline, "read " + found.size() + " of " + count + " in time");
            consumer.poll(Duration.ofMillis(500)).forEach(found::add);
        }
        return found;
    }

    /** Reads `count` records from the given offsets on. */
    List<ConsumerRecord<byte[], byte[]>> consume(String topic, Map<Integer, Long> start, int count, Map<String, String> settings) {
        try (KafkaConsumer<byte[], byte[]> consumer = consumer(settings)) {
            consumer.assign(start.keySet().stream().map(p -> new TopicPartition(topic, p)).toList());
            start.forEach((p, at) -> consumer.seek(new TopicPartition(topic, p), at));
            return poll(consumer, count);
        }
    }

    List<ConsumerRecord<byte[], byte[]>> consume(String topic, int partition, long start, int count) {
        return consume(topic, Map.of(partition, start), count, Map.of());
    }

    static List<String> values(List<ConsumerRecord<byte[], byte[]>> records) {
        return records.stream().map(r -> text(r.value())).toList();
    }

    static List<String> sentValues(List<ProducerRecord<byte[], byte[]>> records) {
        return records.stream().map(r -> text(r.value())).toList();
    }

    long endOffset(String topic, int partition) {
        TopicPartition tp = new TopicPartition(topic, partition);
        try (KafkaConsumer<byte[], byte[]> consumer = consumer(Map.of())) {
            return consumer.endOffsets(List.of(tp)).get(tp);
        }
    }

    long beginningOffset(String topic, int partition) {
        TopicPartition tp = new TopicPartition(topic, partition);
        try (KafkaConsumer<byte[], byte[]> consumer = consumer(Map.of())) {
            return consumer.beginningOffsets(List.of(tp)).get(tp);
        }
    }

    /** The values of these settings of a topic. */
    List<String> describe(String topic, String... names) throws Exception {
        ConfigResource resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
        var config = get(admin.describeConfigs(List.of(resource)).values().get(resource));
        return Arrays.stream(names).map(name -> config.get(name).value()).toList();
    }

    /** Records of each partition whose values say where they are, as in `0-17`. */
    void produceNumbers(String topic, int partitions, int from, int to) throws Exception {
        List<ProducerRecord<byte[], byte[]>> records = new ArrayList<>();
        IntStream.range(0, partitions).forEach(p ->
            IntStream.range(from, to).forEach(n -> records.add(record(topic, p, null, p + "-" + n))));
        produce(records);
    }

    ConsumerGroupDescription describeGroup(String group) throws Exception {
        return get(admin.describeConsumerGroups(List.of(group)).describedGroups().get(group));
    }

    Optional<GroupListing> listedGroup(String group) throws Exception {
        return get(admin.listGroups(ListGroupsOptions.forConsumerGroups()).all()).stream()
            .filter(listing -> listing.groupId().equals(group)).findFirst();
    }

    /** What a group has committed, by partition. */
    Map<Integer, Long> committed(String group) throws Exception {
        return get(admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata()).entrySet().stream()
            .filter(entry -> entry.getValue() != null)
            .collect(Collectors.toMap(entry -> entry.getKey().partition(), entry -> entry.getValue().offset()));
    }
}
