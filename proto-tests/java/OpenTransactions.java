import java.util.*;
import org.apache.kafka.clients.admin.*;

/** OpenTransactions.java BOOTSTRAP: waits until no transaction is open, or being ended. */
public class OpenTransactions {
    public static void main(String[] a) throws Exception {
        var open = new ListTransactionsOptions().filterStates(Set.of(TransactionState.ONGOING,
            TransactionState.PREPARE_COMMIT, TransactionState.PREPARE_ABORT));
        long deadline = System.nanoTime() + 60_000_000_000L;
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", a[0]))) {
            while (true) {
                var listed = admin.listTransactions(open).all().get();
                if (listed.isEmpty()) break;
                if (System.nanoTime() > deadline) throw new IllegalStateException("open: " + listed);
                Thread.sleep(50);
            }
        }
        System.out.println("none");
    }
}
