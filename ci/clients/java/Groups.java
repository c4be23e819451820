import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicReference;
import java.util.stream.Collectors;
import org.apache.kafka.clients.admin.ConsumerGroupDescription;
import org.apache.kafka.clients.consumer.CommitFailedException;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.CooperativeStickyAssignor;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.consumer.RangeAssignor;
import org.apache.kafka.clients.consumer.RoundRobinAssignor;
import org.apache.kafka.clients.consumer.StickyAssignor;
import org.apache.kafka.common.GroupState;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.FencedInstanceIdException;
import org.apache.kafka.common.errors.InconsistentGroupProtocolException;
import org.apache.kafka.common.errors.OffsetMetadataTooLarge;
import org.apache.kafka.common.errors.RebalanceInProgressException;

/** Consumer groups by the classic protocol. */
final class Groups {
    private final Client client;
    private final Runner runner;

    private Groups(Client client, Runner runner) {
        this.client = client;
        this.runner = runner;
    }

    static void addTo(Runner runner, Client client) {
        Groups groups = new Groups(client, runner);
        groups.progress();
        groups.sharing();
        groups.assignors();
        groups.staticMembers();
    }

    /** What the suite is in another process: a member that is killed sometime. */
    static void memberUntilKilled(Client client, String group, String topic) {
        Member member = new Member(client, group, List.of(topic), Map.of("session.timeout.ms", Member.SESSION_MS_MIN));
        long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(3 * Crew.GROUP_SECONDS_MAX);
        while (System.nanoTime() < end) {
            member.poll();
        }
    }

    private void progress() {
        for (String how : List.of("sync", "async", "close")) {
            runner.add("group_resumes_after_commit_" + how, () -> resumes(how));
        }
        runner.add("group_commits_of_a_consumer_that_assigns", this::simple);
        runner.add("group_rebalance_while_consuming_loses_nothing", this::whileConsuming);
        runner.add("group_offsets_with_metadata", this::metadata);
    }

    private void resumes(String how) throws Exception {
        String topic = client.fresh("resume", 3, Map.of());
        client.produceNumbers(topic, 3, 0, 30);
        try (Crew crew = new Crew(client, topic)) {
            Member first = crew.join(Map.of("max.poll.records", "7", "enable.auto.commit", "" + how.equals("close")));
            crew.untilRead(40);
            int count = first.read.size();
            Runner.check(count < 90, "there is a rest for the second");
            Map<Integer, Long> wanted =
                first.read.stream().collect(Collectors.groupingBy(ConsumerRecord::partition, Collectors.counting()));
            if (how.equals("sync")) {
                first.consumer.commitSync();
            } else if (how.equals("async")) {
                AtomicReference<Object> answer = new AtomicReference<>();
                first.consumer.commitAsync((offsets, error) -> answer.set(error == null ? offsets.size() : error));
                // Nothing more is read while it waits for the answer.
                first.consumer.pause(first.consumer.assignment());
                crew.until("the answer is there", () -> answer.get() != null);
                Runner.check(answer.get() instanceof Integer, "it was committed: " + answer.get());
            }
            crew.leave(first);
            Map<Integer, Long> found = client.committed(crew.group);
            // A position of 0 may be committed for what was not read.
            found.values().removeIf(offset -> offset == 0);
            Runner.checkEqual(found, wanted, "committed offsets");
            crew.join();
            crew.untilRead(90);
            Crew.checkEachOnce(crew.read(), Crew.places(3, 0, 30), "records of both");
        }
    }

    private void simple() throws Exception {
        String topic = client.fresh("simple", 2, Map.of());
        String group = client.topicName("group");
        client.produceNumbers(topic, 2, 0, 10);
        List<TopicPartition> both = List.of(new TopicPartition(topic, 0), new TopicPartition(topic, 1));
        Map<String, String> settings = Map.of("group.id", group, "group.protocol", "classic", "auto.offset.reset", "earliest");
        try (KafkaConsumer<byte[], byte[]> one = client.consumer(settings)) {
            one.assign(both);
            Client.poll(one, 20);
            one.commitSync(Map.of(both.get(0), new OffsetAndMetadata(4), both.get(1), new OffsetAndMetadata(10)));
        }
        ConsumerGroupDescription found = client.describeGroup(group);
        Runner.checkEqual(found.groupState(), GroupState.EMPTY, "state");
        Runner.checkEqual(List.copyOf(found.members()), List.of(), "members");
        Runner.check(client.listedGroup(group).orElseThrow().isSimpleConsumerGroup(), "it is listed as a group without members");
        client.produceNumbers(topic, 2, 10, 12);
        try (KafkaConsumer<byte[], byte[]> two = client.consumer(settings)) {
            two.assign(both);
            List<String> rest = new ArrayList<>(Crew.places(1, 4, 12));
            rest.addAll(List.of("1-10", "1-11"));
            Runner.checkEqual(new TreeSet<>(Client.poll(two, 10).stream().map(Crew::place).toList()), new TreeSet<>(rest), "rest");
        }
    }

    /** Each record is committed by itself, so only those whose commit was refused may come again. */
    private void whileConsuming() throws Exception {
        String topic = client.fresh("busy", 4, Map.of());
        List<String> seen = new ArrayList<>();
        Set<String> refused = new HashSet<>();
        int sent = 0;
        try (Crew crew = new Crew(client, topic)) {
            Map<String, String> settings = Map.of("max.poll.records", "10");
            crew.join(settings);
            long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(Crew.GROUP_SECONDS_MAX);
            // There is always more to read, until both have read.
            while (new HashSet<>(seen).size() < 4 * sent || crew.members.size() == 1
                || crew.members.stream().anyMatch(member -> member.read.isEmpty())) {
                Runner.check(System.nanoTime() < deadline, seen.size() + " of " + 4 * sent + " in time, refused " + refused);
                if (new HashSet<>(seen).size() == 4 * sent) {
                    client.produceNumbers(topic, 4, sent, sent + 20);
                    sent += 20;
                }
                if (crew.members.size() == 1 && seen.size() > 50) {
                    crew.join(settings);
                }
                for (Member member : crew.members) {
                    for (ConsumerRecord<byte[], byte[]> record : member.poll()) {
                        seen.add(Crew.place(record));
                        TopicPartition of = new TopicPartition(topic, record.partition());
                        try {
                            member.consumer.commitSync(Map.of(of, new OffsetAndMetadata(record.offset() + 1)));
                        } catch (CommitFailedException | RebalanceInProgressException e) {
                            refused.add(Crew.place(record));
                        }
                    }
                }
            }
            Runner.checkEqual(seen.stream().distinct().sorted().toList(), Crew.places(4, 0, sent), "records of both");
            Set<String> once = new HashSet<>();
            List<String> again = seen.stream().filter(place -> !once.add(place) && !refused.contains(place)).toList();
            Runner.checkEqual(again, List.of(), "records that were read again although they were committed");
            Map<Integer, Long> committed = client.committed(crew.group);
            for (int p = 0; p < 4; p++) {
                if (!refused.contains(p + "-" + (sent - 1))) {
                    Runner.checkEqual(committed.get(p), (long) sent, "committed offset of " + p);
                }
            }
        }
    }

    private void metadata() throws Exception {
        String topic = client.fresh("metadata");
        TopicPartition tp = new TopicPartition(topic, 0);
        Map<String, String> settings = Map.of("group.id", client.topicName("group"), "group.protocol", "classic");
        try (KafkaConsumer<byte[], byte[]> consumer = client.consumer(settings)) {
            consumer.assign(List.of(tp));
            Runner.checkEqual(consumer.committed(Set.of(tp)).get(tp), null, "before any commit");
            OffsetAndMetadata noted = new OffsetAndMetadata(7, Optional.of(3), "a note, \u00e9");
            consumer.commitSync(Map.of(tp, noted));
            Runner.checkEqual(consumer.committed(Set.of(tp)).get(tp), noted, "what is committed");
            Runner.expectError(OffsetMetadataTooLarge.class, () -> {
                consumer.commitSync(Map.of(tp, new OffsetAndMetadata(8, "x".repeat(4097))));
                return "a commit";
            });
            Runner.checkEqual(consumer.committed(Set.of(tp)).get(tp), noted, "after the refusal");
        }
    }

    private void sharing() {
        runner.add("group_members_share_the_partitions", () -> {
            String topic = client.fresh("share", 6, Map.of());
            try (Crew crew = new Crew(client, topic)) {
                crew.join();
                crew.join();
                round(crew, topic, 0, 10);
                crew.join();
                round(crew, topic, 10, 20);
                Runner.checkEqual(crew.members.stream().map(m -> m.assignment().size()).toList(), List.of(2, 2, 2), "of each");
                crew.leave(crew.members.get(0));
                round(crew, topic, 20, 30);
                crew.leave(crew.members.get(0));
                round(crew, topic, 30, 40);
            }
        });
        runner.add("group_takes_over_from_a_member_that_was_killed", this::killed);
    }

    private void round(Crew crew, String topic, int from, int to) throws Exception {
        crew.settle(Crew.partitions(6, topic));
        crew.readByOthers.clear();
        crew.members.forEach(member -> member.read.clear());
        client.produceNumbers(topic, 6, from, to);
        crew.untilRead(6 * (to - from));
        Crew.checkEachOnce(crew.read(), Crew.places(6, from, to), "records of all members");
        for (Member member : crew.members) {
            Set<String> of = Member.names(member.read.stream().map(r -> new TopicPartition(topic, r.partition())).toList());
            Runner.checkEqual(of, member.assignment(), "a member reads its own partitions");
            member.consumer.commitSync();
        }
    }

    private void killed() throws Exception {
        String topic = client.fresh("killed", 4, Map.of());
        client.produceNumbers(topic, 4, 0, 10);
        try (Crew crew = new Crew(client, topic)) {
            Process other = new ProcessBuilder(
                System.getProperty("java.home") + "/bin/java", "-Xmx128m", "-cp", System.getProperty("java.class.path"),
                "Suite", client.bootstrap, "--member", crew.group, topic)
                .redirectOutput(ProcessBuilder.Redirect.DISCARD).redirectError(ProcessBuilder.Redirect.DISCARD).start();
            try {
                Member left = crew.join();
                crew.until("the other has its part", () -> left.assignment().size() == 2);
                other.destroyForcibly().waitFor();
                client.produceNumbers(topic, 4, 10, 20);
                crew.settle(Crew.partitions(4, topic));
                // The other has committed nothing, so what it read comes again.
                crew.until("all is read", () -> left.read.stream().map(Crew::place).distinct().count() == 80);
            } finally {
                other.destroyForcibly();
            }
        }
    }

    private void assignors() {
        // Of two topics with three partitions each, the range assignor gives the first of two members two each.
        assignor("range", RangeAssignor.class, List.of(2, 4));
        assignor("roundrobin", RoundRobinAssignor.class, List.of(3, 3));
        assignor("sticky", StickyAssignor.class, List.of(3, 3));
        assignor("cooperative-sticky", CooperativeStickyAssignor.class, List.of(3, 3));
        runner.add("group_cooperative_members_keep_what_stays", () -> {
            String topic = client.fresh("cooperative", 6, Map.of());
            try (Crew crew = new Crew(client, topic)) {
                Member one = crew.join(Member.assignor(CooperativeStickyAssignor.class));
                crew.settle(Crew.partitions(6, topic));
                Member two = crew.join(Member.assignor(CooperativeStickyAssignor.class));
                crew.settle(Crew.partitions(6, topic));
                Runner.checkEqual(two.assignment().size(), 3, "partitions of the second");
                Runner.checkEqual(
                    one.changes, List.of("assigned " + Crew.partitions(6, topic), "revoked " + two.assignment()), "changes of the first");
            }
        });
        // Members of one group may go over from one assignor to the other, as long as they have one in common.
        runner.add("group_members_move_to_another_assignor", this::moved);
        runner.add("group_protocols_that_do_not_fit_are_refused", () -> {
            String topic = client.fresh("fit", 2, Map.of());
            try (Crew crew = new Crew(client, topic)) {
                crew.join(Member.assignor(RangeAssignor.class));
                crew.settle(Crew.partitions(2, topic));
                try (Member other = new Member(client, crew.group, crew.topics, Member.assignor(RoundRobinAssignor.class))) {
                    Runner.expectError(InconsistentGroupProtocolException.class, () -> {
                        for (int n = 0; n < 600; n++) {
                            other.poll();
                        }
                        return "no refusal";
                    });
                }
            }
        });
    }

    private void assignor(String name, Class<?> assignor, List<Integer> sizes) {
        runner.add("group_assignor_" + name.replace('-', '_'), () -> {
            String[] topics = {client.fresh("assign", 3, Map.of()), client.fresh("assign", 3, Map.of())};
            try (Crew crew = new Crew(client, topics)) {
                List<Member> two = List.of(crew.join(Member.assignor(assignor)), crew.join(Member.assignor(assignor)));
                crew.settle(Crew.partitions(3, topics));
                Runner.checkEqual(two.stream().map(m -> m.assignment().size()).sorted().toList(), sizes, "partitions of each");
                crew.untilStable();
                Runner.checkEqual(crew.described().partitionAssignor(), name, "the protocol of the group");
                List<Set<String>> before = two.stream().map(Member::assignment).toList();
                crew.join(Member.assignor(assignor));
                crew.settle(Crew.partitions(3, topics));
                for (int n = 0; name.contains("sticky") && n < 2; n++) {
                    Runner.check(before.get(n).containsAll(two.get(n).assignment()), "member " + n + " keeps of what it had");
                }
            }
        });
    }

    private void moved() throws Exception {
        String topic = client.fresh("moved", 4, Map.of());
        String both = RangeAssignor.class.getName() + "," + RoundRobinAssignor.class.getName();
        try (Crew crew = new Crew(client, topic)) {
            Member old = crew.join(Member.assignor(RangeAssignor.class));
            crew.settle(Crew.partitions(4, topic));
            Member between = crew.join(Map.of("partition.assignment.strategy", both));
            crew.settle(Crew.partitions(4, topic));
            Runner.checkEqual(crew.described().partitionAssignor(), "range", "what both have");
            crew.leave(old);
            crew.join(Member.assignor(RoundRobinAssignor.class));
            crew.settle(Crew.partitions(4, topic));
            crew.untilStable();
            Runner.checkEqual(crew.described().partitionAssignor(), "roundrobin", "what both have now");
            Runner.checkEqual(between.assignment().size(), 2, "partitions of the member that stayed");
        }
    }

    private void staticMembers() {
        runner.add("group_static_member_restarts_without_a_rebalance", () -> {
            String topic = client.fresh("static", 4, Map.of());
            try (Crew crew = new Crew(client, topic)) {
                Member one = crew.join(Map.of("group.instance.id", "one"));
                // Alone at first, so that the one that restarts is the leader.
                crew.settle(Crew.partitions(4, topic));
                Member two = crew.join(Map.of("group.instance.id", "two"));
                crew.settle(Crew.partitions(4, topic));
                int generation = two.consumer.groupMetadata().generationId();
                Set<String> part = one.assignment();
                List<String> told = List.copyOf(two.changes);
                crew.leave(one);
                Member again = crew.join(Map.of("group.instance.id", "one"));
                crew.settle(Crew.partitions(4, topic));
                Runner.checkEqual(again.assignment(), part, "its partitions after the restart");
                Runner.checkEqual(two.changes, told, "what the other was told");
                Runner.checkEqual(again.consumer.groupMetadata().generationId(), generation, "its generation");
                Runner.checkEqual(two.consumer.groupMetadata().generationId(), generation, "the other's generation");
                client.produceNumbers(topic, 4, 0, 10);
                crew.untilRead(40);
                Crew.checkEachOnce(crew.read(), Crew.places(4, 0, 10), "records");
                crew.members.forEach(member -> member.consumer.commitSync());
            }
        });
        runner.add("group_static_member_is_fenced_by_a_second_of_its_name", () -> {
            String topic = client.fresh("fenced", 1, Map.of());
            client.produceNumbers(topic, 1, 0, 5);
            try (Crew crew = new Crew(client, topic)) {
                Member first = crew.join(Map.of("group.instance.id", "one"));
                crew.untilRead(5);
                // Not polled any more: it may hear of it there.
                crew.members.remove(first);
                crew.join(Map.of("group.instance.id", "one"));
                crew.settle(Crew.partitions(1, topic));
                Runner.expectError(FencedInstanceIdException.class, () -> {
                    first.consumer.commitSync(Map.of(new TopicPartition(topic, 0), new OffsetAndMetadata(3)));
                    return "a commit";
                });
                first.close();
                crew.untilRead(5);
                crew.members.get(0).consumer.commitSync();
                Runner.checkEqual(client.committed(crew.group), Map.of(0, 5L), "committed offsets");
            }
        });
    }
}
