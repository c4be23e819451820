import java.time.Duration;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.Set;
import java.util.concurrent.CountDownLatch;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.TimeoutException;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * Copies records to the same partitions of another topic, in transactions with the offsets of its group: what `copier.py`
 * does, with the client that has the newer protocol for transactions. Until it is stopped by SIGTERM, or has to begin anew
 * (exit code 3). Arguments: HOST:PORT GROUP SOURCE TARGET RANGES ID SEED.
 */
public final class Copier implements ConsumerRebalanceListener {
    private static final int BEGIN_ANEW = 3;
    private static final double ABORTED_SHARE = 0.05;
    private static final int PAUSE_MS_MAX = 150;
    private static final Duration STOP_MAX = Duration.ofSeconds(30);

    private final String group;
    private final String source;
    private final String target;
    private final String ranges;
    private final Random chance;
    private final KafkaProducer<byte[], byte[]> producer;
    private final KafkaConsumer<byte[], byte[]> consumer;
    private final Map<TopicPartition, Long> position = new HashMap<>();
    private volatile boolean stopping;

    private Copier(String[] arguments) {
        group = arguments[1];
        source = arguments[2];
        target = arguments[3];
        ranges = arguments[4];
        chance = new Random(arguments[6].hashCode());
        Map<String, Object> common = Map.of(
            "bootstrap.servers", arguments[0], "reconnect.backoff.max.ms", "200", "retry.backoff.max.ms", "200");
        Map<String, Object> writing = new HashMap<>(common);
        writing.putAll(Map.of(
            "transactional.id", arguments[5], "transaction.timeout.ms", "6000", "linger.ms", "5",
            "request.timeout.ms", "5000", "delivery.timeout.ms", "6000", "max.block.ms", "10000"));
        producer = new KafkaProducer<>(writing, new ByteArraySerializer(), new ByteArraySerializer());
        Map<String, Object> reading = new HashMap<>(common);
        reading.putAll(Map.of(
            "group.id", group, "isolation.level", "read_committed", "enable.auto.commit", "false",
            "auto.offset.reset", "earliest", "max.poll.records", "150", "session.timeout.ms", "3000",
            "heartbeat.interval.ms", "500", "max.poll.interval.ms", "60000",
            "partition.assignment.strategy", "org.apache.kafka.clients.consumer.RoundRobinAssignor"));
        consumer = new KafkaConsumer<>(reading, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    public static void main(String[] arguments) {
        Copier copier = new Copier(arguments);
        CountDownLatch done = new CountDownLatch(1);
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            copier.stopping = true;
            try {
                if (!done.await(STOP_MAX.toSeconds(), java.util.concurrent.TimeUnit.SECONDS)) {
                    System.out.println("not done in time");
                }
            } catch (InterruptedException e) {
                Thread.currentThread().interrupt();
            }
        }));
        try {
            copier.run();
            done.countDown();
        } catch (BeginAnew e) {
            System.out.println("begins anew: " + e.getCause());
            Runtime.getRuntime().halt(BEGIN_ANEW);
        } catch (RuntimeException e) {
            e.printStackTrace();
            Runtime.getRuntime().halt(1);
        }
    }

    /** The producer is of no more use. */
    private static final class BeginAnew extends RuntimeException {
        private static final long serialVersionUID = 1;

        BeginAnew(Throwable why) {
            super(why);
        }
    }

    private void run() {
        try {
            producer.initTransactions();
        } catch (KafkaException e) {
            throw new BeginAnew(e);
        }
        System.out.println("ready");
        consumer.subscribe(List.of(source), this);
        while (!stopping) {
            ConsumerRecords<byte[], byte[]> records = consumer.poll(Duration.ofMillis(200));
            if (!records.isEmpty()) {
                copy(records);
            }
        }
        consumer.close();
    }

    @Override
    public void onPartitionsAssigned(Collection<TopicPartition> partitions) {
        place(partitions);
        System.out.println("has " + position.keySet());
    }

    @Override
    public void onPartitionsRevoked(Collection<TopicPartition> partitions) {
        partitions.forEach(position::remove);
    }

    /** Goes on where the group has committed; whatever was read ahead is forgotten. */
    private void place(Collection<TopicPartition> partitions) {
        Map<TopicPartition, OffsetAndMetadata> committed = committed(Set.copyOf(partitions));
        for (TopicPartition partition : partitions) {
            OffsetAndMetadata found = committed.get(partition);
            long at = found == null ? 0 : found.offset();
            position.put(partition, at);
            consumer.seek(partition, at);
        }
    }

    private Map<TopicPartition, OffsetAndMetadata> committed(Set<TopicPartition> partitions) {
        while (true) {
            try {
                return consumer.committed(partitions);
            } catch (TimeoutException e) {
                System.out.println("still asks for offsets: " + e);
            }
        }
    }

    private void copy(ConsumerRecords<byte[], byte[]> records) {
        try {
            producer.beginTransaction();
            Map<TopicPartition, OffsetAndMetadata> ends = send(records);
            pause();
            producer.sendOffsetsToTransaction(ends, consumer.groupMetadata());
            pause();
            if (chance.nextDouble() < ABORTED_SHARE) {
                throw new KafkaException("for no reason");
            }
            commit();
            ends.forEach((partition, end) -> position.put(partition, end.offset()));
        } catch (KafkaException why) {
            System.out.println("aborts: " + why);
            abort();
            place(consumer.assignment());
        }
    }

    private Map<TopicPartition, OffsetAndMetadata> send(ConsumerRecords<byte[], byte[]> records) {
        Map<TopicPartition, OffsetAndMetadata> ends = new HashMap<>();
        for (TopicPartition partition : records.partitions()) {
            List<ConsumerRecord<byte[], byte[]>> some = records.records(partition);
            for (ConsumerRecord<byte[], byte[]> record : some) {
                producer.send(new ProducerRecord<>(target, partition.partition(), record.key(), copied(record.value())));
            }
            long end = some.get(some.size() - 1).offset() + 1;
            String what = position.get(partition) + " " + end + " " + some.size();
            producer.send(new ProducerRecord<>(ranges, partition.partition(), null, Client.bytes(what)));
            ends.put(partition, new OffsetAndMetadata(end));
        }
        return ends;
    }

    private static byte[] copied(byte[] value) {
        byte[] head = Client.bytes("copy of ");
        byte[] whole = new byte[head.length + value.length];
        System.arraycopy(head, 0, whole, 0, head.length);
        System.arraycopy(value, 0, whole, head.length, value.length);
        return whole;
    }

    /** Whether it is committed is not known before the broker says so, however often it has to be asked. */
    private void commit() {
        while (true) {
            try {
                producer.commitTransaction();
                return;
            } catch (TimeoutException e) {
                System.out.println("still commits: " + e);
            }
        }
    }

    private void abort() {
        try {
            producer.abortTransaction();
        } catch (KafkaException e) {
            throw new BeginAnew(e);
        }
    }

    private void pause() {
        try {
            Thread.sleep(chance.nextInt(PAUSE_MS_MAX));
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
        }
    }
}
