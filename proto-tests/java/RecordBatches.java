// Record batches as Kafka's own client writes and reads them.
//
//   java -cp "$(scripts/kafka jars 3.9)/*" proto-tests/java/RecordBatches.java write DIR
//   java -cp "$(scripts/kafka jars 3.9)/*" proto-tests/java/RecordBatches.java describe DIR
//
// `write` makes the fixtures of proto-tests/golden/records: NAME.bin, and in NAME.txt what this
// client reads from it. `describe` prints the same description of every NAME.bin in DIR, which
// may come from anyone. 3.9 is the last version that can write magic 0 and 1 compressed.

import java.io.IOException;
import java.io.PrintStream;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HexFormat;
import java.util.List;
import java.util.zip.CRC32C;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.compress.Compression;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.message.LeaderChangeMessage;
import org.apache.kafka.common.record.*;
import org.apache.kafka.common.record.Record;
import org.apache.kafka.common.utils.BufferSupplier;

public class RecordBatches {
    static final long T = 1_700_000_000_000L;
    static final long DAY = 24 * 60 * 60 * 1000L;

    public static void main(String[] args) throws IOException {
        Path dir = Path.of(args[1]);
        if (args[0].equals("write")) {
            write(dir);
        } else {
            for (Path file : bins(dir)) {
                System.out.println("file " + file.getFileName());
                describe(Files.readAllBytes(file), System.out);
            }
        }
    }

    // Every case that a reader has to tell apart.
    static SimpleRecord[] samples() {
        return new SimpleRecord[] {
            new SimpleRecord(T, bytes("key"), bytes("value")),
            new SimpleRecord(T, (byte[]) null, bytes("no key")),
            new SimpleRecord(T + 1, bytes("tombstone"), null),
            new SimpleRecord(T + 2, (byte[]) null, (byte[]) null),
            new SimpleRecord(T + 3, bytes(""), bytes("")),
            new SimpleRecord(T + 4, bytes("headers"), bytes("v"), new Header[] {
                header("a", "1"), header("a", "2"), header("null", null), header("", ""),
                header("\u00fc\u4e16\ud83d\ude00", "non-ASCII"),
            }),
            new SimpleRecord(T + 25 * DAY, bytes("late"), bytes("more than 2^31 ms after the first")),
            new SimpleRecord(T - 30 * DAY, bytes("early"), bytes("before the first")),
            new SimpleRecord(T, bytes("long"), bytes("0123456789".repeat(30))),
        };
    }

    static void write(Path dir) throws IOException {
        for (CompressionType codec : CompressionType.values()) {
            String name = codec.name;
            put(dir, name, MemoryRecords.withRecords(RecordBatch.MAGIC_VALUE_V2, 40,
                of(codec), TimestampType.CREATE_TIME, 1L << 33, (short) 7, 1234, 5, false, samples()));
            if (codec != CompressionType.NONE) {
                put(dir, name + "-big", MemoryRecords.withRecords(0, of(codec), big()));
            }
            if (codec == CompressionType.ZSTD) continue;
            for (byte magic = 0; magic <= 1; magic++) {
                put(dir, "magic" + magic + "-" + name, old(magic, codec, 10, TimestampType.CREATE_TIME));
                put(dir, "magic" + magic + "-" + name + "-compacted",
                    compact(old(magic, codec, 10, TimestampType.CREATE_TIME), 0, 2));
            }
            put(dir, "magic1-" + name + "-append-time",
                old((byte) 1, codec, 10, TimestampType.LOG_APPEND_TIME));
        }
        put(dir, "unstamped", MemoryRecords.withRecords(Compression.NONE, samples()));
        put(dir, "append-time", appendTime());
        put(dir, "transactions", transactions());
        put(dir, "compacted", compacted());
        put(dir, "leader-change", MemoryRecords.withLeaderChangeMessage(3, T, 9,
            ByteBuffer.allocate(512), new LeaderChangeMessage()));
        put(dir, "mixed", join(
            old((byte) 0, CompressionType.NONE, 0, TimestampType.CREATE_TIME),
            old((byte) 0, CompressionType.GZIP, 10, TimestampType.CREATE_TIME),
            old((byte) 1, CompressionType.NONE, 20, TimestampType.CREATE_TIME),
            old((byte) 1, CompressionType.SNAPPY, 30, TimestampType.LOG_APPEND_TIME),
            MemoryRecords.withRecords(40L, of(CompressionType.LZ4), samples()),
            MemoryRecords.withRecords(50L, Compression.NONE, samples())));
    }

    // Several blocks of every codec, some of which do not compress.
    static SimpleRecord[] big() {
        byte[] noise = new byte[3000];
        int seed = 1;
        for (int i = 0; i < noise.length; i++) {
            seed = seed * 1664525 + 1013904223;
            noise[i] = (byte) (seed >> 24);
        }
        SimpleRecord[] records = new SimpleRecord[60];
        for (int i = 0; i < records.length; i++) {
            byte[] value = i == 30 ? noise : bytes(("{\"n\":" + i + ",\"text\":\"again\"}").repeat(150));
            records[i] = new SimpleRecord(T + i, bytes("k" + i), value);
        }
        return records;
    }

    static MemoryRecords old(byte magic, CompressionType codec, long base, TimestampType type) {
        MemoryRecordsBuilder builder = MemoryRecords.builder(ByteBuffer.allocate(4096), magic, of(codec),
            magic == 0 ? TimestampType.NO_TIMESTAMP_TYPE : type, base, T + 99);
        int n = 0;
        for (SimpleRecord r : samples()) {
            if (r.headers().length > 0) continue;
            builder.append(magic == 0 ? -1 : T + n++, r.key(), r.value());
        }
        return builder.build();
    }

    static MemoryRecords appendTime() {
        MemoryRecordsBuilder builder = MemoryRecords.builder(ByteBuffer.allocate(4096), (byte) 2,
            of(CompressionType.GZIP), TimestampType.LOG_APPEND_TIME, 0, T + 99);
        for (SimpleRecord r : samples()) builder.append(r);
        return builder.build();
    }

    // Producers 1 and 2; 1 aborts at 4 and 13, commits at 9; 2 commits at 12.
    static MemoryRecords transactions() {
        return join(
            transactional(1, 0), transactional(2, 2), marker(1, 4, ControlRecordType.ABORT),
            transactional(1, 5),
            MemoryRecords.withRecords(7L, Compression.NONE, pair()),
            marker(1, 9, ControlRecordType.COMMIT),
            transactional(1, 10), marker(2, 12, ControlRecordType.COMMIT),
            marker(1, 13, ControlRecordType.ABORT));
    }

    static MemoryRecords transactional(long producer, long base) {
        return MemoryRecords.withTransactionalRecords(base, Compression.NONE, producer, (short) 0, 0, 1, pair());
    }

    static MemoryRecords marker(long producer, long offset, ControlRecordType type) {
        return MemoryRecords.withEndTransactionMarker(offset, T, 1, producer, (short) 0,
            new EndTransactionMarker(type, 3));
    }

    static SimpleRecord[] pair() {
        return new SimpleRecord[] {
            new SimpleRecord(T, bytes("a"), bytes("1")), new SimpleRecord(T + 1, bytes("b"), bytes("2")),
        };
    }

    // What the log cleaner leaves: holes, a lost tail, an empty batch, delete horizons.
    static MemoryRecords compacted() {
        MemoryRecords full = join(
            MemoryRecords.withRecords(0L, Compression.NONE, samples()),
            MemoryRecords.withRecords(9L, of(CompressionType.ZSTD), samples()),
            MemoryRecords.withIdempotentRecords(18L, Compression.NONE, 5L, (short) 0, 0, 1, pair()),
            marker(5, 20, ControlRecordType.COMMIT));
        return compact(full, 1, 2, 4, 11, 15);
    }

    static MemoryRecords compact(MemoryRecords full, long... keep) {
        ByteBuffer out = ByteBuffer.allocate(1 << 16);
        full.filterTo(new TopicPartition("t", 0), new MemoryRecords.RecordFilter(T, DAY) {
            protected BatchRetentionResult checkBatchRetention(RecordBatch batch) {
                BatchRetention retention = batch.magic() < 2 ? BatchRetention.DELETE_EMPTY : BatchRetention.RETAIN_EMPTY;
                return new BatchRetentionResult(retention, batch.isControlBatch());
            }

            protected boolean shouldRetainRecord(RecordBatch batch, Record record) {
                long first = full.batches().iterator().next().magic() < 2 ? 10 : 0;
                return batch.isControlBatch()
                    || Arrays.stream(keep).anyMatch(o -> o + first == record.offset());
            }
        }, out, Integer.MAX_VALUE, BufferSupplier.NO_CACHING);
        out.flip();
        return MemoryRecords.readableRecords(out);
    }

    static void put(Path dir, String name, MemoryRecords records) throws IOException {
        byte[] bytes = array(records);
        Files.write(dir.resolve(name + ".bin"), bytes);
        try (PrintStream out = new PrintStream(dir.resolve(name + ".txt").toFile(), StandardCharsets.UTF_8)) {
            describe(bytes, out);
        }
    }

    static void describe(byte[] bytes, PrintStream out) {
        for (RecordBatch batch : MemoryRecords.readableRecords(ByteBuffer.wrap(bytes)).batches()) {
            batch.ensureValid();
            if (batch.magic() == 2) {
                out.printf("batch %d..%d epoch=%d count=%d codec=%s type=%s max=%d producer=%d/%d/%d%s%s%n",
                    batch.baseOffset(), batch.lastOffset(), batch.partitionLeaderEpoch(),
                    batch.countOrNull(), batch.compressionType().name,
                    batch.timestampType() == TimestampType.LOG_APPEND_TIME ? "append" : "create",
                    batch.maxTimestamp(), batch.producerId(), batch.producerEpoch(), batch.baseSequence(),
                    batch.isTransactional() ? " transactional" : "", batch.isControlBatch() ? " control" : "");
            }
            if (batch.isControlBatch()) continue;
            for (Record record : batch) {
                record.ensureValid();
                out.printf("record %d %d %s %s", record.offset(), record.timestamp(),
                    text(record.key()), text(record.value()));
                for (Header header : record.headers()) {
                    out.printf(" %s=%s", text(ByteBuffer.wrap(bytes(header.key()))),
                        text(header.value() == null ? null : ByteBuffer.wrap(header.value())));
                }
                out.println();
            }
        }
    }

    // Hexadecimal; what is long is its length and checksum.
    static String text(ByteBuffer buffer) {
        if (buffer == null) return "null";
        byte[] bytes = new byte[buffer.remaining()];
        buffer.get(bytes);
        if (bytes.length <= 64) return "x" + HexFormat.of().formatHex(bytes);
        CRC32C crc = new CRC32C();
        crc.update(bytes);
        return bytes.length + ":" + String.format("%08x", crc.getValue());
    }

    static List<Path> bins(Path dir) throws IOException {
        try (var files = Files.list(dir)) {
            return files.filter(f -> f.toString().endsWith(".bin")).sorted().toList();
        }
    }

    static Compression of(CompressionType codec) {
        return Compression.of(codec).build();
    }

    static Header header(String key, String value) {
        return new RecordHeader(key, value == null ? null : bytes(value));
    }

    static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    static byte[] array(MemoryRecords records) {
        ByteBuffer buffer = records.buffer().duplicate();
        byte[] bytes = new byte[buffer.remaining()];
        buffer.get(bytes);
        return bytes;
    }

    static MemoryRecords join(MemoryRecords... parts) {
        ByteBuffer out = ByteBuffer.allocate(1 << 16);
        for (MemoryRecords part : parts) out.put(part.buffer().duplicate());
        out.flip();
        return MemoryRecords.readableRecords(out);
    }
}
