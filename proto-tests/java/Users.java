import java.util.List;
import java.util.Map;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.ScramMechanism;
import org.apache.kafka.clients.admin.UserScramCredentialDeletion;

/** Users.java BOOTSTRAP forget NAME: the name can authenticate with SCRAM-SHA-256 no more. */
public class Users {
    public static void main(String[] a) throws Exception {
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", a[0]))) {
            var gone = new UserScramCredentialDeletion(a[2], ScramMechanism.SCRAM_SHA_256);
            admin.alterUserScramCredentials(List.of(gone)).all().get();
        }
    }
}
