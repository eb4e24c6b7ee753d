import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Base64;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.*;

/**
 * Apache Kafka's own client, to check records byte for byte. Fields are separated by tabs; bytes
 * are base64, null is "-".
 *
 * <pre>
 * Records.java BOOTSTRAP dump TOPIC COUNT            partition offset timestamp key value [header value]...
 * Records.java BOOTSTRAP put TOPIC CODEC             standard input: partition timestamp key value [header value]...
 * Records.java BOOTSTRAP read TOPIC COUNT TYPE       values, as Java's deserializer of TYPE prints them
 * Records.java BOOTSTRAP write TOPIC TYPE LITERAL... values, by Java's serializer of TYPE
 * </pre>
 */
public class Records {
    public static void main(String[] a) throws Exception {
        switch (a[1]) {
            case "dump" -> dump(a[0], a[2], Integer.parseInt(a[3]));
            case "put" -> put(a[0], a[2], a[3]);
            case "read" -> read(a[0], a[2], Integer.parseInt(a[3]), deserializer(a[4]));
            case "write" -> write(a[0], a[2], a[3], List.of(a).subList(4, a.length));
            default -> throw new IllegalArgumentException(a[1]);
        }
    }

    static void dump(String bootstrap, String topic, int count) {
        for (var r : all(bootstrap, topic, count, new ByteArrayDeserializer())) {
            var line = new StringBuilder();
            line.append(r.partition()).append('\t').append(r.offset()).append('\t').append(r.timestamp());
            line.append('\t').append(text(r.key())).append('\t').append(text(r.value()));
            for (Header h : r.headers()) line.append('\t').append(h.key()).append('\t').append(text(h.value()));
            System.out.println(line);
        }
    }

    static void put(String bootstrap, String topic, String codec) throws Exception {
        var in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        var config = config(bootstrap);
        config.put("compression.type", codec);
        config.put("linger.ms", 50);
        try (var producer = new KafkaProducer<>(config, new ByteArraySerializer(), new ByteArraySerializer())) {
            for (String line; (line = in.readLine()) != null; ) {
                String[] f = line.split("\t");
                var record = new ProducerRecord<>(topic, Integer.parseInt(f[0]), Long.parseLong(f[1]), bytes(f[2]), bytes(f[3]));
                for (int i = 4; i < f.length; i += 2) record.headers().add(f[i], bytes(f[i + 1]));
                producer.send(record);
            }
        }
    }

    static <T> void read(String bootstrap, String topic, int count, Deserializer<T> type) {
        for (var r : all(bootstrap, topic, count, type)) System.out.println(r.value());
    }

    static void write(String bootstrap, String topic, String type, List<String> literals) throws Exception {
        try (var producer = new KafkaProducer<>(config(bootstrap), new ByteArraySerializer(), new ByteArraySerializer())) {
            for (String s : literals) {
                byte[] value = switch (type) {
                    case "short" -> new ShortSerializer().serialize(topic, Short.valueOf(s));
                    case "int" -> new IntegerSerializer().serialize(topic, Integer.valueOf(s));
                    case "long" -> new LongSerializer().serialize(topic, Long.valueOf(s));
                    case "float" -> new FloatSerializer().serialize(topic, Float.valueOf(s));
                    case "double" -> new DoubleSerializer().serialize(topic, Double.valueOf(s));
                    default -> new StringSerializer().serialize(topic, s);
                };
                producer.send(new ProducerRecord<>(topic, 0, null, value)).get();
            }
        }
    }

    static Deserializer<?> deserializer(String type) {
        return switch (type) {
            case "short" -> new ShortDeserializer();
            case "int" -> new IntegerDeserializer();
            case "long" -> new LongDeserializer();
            case "float" -> new FloatDeserializer();
            case "double" -> new DoubleDeserializer();
            default -> new StringDeserializer();
        };
    }

    static <T> List<ConsumerRecord<byte[], T>> all(String bootstrap, String topic, int count, Deserializer<T> value) {
        var records = new ArrayList<ConsumerRecord<byte[], T>>();
        long deadline = System.nanoTime() + 60_000_000_000L;
        try (var consumer = new KafkaConsumer<>(config(bootstrap), new ByteArrayDeserializer(), value)) {
            var partitions = consumer.partitionsFor(topic).stream().map(p -> new TopicPartition(topic, p.partition())).toList();
            consumer.assign(partitions);
            consumer.seekToBeginning(partitions);
            while (records.size() < count) {
                if (System.nanoTime() > deadline) throw new IllegalStateException(records.size() + " of " + count + " records");
                for (var r : consumer.poll(Duration.ofMillis(200))) records.add(r);
            }
        }
        return records;
    }

    static Map<String, Object> config(String bootstrap) {
        return new HashMap<>(Map.of("bootstrap.servers", bootstrap));
    }

    static String text(byte[] b) {
        return b == null ? "-" : Base64.getEncoder().encodeToString(b);
    }

    static byte[] bytes(String s) {
        return s.equals("-") ? null : Base64.getDecoder().decode(s);
    }
}
