import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.Callable;
import java.util.stream.Collectors;
import org.apache.kafka.clients.admin.ConsumerGroupDescription;
import org.apache.kafka.clients.admin.ListGroupsOptions;
import org.apache.kafka.clients.admin.MemberToRemove;
import org.apache.kafka.clients.admin.RemoveMembersFromConsumerGroupOptions;
import org.apache.kafka.clients.consumer.CommitFailedException;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.common.GroupState;
import org.apache.kafka.common.KafkaFuture;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.GroupIdNotFoundException;
import org.apache.kafka.common.errors.GroupNotEmptyException;
import org.apache.kafka.common.errors.GroupSubscribedToTopicException;
import org.apache.kafka.common.errors.UnknownMemberIdException;

/** The admin client's calls about consumer groups. */
final class GroupAdmin {
    private final Client client;
    private final Runner runner;

    private GroupAdmin(Client client, Runner runner) {
        this.client = client;
        this.runner = runner;
    }

    static void addTo(Runner runner, Client client) {
        new GroupAdmin(client, runner).cases();
    }

    private Object alter(String group, String topic, Map<Integer, Long> offsets) throws Exception {
        Map<TopicPartition, OffsetAndMetadata> wanted = offsets.entrySet().stream().collect(Collectors.toMap(
            entry -> new TopicPartition(topic, entry.getKey()), entry -> new OffsetAndMetadata(entry.getValue())));
        return Client.get(client.admin.alterConsumerGroupOffsets(group, wanted).all());
    }

    private Object delete(String group) throws Exception {
        return Client.get(client.admin.deleteConsumerGroups(List.of(group)).all());
    }

    private void untilEmpty(String group) throws Exception {
        Runner.eventually(() -> client.describeGroup(group).groupState(), GroupState.EMPTY, "state");
    }

    private Object remove(String group, MemberToRemove member) throws Exception {
        var options = new RemoveMembersFromConsumerGroupOptions(List.of(member));
        return Client.get(client.admin.removeMembersFromConsumerGroup(group, options).memberResult(member));
    }

    private void cases() {
        runner.add("group_is_listed_and_described", this::described);
        runner.add("group_offsets_are_altered", () -> {
            String topic = client.fresh("alter", 2, Map.of());
            client.produceNumbers(topic, 2, 0, 10);
            try (Crew crew = new Crew(client, topic)) {
                Runner.checkEqual(client.committed(crew.group), Map.of(), "of an unknown group");
                alter(crew.group, topic, Map.of(0, 3L, 1, 10L));
                Runner.checkEqual(client.committed(crew.group), Map.of(0, 3L, 1, 10L), "offsets");
                crew.leave(crew.joinAndRead(7));
                Crew.checkEachOnce(crew.read(), Crew.places(1, 3, 10), "what was read");
                crew.joinAndRead(14);
                Runner.expectError(UnknownMemberIdException.class, () -> alter(crew.group, topic, Map.of(0, 0L)));
                Runner.checkEqual(client.committed(crew.group), Map.of(0, 3L, 1, 10L), "offsets after the refusal");
            }
        });
        runner.add("group_is_deleted", () -> {
            String topic = client.fresh("delete");
            client.produceNumbers(topic, 1, 0, 5);
            try (Crew crew = new Crew(client, topic)) {
                Member member = crew.joinAndRead(5);
                member.consumer.commitSync();
                Runner.expectError(GroupNotEmptyException.class, () -> delete(crew.group));
                crew.leave(member);
                untilEmpty(crew.group);
                delete(crew.group);
                Runner.check(client.listedGroup(crew.group).isEmpty(), "it is not listed");
                Runner.checkEqual(client.committed(crew.group), Map.of(), "offsets");
                Runner.expectError(GroupIdNotFoundException.class, () -> delete(crew.group));
                crew.joinAndRead(10);
            }
        });
        runner.add("group_offsets_are_deleted", this::offsetsDeleted);
        runner.add("group_of_several_is_deleted", () -> {
            String topic = client.fresh("several");
            List<String> groups = List.of(client.topicName("group"), client.topicName("none"), client.topicName("group"));
            alter(groups.get(0), topic, Map.of(0, 1L));
            alter(groups.get(2), topic, Map.of(0, 2L));
            Map<String, KafkaFuture<Void>> deleted = client.admin.deleteConsumerGroups(groups).deletedGroups();
            Client.get(deleted.get(groups.get(0)));
            Runner.expectError(GroupIdNotFoundException.class, () -> Client.get(deleted.get(groups.get(1))));
            Client.get(deleted.get(groups.get(2)));
        });
        runner.add("group_static_member_is_removed", () -> {
            String topic = client.fresh("removed", 2, Map.of());
            try (Crew crew = new Crew(client, topic)) {
                Member one = crew.join(Map.of("group.instance.id", "one"));
                crew.join(Map.of("group.instance.id", "two"));
                crew.settle(Crew.partitions(2, topic));
                crew.leave(one);
                remove(crew.group, new MemberToRemove("one"));
                crew.settle(Crew.partitions(2, topic));
                Runner.expectError(UnknownMemberIdException.class, () -> remove(crew.group, new MemberToRemove("three")));
            }
        });
        runner.add("group_member_that_was_removed", () -> {
            String topic = client.fresh("removed");
            client.produceNumbers(topic, 1, 0, 5);
            try (Crew crew = new Crew(client, topic)) {
                Member member = crew.joinAndRead(5);
                // Without members named, all are.
                Client.get(client.admin.removeMembersFromConsumerGroup(
                    crew.group, new RemoveMembersFromConsumerGroupOptions()).all());
                Runner.expectError(CommitFailedException.class, () -> {
                    member.consumer.commitSync();
                    return "a commit";
                });
                // It comes back by itself, and reads again what it did not commit.
                crew.untilRead(10);
                member.consumer.commitSync();
            }
        });
    }

    private void described() throws Exception {
        String topic = client.fresh("describe", 4, Map.of());
        try (Crew crew = new Crew(client, topic)) {
            Runner.check(client.listedGroup(crew.group).isEmpty(), "the group is not there");
            Runner.expectError(GroupIdNotFoundException.class, crew::described);
            List<Member> both = List.of(crew.join(Map.of("client.id", "a")), crew.join(Map.of("client.id", "b")));
            crew.settle(Crew.partitions(4, topic));
            crew.untilStable();
            ConsumerGroupDescription found = crew.described();
            Runner.checkEqual(found.isSimpleConsumerGroup(), false, "whether it is without members");
            for (var member : found.members()) {
                Member of = both.get(member.clientId().equals("a") ? 0 : 1);
                Runner.checkEqual(member.consumerId(), of.consumer.groupMetadata().memberId(), "id");
                Runner.checkEqual(Member.names(member.assignment().topicPartitions()), of.assignment(), "assignment");
                Runner.checkEqual(member.host(), "/127.0.0.1", "host");
            }
            Runner.checkEqual(found.members().size(), 2, "members");
            var listed = client.listedGroup(crew.group).orElseThrow();
            Runner.checkEqual(listed.groupState(), Optional.of(GroupState.STABLE), "state in the list");
            both.get(0).consumer.commitSync();
            both.forEach(crew::leave);
            untilEmpty(crew.group);
            var empty = new ListGroupsOptions().inGroupStates(Set.of(GroupState.EMPTY));
            Runner.check(Client.get(client.admin.listGroups(empty).all()).stream()
                .anyMatch(listing -> listing.groupId().equals(crew.group)), "it is listed among the empty ones");
            var stable = new ListGroupsOptions().inGroupStates(Set.of(GroupState.STABLE));
            Runner.check(Client.get(client.admin.listGroups(stable).all()).stream()
                .noneMatch(listing -> listing.groupId().equals(crew.group)), "it is not listed among the stable ones");
        }
    }

    private void offsetsDeleted() throws Exception {
        String topic = client.fresh("forget", 2, Map.of());
        TopicPartition tp = new TopicPartition(topic, 0);
        client.produceNumbers(topic, 2, 0, 5);
        try (Crew crew = new Crew(client, topic)) {
            Callable<Object> delete =
                () -> Client.get(client.admin.deleteConsumerGroupOffsets(crew.group, Set.of(tp)).partitionResult(tp));
            Runner.expectError(GroupIdNotFoundException.class, delete);
            Member member = crew.joinAndRead(10);
            member.consumer.commitSync();
            Runner.expectError(GroupSubscribedToTopicException.class, delete);
            crew.leave(member);
            untilEmpty(crew.group);
            delete.call();
            Runner.checkEqual(client.committed(crew.group), Map.of(1, 5L), "offsets");
        }
    }
}
