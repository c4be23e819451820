import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.stream.Collectors;
import org.apache.kafka.clients.admin.ConsumerGroupDescription;
import org.apache.kafka.clients.admin.DescribeConsumerGroupsOptions;
import org.apache.kafka.clients.admin.MemberDescription;
import org.apache.kafka.clients.consumer.CooperativeStickyAssignor;
import org.apache.kafka.clients.consumer.SubscriptionPattern;
import org.apache.kafka.common.GroupState;
import org.apache.kafka.common.GroupType;
import org.apache.kafka.common.errors.UnreleasedInstanceIdException;
import org.apache.kafka.common.errors.UnsupportedAssignorException;

/** Consumer groups by the consumer protocol (KIP-848), and on the way between it and the classic one. */
final class ConsumerGroups {
    private final Client client;

    private ConsumerGroups(Client client) {
        this.client = client;
    }

    static void addTo(Runner runner, Client client) {
        ConsumerGroups groups = new ConsumerGroups(client);
        for (String assignor : List.of("uniform", "range")) {
            runner.add("consumer_group_shares_by_" + assignor, () -> groups.shares(assignor));
        }
        runner.add("consumer_group_reads_topics_by_pattern", groups::byPattern);
        runner.add("consumer_group_static_member_restarts", groups::restarts);
        runner.add("consumer_group_unknown_assignor_is_refused", groups::unknownAssignor);
        runner.add("consumer_group_takes_classic_members_along", groups::migrates);
    }

    private static Map<String, String> settings(String... more) {
        Map<String, String> settings = new HashMap<>(Map.of("group.protocol", "consumer"));
        for (int n = 0; n < more.length; n += 2) {
            settings.put(more[n], more[n + 1]);
        }
        return settings;
    }

    private void shares(String assignor) throws Exception {
        String topic = client.fresh("share", 6, Map.of());
        client.produceNumbers(topic, 6, 0, 20);
        try (Crew crew = new Crew(client, topic)) {
            Member one = crew.join(settings("group.remote.assignor", assignor));
            crew.untilRead(120);
            one.consumer.commitSync();
            Member two = crew.join(settings("group.remote.assignor", assignor));
            crew.settle(Crew.partitions(6, topic));
            Runner.checkEqual(two.assignment().size(), 3, "partitions of the second");
            crew.untilStable();
            ConsumerGroupDescription found = crew.described();
            Runner.checkEqual(found.type(), GroupType.CONSUMER, "type");
            Runner.checkEqual(found.partitionAssignor(), assignor, "assignor");
            Set<Set<String>> assigned = found.members().stream()
                .map(member -> Member.names(member.assignment().topicPartitions())).collect(Collectors.toSet());
            Runner.checkEqual(assigned, Set.of(one.assignment(), two.assignment()), "assignments");
            for (MemberDescription member : found.members()) {
                Runner.checkEqual(member.assignment(), member.targetAssignment().orElseThrow(), "the target");
            }
            var options = new DescribeConsumerGroupsOptions().includeAuthorizedOperations(true);
            var asked = Client.get(client.admin.describeConsumerGroups(List.of(crew.group), options).all());
            Runner.checkEqual(asked.get(crew.group).authorizedOperations(), Client.GROUP_OPERATIONS, "operations");
            client.produceNumbers(topic, 6, 20, 40);
            crew.untilRead(240);
            crew.members.forEach(member -> member.consumer.commitSync());
            crew.leave(one);
            crew.settle(Crew.partitions(6, topic));
            client.produceNumbers(topic, 6, 40, 50);
            crew.untilRead(300);
            Crew.checkEachOnce(crew.read(), Crew.places(6, 0, 50), "records of all");
            two.consumer.commitSync();
            Map<Integer, Long> all = Map.of(0, 50L, 1, 50L, 2, 50L, 3, 50L, 4, 50L, 5, 50L);
            Runner.checkEqual(client.committed(crew.group), all, "committed offsets");
        }
    }

    private void byPattern() throws Exception {
        String first = client.fresh("pattern", 2, Map.of());
        String later = first + "-later";
        try (Crew crew = new Crew(client)) {
            Member member = crew.join(settings());
            member.consumer.subscribe(new SubscriptionPattern(first + ".*"), member);
            crew.settle(Crew.partitions(2, first));
            client.create(later, 2, Map.of());
            crew.settle(Crew.partitions(2, first, later));
        }
    }

    private void restarts() throws Exception {
        String topic = client.fresh("static", 4, Map.of());
        try (Crew crew = new Crew(client, topic)) {
            Member one = crew.join(settings("group.instance.id", "one"));
            Member two = crew.join(settings("group.instance.id", "two"));
            crew.settle(Crew.partitions(4, topic));
            crew.untilStable();
            Set<String> part = one.assignment();
            List<String> told = List.copyOf(two.changes);
            try (Member taken = new Member(client, crew.group, crew.topics, settings("group.instance.id", "one"))) {
                Runner.expectError(UnreleasedInstanceIdException.class, () -> {
                    crew.until("it is refused", () -> !taken.poll().isEmpty());
                    return "records";
                });
            }
            crew.leave(one);
            Member again = crew.join(settings("group.instance.id", "one"));
            crew.settle(Crew.partitions(4, topic));
            Runner.checkEqual(again.assignment(), part, "its partitions after the restart");
            Runner.checkEqual(two.changes, told, "what the other was told");
        }
    }

    private void unknownAssignor() throws Exception {
        String topic = client.fresh("unknown", 1, Map.of());
        try (Member member = new Member(client, client.topicName("group"), List.of(topic), settings("group.remote.assignor", "sticky"))) {
            Runner.expectError(UnsupportedAssignorException.class, () -> {
                for (int n = 0; n < 100; n++) {
                    member.poll();
                }
                return "no refusal";
            });
        }
    }

    /** A rolling change of a group's protocol, and back: all is read, each once. */
    private void migrates() throws Exception {
        String topic = client.fresh("migrate", 4, Map.of());
        client.produceNumbers(topic, 4, 0, 10);
        Map<String, String> classic = Member.assignor(CooperativeStickyAssignor.class);
        try (Crew crew = new Crew(client, topic)) {
            Member old = crew.join(classic);
            crew.untilRead(40);
            old.consumer.commitSync();
            Member newer = crew.join(settings());
            crew.settle(Crew.partitions(4, topic));
            crew.untilStable();
            Runner.checkEqual(crew.described().type(), GroupType.CONSUMER, "type with a member of the new protocol");
            Runner.checkEqual(old.assignment().size(), 2, "partitions of the classic member");
            client.produceNumbers(topic, 4, 10, 20);
            crew.untilRead(80);
            crew.members.forEach(member -> member.consumer.commitSync());
            crew.leave(newer);
            crew.settle(Crew.partitions(4, topic));
            crew.until("the group is stable", () -> crew.described().groupState() == GroupState.STABLE);
            Runner.checkEqual(crew.described().type(), GroupType.CLASSIC, "type without it");
            client.produceNumbers(topic, 4, 20, 30);
            crew.untilRead(120);
            Crew.checkEachOnce(crew.read(), Crew.places(4, 0, 30), "records of all");
        }
    }
}
