import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.Base64;
import org.apache.kafka.common.serialization.*;

/**
 * Serialize.java: standard input: FORMAT LITERAL, the literal as base64 of its UTF-8; prints, as
 * base64, the bytes that Kafka's serializer of that name makes of it.
 */
public class Serialize {
    public static void main(String[] a) throws Exception {
        var in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        var out = new StringBuilder();
        for (String line; (line = in.readLine()) != null; ) {
            int space = line.indexOf(' ');
            byte[] bytes = Base64.getDecoder().decode(line.substring(space + 1));
            byte[] value = serialize(line.substring(0, space), bytes, new String(bytes, StandardCharsets.UTF_8));
            out.append(Base64.getEncoder().encodeToString(value)).append('\n');
        }
        System.out.print(out);
    }

    private static byte[] serialize(String format, byte[] bytes, String text) {
        return switch (format) {
            case "short" -> new ShortSerializer().serialize("t", Short.valueOf(text));
            case "int" -> new IntegerSerializer().serialize("t", Integer.valueOf(text));
            case "long" -> new LongSerializer().serialize("t", Long.valueOf(text));
            case "float" -> new FloatSerializer().serialize("t", Float.valueOf(text));
            case "double" -> new DoubleSerializer().serialize("t", Double.valueOf(text));
            case "string", "json" -> new StringSerializer().serialize("t", text);
            default -> new ByteArraySerializer().serialize("t", bytes);
        };
    }
}
