import java.time.Duration;
import java.util.*;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.*;
import org.apache.kafka.common.serialization.*;

/** Transactions.java BOOTSTRAP: transactions that commit, abort and are fenced, and who sees what of them. */
public class Transactions {
    private static final TopicPartition ZERO = new TopicPartition("txn", 0);
    private static final TopicPartition ONE = new TopicPartition("txn", 1);

    public static void main(String[] a) throws Exception {
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", a[0]));
             var first = producer(a[0]); var second = producer(a[0])) {
            admin.createTopics(List.of(new NewTopic("txn", 2, (short) 1))).all().get();
            first.initTransactions();
            List<String> committed = new ArrayList<>();
            for (int n = 0; n < 20; n++) {
                first.beginTransaction();
                for (int partition = 0; partition < 2; partition++) {
                    first.send(new ProducerRecord<>("txn", partition, "k", "v" + n));
                }
                if (n % 3 == 2) {
                    first.flush();
                    first.abortTransaction();
                } else {
                    first.commitTransaction();
                    committed.addAll(List.of("v" + n, "v" + n));
                }
            }
            first.beginTransaction();
            first.send(new ProducerRecord<>("txn", 0, "k", "open")).get();
            var open = admin.describeTransactions(List.of("id")).description("id").get();
            expect(TransactionState.ONGOING, open.state());
            expect(Set.of(ZERO), open.topicPartitions());
            expect(true, open.transactionStartTimeMs().isPresent());
            expect(1, ongoing(admin));
            expect(committed, read(a[0], "read_committed"));
            second.initTransactions();
            try {
                first.commitTransaction();
                throw new AssertionError("the first producer is not fenced");
            } catch (ProducerFencedException | InvalidProducerEpochException fenced) { }
            expect(0, ongoing(admin));
            second.beginTransaction();
            second.send(new ProducerRecord<>("txn", 1, "k", "after"));
            second.commitTransaction();
            committed.add("after");
            // A commit is answered before its markers are written.
            while (state(admin) != TransactionState.COMPLETE_COMMIT) Thread.onSpinWait();
            expect(committed, read(a[0], "read_committed"));
            expect(true, read(a[0], "read_uncommitted").containsAll(List.of("open", "v2", "after")));
        }
        System.out.println("done");
    }

    private static KafkaProducer<String, String> producer(String bootstrap) {
        Map<String, Object> config = Map.of("bootstrap.servers", bootstrap, "transactional.id", "id",
            "transaction.timeout.ms", 60000, "linger.ms", 0);
        return new KafkaProducer<>(config, new StringSerializer(), new StringSerializer());
    }

    private static TransactionState state(Admin admin) throws Exception {
        return admin.describeTransactions(List.of("id")).description("id").get().state();
    }

    private static int ongoing(Admin admin) throws Exception {
        var open = new ListTransactionsOptions().filterStates(Set.of(TransactionState.ONGOING));
        return admin.listTransactions(open).all().get().size();
    }

    /** All that there is, in the order of writing as far as their numbers tell. */
    private static List<String> read(String bootstrap, String isolation) {
        Map<String, Object> config = Map.of("bootstrap.servers", bootstrap, "isolation.level", isolation,
            "auto.offset.reset", "earliest", "enable.auto.commit", false);
        List<String> values = new ArrayList<>();
        long deadline = System.nanoTime() + 40_000_000_000L;
        try (var consumer = new KafkaConsumer<>(config, new StringDeserializer(), new StringDeserializer())) {
            consumer.assign(List.of(ZERO, ONE));
            consumer.seekToBeginning(List.of(ZERO, ONE));
            var ends = consumer.endOffsets(List.of(ZERO, ONE));
            while (ends.entrySet().stream().anyMatch(end -> consumer.position(end.getKey()) < end.getValue())) {
                for (var record : consumer.poll(Duration.ofMillis(50))) values.add(record.value());
                if (System.nanoTime() > deadline) throw new IllegalStateException("only " + values);
            }
        }
        values.sort(Comparator.comparingInt(value -> value.startsWith("v") ? Integer.parseInt(value.substring(1)) : 99));
        return values;
    }

    private static void expect(Object expected, Object found) {
        if (!Objects.equals(expected, found)) throw new AssertionError(expected + " expected, not " + found);
    }
}
