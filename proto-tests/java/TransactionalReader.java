import java.time.Duration;
import java.util.*;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.common.*;
import org.apache.kafka.common.serialization.*;

/**
 * TransactionalReader.java BOOTSTRAP TOPIC: prints "partition offset value" of each committed record,
 * from the start. When its input ends it waits until no transaction is open any more, reads on to the
 * end, and prints "end".
 */
public class TransactionalReader {
    public static void main(String[] a) throws Exception {
        var inputEnded = new java.util.concurrent.atomic.AtomicBoolean();
        var watcher = new Thread(() -> {
            try { while (System.in.read() >= 0) { } } catch (java.io.IOException gone) { }
            inputEnded.set(true);
        });
        watcher.setDaemon(true);
        watcher.start();
        Map<String, Object> config = Map.of("bootstrap.servers", a[0], "isolation.level", "read_committed",
            "auto.offset.reset", "earliest", "enable.auto.commit", false);
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", a[0]));
             var consumer = new KafkaConsumer<>(config, new StringDeserializer(), new StringDeserializer())) {
            List<TopicPartition> partitions = consumer.partitionsFor(a[1]).stream()
                .map(p -> new TopicPartition(p.topic(), p.partition())).toList();
            consumer.assign(partitions);
            while (!inputEnded.get()) poll(consumer);
            while (open(admin) > 0) poll(consumer);
            var ends = consumer.endOffsets(partitions);
            while (ends.entrySet().stream().anyMatch(end -> consumer.position(end.getKey()) < end.getValue())) poll(consumer);
        }
        System.out.println("end");
    }

    private static void poll(KafkaConsumer<String, String> consumer) {
        for (var record : consumer.poll(Duration.ofMillis(100))) {
            System.out.println(record.partition() + " " + record.offset() + " " + record.value());
        }
    }

    private static int open(Admin admin) throws Exception {
        var states = Set.of(TransactionState.ONGOING, TransactionState.PREPARE_ABORT, TransactionState.PREPARE_COMMIT);
        try {
            return admin.listTransactions(new ListTransactionsOptions().filterStates(states)).all().get().size();
        } catch (java.util.concurrent.ExecutionException e) {
            return 1;
        }
    }
}
