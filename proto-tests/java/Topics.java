import java.util.List;
import java.util.Map;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;

/** Topics.java BOOTSTRAP create NAME PARTITIONS REPLICATION | delete NAME | recreate NAME | grow NAME PARTITIONS | size NAME */
public class Topics {
    public static void main(String[] a) throws Exception {
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", a[0]))) {
            switch (a[1]) {
                case "create" -> {
                    int partitions = Integer.parseInt(a[3]);
                    short replication = Short.parseShort(a[4]);
                    NewTopic topic = new NewTopic(a[2], partitions, replication);
                    topic.configs(Map.of("min.insync.replicas", replication > 2 ? "2" : "1"));
                    admin.createTopics(List.of(topic)).all().get();
                    awaitLeaders(admin, a[2], partitions);
                }
                case "delete" -> admin.deleteTopics(List.of(a[2])).all().get();
                // Deletes a topic and creates it again when it is told to by a byte.
                case "recreate" -> {
                    admin.describeTopics(List.of(a[2])).allTopicNames().get();
                    System.out.println("ready");
                    System.in.read();
                    admin.deleteTopics(List.of(a[2])).all().get();
                    while (true) {
                        try {
                            admin.createTopics(List.of(new NewTopic(a[2], 1, (short) 1))).all().get();
                            break;
                        } catch (java.util.concurrent.ExecutionException e) {
                            if (!(e.getCause() instanceof org.apache.kafka.common.errors.TopicExistsException)) throw e;
                        }
                    }
                    awaitLeaders(admin, a[2], 1);
                }
                case "grow" -> {
                    int partitions = Integer.parseInt(a[3]);
                    admin.createPartitions(Map.of(a[2], NewPartitions.increaseTo(partitions))).all().get();
                    awaitLeaders(admin, a[2], partitions);
                }
                case "size" -> {
                    long size = 0;
                    for (var broker : admin.describeLogDirs(List.of(1)).allDescriptions().get().values())
                        for (var dir : broker.values())
                            for (var replica : dir.replicaInfos().entrySet())
                                if (replica.getKey().topic().equals(a[2])) size += replica.getValue().size();
                    System.out.println(size);
                }
                default -> throw new IllegalArgumentException(a[1]);
            }
        }
    }

    private static void awaitLeaders(Admin admin, String topic, int partitions) throws Exception {
        long deadline = System.nanoTime() + 30_000_000_000L;
        while (true) {
            try {
                var known = admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic).partitions();
                if (known.size() == partitions && known.stream().allMatch(p -> p.leader() != null)) return;
            } catch (java.util.concurrent.ExecutionException e) {
                if (System.nanoTime() > deadline) throw e;
            }
            if (System.nanoTime() > deadline) throw new IllegalStateException("no leaders for " + topic);
            Thread.sleep(50);
        }
    }
}
