import java.io.ByteArrayOutputStream;
import java.io.BufferedReader;
import java.io.File;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.Base64;
import org.apache.avro.Schema;
import org.apache.avro.generic.GenericDatumReader;
import org.apache.avro.generic.GenericDatumWriter;
import org.apache.avro.io.BinaryDecoder;
import org.apache.avro.io.DecoderFactory;
import org.apache.avro.io.EncoderFactory;

/**
 * Apache Avro's generic library: datums in base64, and in Avro's JSON encoding, a line each.
 *
 * <pre>
 * Avro.java encode SCHEMA     standard input: JSON     prints base64
 * Avro.java decode SCHEMA     standard input: base64   prints JSON
 * </pre>
 */
public class Avro {
    public static void main(String[] a) throws Exception {
        var schema = new Schema.Parser().parse(new File(a[1]));
        var in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line; (line = in.readLine()) != null; ) {
            System.out.println(a[0].equals("encode") ? encode(schema, line) : decode(schema, line));
        }
    }

    static String encode(Schema schema, String json) throws Exception {
        var datum = new GenericDatumReader<>(schema).read(null, DecoderFactory.get().jsonDecoder(schema, json));
        var out = new ByteArrayOutputStream();
        var encoder = EncoderFactory.get().binaryEncoder(out, null);
        new GenericDatumWriter<>(schema).write(datum, encoder);
        encoder.flush();
        return Base64.getEncoder().encodeToString(out.toByteArray());
    }

    static String decode(Schema schema, String base64) throws Exception {
        BinaryDecoder decoder = DecoderFactory.get().binaryDecoder(Base64.getDecoder().decode(base64), null);
        var datum = new GenericDatumReader<>(schema).read(null, decoder);
        if (!decoder.isEnd()) throw new IllegalStateException("bytes follow the datum");
        var out = new ByteArrayOutputStream();
        var encoder = EncoderFactory.get().jsonEncoder(schema, out);
        new GenericDatumWriter<>(schema).write(datum, encoder);
        encoder.flush();
        return out.toString(StandardCharsets.UTF_8);
    }
}
