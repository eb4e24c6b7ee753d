import java.time.Duration;
import java.util.*;
import java.util.concurrent.atomic.AtomicBoolean;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.common.TopicPartition;

/**
 * One member of a group that reads and commits until its standard input ends.
 *
 *   Member.java BOOTSTRAP GROUP TOPIC STRATEGIES
 *
 * STRATEGIES: class names in org.apache.kafka.clients.consumer, separated by commas; or "kip-848" for the
 * new group protocol, in which the broker assigns.
 * Prints "+ PARTITION" and "- PARTITION" as it gets and loses them, "VALUE" of each record as
 * "= PARTITION VALUE", and "closed" when it has left.
 */
public class Member {
    public static void main(String[] args) throws Exception {
        Map<String, Object> config = new HashMap<>(Map.of(
            "bootstrap.servers", args[0], "group.id", args[1], "client.id", "java",
            "key.deserializer", "org.apache.kafka.common.serialization.StringDeserializer",
            "value.deserializer", "org.apache.kafka.common.serialization.StringDeserializer",
            "auto.offset.reset", "earliest", "enable.auto.commit", "false"));
        if (args[3].equals("kip-848")) {
            config.put("group.protocol", "consumer");
        } else {
            List<String> strategies = new ArrayList<>();
            for (String name : args[3].split(",")) strategies.add("org.apache.kafka.clients.consumer." + name);
            config.put("heartbeat.interval.ms", "500");
            config.put("partition.assignment.strategy", strategies);
        }
        AtomicBoolean stop = new AtomicBoolean();
        Thread input = new Thread(() -> {
            try { while (System.in.read() >= 0) { } } catch (java.io.IOException e) { }
            stop.set(true);
        });
        input.setDaemon(true);
        input.start();
        try (KafkaConsumer<String, String> consumer = new KafkaConsumer<>(config)) {
            consumer.subscribe(List.of(args[2]), new ConsumerRebalanceListener() {
                public void onPartitionsAssigned(Collection<TopicPartition> list) { print("+", list); }
                public void onPartitionsRevoked(Collection<TopicPartition> list) { print("-", list); }
                public void onPartitionsLost(Collection<TopicPartition> list) { print("-", list); }
            });
            while (!stop.get()) {
                ConsumerRecords<String, String> records = consumer.poll(Duration.ofMillis(100));
                for (ConsumerRecord<String, String> r : records) System.out.println("= " + r.partition() + " " + r.value());
                if (!records.isEmpty()) consumer.commitSync();
            }
        }
        System.out.println("closed");
    }

    static void print(String sign, Collection<TopicPartition> list) {
        for (TopicPartition tp : list) System.out.println(sign + " " + tp.partition());
    }
}
