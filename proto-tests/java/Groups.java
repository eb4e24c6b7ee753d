import java.util.*;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.common.GroupState;
import org.apache.kafka.common.TopicPartition;

/**
 * Asks about consumer groups.
 *
 *   Groups.java BOOTSTRAP offsets GROUP TOPIC      prints "PARTITION OFFSET" of what is committed
 *   Groups.java BOOTSTRAP members GROUP            prints "MEMBER INSTANCE CLIENT PARTITIONS"
 *   Groups.java BOOTSTRAP stable PREFIX            prints how many groups whose name starts so are stable
 */
public class Groups {
    public static void main(String[] args) throws Exception {
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", args[0]))) {
            switch (args[1]) {
                case "offsets" -> admin.listConsumerGroupOffsets(args[2])
                    .partitionsToOffsetAndMetadata().get(30, TimeUnit.SECONDS).entrySet().stream()
                    .filter(e -> e.getKey().topic().equals(args[3]) && e.getValue() != null)
                    .sorted(Comparator.comparing(e -> e.getKey().partition()))
                    .forEach(e -> System.out.println(e.getKey().partition() + " " + e.getValue().offset()));
                case "members" -> admin.describeConsumerGroups(List.of(args[2]))
                    .all().get(30, TimeUnit.SECONDS).get(args[2]).members()
                    .forEach(m -> System.out.println(m.consumerId() + " " + m.groupInstanceId().orElse("-")
                        + " " + m.clientId() + " " + m.assignment().topicPartitions().size()));
                case "stable" -> {
                    var stable = new ListGroupsOptions().inGroupStates(Set.of(GroupState.STABLE));
                    System.out.println(admin.listGroups(stable).all().get(30, TimeUnit.SECONDS).stream()
                        .filter(g -> g.groupId().startsWith(args[2])).count());
                }
                default -> throw new IllegalArgumentException(args[1]);
            }
        }
    }
}
