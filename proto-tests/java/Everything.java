import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.*;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.*;

/** Everything.java BOOTSTRAP: administration, an idempotent producer and a group of two, once. */
public class Everything {
    public static void main(String[] a) throws Exception {
        Map<String, Object> common = Map.of("bootstrap.servers", a[0]);
        try (Admin admin = Admin.create(common)) {
            admin.createTopics(List.of(new NewTopic("java", 4, (short) 1))).all().get();
            produce(a[0]);
            consume(a[0], 1000);
            TopicPartition tp = new TopicPartition("java", 0);
            var positions = admin.listConsumerGroupOffsets("java-group").partitionsToOffsetAndMetadata().get();
            expect(1000L, positions.values().stream().mapToLong(OffsetAndMetadata::offset).sum());
            var found = admin.listOffsets(Map.of(tp, OffsetSpec.maxTimestamp())).partitionResult(tp).get();
            expect(true, found.offset() >= 0 && found.timestamp() >= 1000);
            var groups = admin.listGroups().all().get();
            expect(true, groups.stream().anyMatch(g -> g.groupId().equals("java-group")));
            expect(0, admin.describeConsumerGroups(List.of("java-group")).all().get().get("java-group").members().size());
            admin.deleteRecords(Map.of(tp, RecordsToDelete.beforeOffset(5))).all().get();
            var first = admin.listOffsets(Map.of(tp, OffsetSpec.earliest())).partitionResult(tp).get();
            expect(5L, first.offset());
            admin.createPartitions(Map.of("java", NewPartitions.increaseTo(5))).all().get();
            expect(5, admin.describeTopics(List.of("java")).allTopicNames().get().get("java").partitions().size());
            admin.deleteConsumerGroups(List.of("java-group")).all().get();
            admin.deleteTopics(List.of("java")).all().get();
            expect(true, admin.listTopics().names().get().isEmpty());
        }
        System.out.println("done");
    }

    private static void produce(String bootstrap) throws Exception {
        Map<String, Object> config = Map.of("bootstrap.servers", bootstrap, "enable.idempotence", true,
            "compression.type", "gzip", "linger.ms", 5);
        try (var producer = new KafkaProducer<>(config, new StringSerializer(), new StringSerializer())) {
            List<java.util.concurrent.Future<RecordMetadata>> sent = new ArrayList<>();
            for (int n = 0; n < 1000; n++) {
                var record = new ProducerRecord<>("java", null, 1000L + n, "k" + n, n % 7 == 0 ? null : "v" + n);
                record.headers().add("n", Integer.toString(n).getBytes(StandardCharsets.UTF_8));
                sent.add(producer.send(record));
            }
            for (var s : sent) expect(true, s.get().offset() >= 0);
        }
    }

    private static void consume(String bootstrap, int count) {
        Map<String, Object> config = Map.of("bootstrap.servers", bootstrap, "group.id", "java-group",
            "auto.offset.reset", "earliest", "enable.auto.commit", false);
        Set<String> seen = new HashSet<>();
        long deadline = System.nanoTime() + 40_000_000_000L;
        try (var one = new KafkaConsumer<>(config, new StringDeserializer(), new StringDeserializer());
             var two = new KafkaConsumer<>(config, new StringDeserializer(), new StringDeserializer())) {
            one.subscribe(List.of("java"));
            two.subscribe(List.of("java"));
            while (one.assignment().size() != 2 || two.assignment().size() != 2 || seen.size() < count) {
                for (var consumer : List.of(one, two)) {
                    for (var record : consumer.poll(Duration.ofMillis(50))) {
                        int n = Integer.parseInt(record.key().substring(1));
                        expect(n % 7 == 0 ? null : "v" + n, record.value());
                        expect(1000L + n, record.timestamp());
                        expect(Integer.toString(n), new String(record.headers().lastHeader("n").value(), StandardCharsets.UTF_8));
                        seen.add(record.key());
                    }
                    try { consumer.commitSync(); } catch (CommitFailedException | org.apache.kafka.common.errors.RebalanceInProgressException e) { }
                }
                if (System.nanoTime() > deadline) throw new IllegalStateException("only " + seen.size() + " records");
            }
            var times = one.offsetsForTimes(Map.of(new TopicPartition("java", 1), 1500L));
            expect(true, times.get(new TopicPartition("java", 1)).timestamp() >= 1500L);
        }
    }

    private static void expect(Object expected, Object found) {
        if (!Objects.equals(expected, found)) throw new AssertionError(expected + " expected, not " + found);
    }
}
