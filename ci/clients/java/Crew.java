import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collection;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.Callable;
import java.util.concurrent.TimeUnit;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import org.apache.kafka.clients.admin.ConsumerGroupDescription;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.common.GroupState;
import org.apache.kafka.common.TopicPartition;

/** The members of a group that a case drives. All are polled in turn: one that is not holds up a rebalance. */
final class Crew implements AutoCloseable {
    static final long GROUP_SECONDS_MAX = 60;

    final String group;
    final List<String> topics;
    final List<Member> members = new ArrayList<>();
    final List<ConsumerRecord<byte[], byte[]>> readByOthers = new ArrayList<>();
    private final Client client;

    Crew(Client client, String... topics) {
        this.client = client;
        this.group = client.topicName("group");
        this.topics = List.of(topics);
    }

    Member join(Map<String, String> settings) {
        Member member = new Member(client, group, topics, settings);
        members.add(member);
        return member;
    }

    Member join() {
        return join(Map.of());
    }

    Member joinAndRead(int count) throws Exception {
        Member member = join();
        untilRead(count);
        return member;
    }

    void leave(Member member) {
        members.remove(member);
        readByOthers.addAll(member.read);
        member.close();
    }

    void until(String what, Callable<Boolean> holds) throws Exception {
        long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(GROUP_SECONDS_MAX);
        while (!holds.call()) {
            if (System.nanoTime() > deadline) {
                List<Set<String>> parts = members.stream().map(Member::assignment).toList();
                throw new AssertionError("not in time: " + what + "; " + read().size() + " records read, assigned " + parts);
            }
            members.forEach(Member::poll);
        }
    }

    /** Until every member has a part, the parts are disjoint, and together they are all. */
    void settle(Set<String> wanted) throws Exception {
        until("the partitions are shared", () -> {
            List<Set<String>> parts = members.stream().map(Member::assignment).toList();
            Set<String> all = parts.stream().flatMap(Set::stream).collect(Collectors.toSet());
            return parts.stream().noneMatch(Set::isEmpty) && all.equals(wanted)
                && parts.stream().mapToInt(Set::size).sum() == wanted.size();
        });
    }

    void untilStable() throws Exception {
        until("the group is stable", () -> described().groupState() == GroupState.STABLE);
    }

    void untilRead(int count) throws Exception {
        until(count + " records are read", () -> read().size() >= count);
    }

    List<ConsumerRecord<byte[], byte[]>> read() {
        List<ConsumerRecord<byte[], byte[]>> all = new ArrayList<>(readByOthers);
        members.forEach(member -> all.addAll(member.read));
        return all;
    }

    ConsumerGroupDescription described() throws Exception {
        return client.describeGroup(group);
    }

    @Override
    public void close() {
        members.forEach(Member::close);
    }

    static Set<String> partitions(int count, String... topics) {
        return Member.names(Arrays.stream(topics)
            .flatMap(topic -> IntStream.range(0, count).mapToObj(p -> new TopicPartition(topic, p))).toList());
    }

    /** Where a record is, which is also what its value is where `Client.produceNumbers` made it. */
    static String place(ConsumerRecord<byte[], byte[]> record) {
        return record.partition() + "-" + record.offset();
    }

    static List<String> places(int partitions, int from, int to) {
        return IntStream.range(0, partitions)
            .mapToObj(p -> IntStream.range(from, to).mapToObj(n -> p + "-" + n)).flatMap(s -> s).sorted().toList();
    }

    static void checkEachOnce(Collection<ConsumerRecord<byte[], byte[]>> read, List<String> wanted, String what) {
        Runner.checkEqual(read.stream().map(Crew::place).sorted().toList(), wanted, what);
        read.forEach(record -> Runner.checkEqual(Client.text(record.value()), place(record), what + ": value"));
    }
}
