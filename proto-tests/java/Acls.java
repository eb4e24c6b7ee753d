import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.common.acl.AccessControlEntry;
import org.apache.kafka.common.acl.AclBinding;
import org.apache.kafka.common.acl.AclOperation;
import org.apache.kafka.common.acl.AclPermissionType;
import org.apache.kafka.common.resource.PatternType;
import org.apache.kafka.common.resource.ResourcePattern;
import org.apache.kafka.common.resource.ResourceType;

/** Acls.java BOOTSTRAP allow|forget PRINCIPAL TYPE NAME OPERATION […TYPE NAME OPERATION]: a NAME that ends in * is a prefix. */
public class Acls {
    public static void main(String[] a) throws Exception {
        List<AclBinding> bindings = new ArrayList<>();
        for (int i = 3; i < a.length; i += 3) {
            ResourceType type = ResourceType.fromString(a[i]);
            boolean prefixed = a[i + 1].endsWith("*") && a[i + 1].length() > 1;
            String name = prefixed ? a[i + 1].substring(0, a[i + 1].length() - 1) : a[i + 1];
            PatternType pattern = prefixed ? PatternType.PREFIXED : PatternType.LITERAL;
            AclOperation operation = AclOperation.fromString(a[i + 2]);
            bindings.add(new AclBinding(
                new ResourcePattern(type, name, pattern),
                new AccessControlEntry(a[2], "*", operation, AclPermissionType.ALLOW)));
        }
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", a[0]))) {
            if (a[1].equals("forget")) {
                admin.deleteAcls(bindings.stream().map(AclBinding::toFilter).toList()).all().get();
            } else {
                admin.createAcls(bindings).all().get();
            }
        }
    }
}
