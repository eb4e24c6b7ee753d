import java.util.Map;
import org.apache.kafka.clients.admin.Admin;

/** Committed.java BOOTSTRAP GROUP: prints "partition offset" of what the group has committed, for ever, then "." */
public class Committed {
    public static void main(String[] a) throws Exception {
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", a[0], "request.timeout.ms", 5000))) {
            while (!System.out.checkError()) {
                try {
                    var offsets = admin.listConsumerGroupOffsets(a[1]).partitionsToOffsetAndMetadata().get();
                    offsets.forEach((tp, o) -> {
                        if (o != null) System.out.println(tp.partition() + " " + o.offset());
                    });
                } catch (java.util.concurrent.ExecutionException e) {
                    // A broker is down: the next answer counts.
                }
                System.out.println(".");
                Thread.sleep(200);
            }
        }
    }
}
