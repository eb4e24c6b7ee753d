import java.io.PrintWriter;
import java.nio.ByteBuffer;
import java.nio.file.Path;
import java.util.*;
import java.util.stream.Collectors;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.consumer.ConsumerPartitionAssignor.*;
import org.apache.kafka.clients.consumer.internals.ConsumerProtocol;
import org.apache.kafka.common.*;

/**
 * Writes what Java's own assignors decide, for our assignors to be compared with.
 *
 *   java -cp "<kafka-clients and slf4j jars>/*" Assignors.java OUTDIR [RACK-GROUPS]
 *
 * OUTDIR/assignors.txt: groups that live for a few rounds. Members join, leave, change their
 * topics and keep (or claim) partitions; topics appear and grow. In the last RACK-GROUPS of
 * them (38, or more for a longer look) members and brokers also have racks. Lines:
 *   round                                   starts a round
 *   topic NAME PARTITIONS [RACKS]           one known topic
 *   member ID INSTANCE GENERATION USERDATA TOPICS OWNED RANGE COOPERATIVE [RACK]
 * in the order of the JoinGroup response; "-" is nothing; partitions read "t:0,1;u:2" in order.
 * RACKS are those of each partition's replicas, a letter each: "ab,b,-".
 *
 * OUTDIR/consumer-protocol.txt: "KIND VERSION HEX FIELDS…", bytes of subscriptions and assignments.
 */
public class Assignors {
    static final Random random = new Random(20240517);

    static class Member {
        final String id;
        final String instance;
        List<String> topics;
        List<TopicPartition> owned = new ArrayList<>();
        int generation = -1;
        int userData = -1;      // cooperative-sticky's own copy of the generation
        boolean oldStyle;       // a client whose subscription has no generation field
        String rack;
        Member(String id, String instance, List<String> topics) {
            this.id = id; this.instance = instance; this.topics = topics;
        }
    }

    public static void main(String[] args) throws Exception {
        Path out = Path.of(args[0]);
        try (PrintWriter w = new PrintWriter(out.resolve("assignors.txt").toFile(), "UTF-8")) {
            for (int i = 0; i < 60; i++) group(w, i);
            int rackGroups = args.length > 1 ? Integer.parseInt(args[1]) : 38;
            for (int i = 0; i < rackGroups; i++) rackGroup(w, i);
        }
        try (PrintWriter w = new PrintWriter(out.resolve("consumer-protocol.txt").toFile(), "UTF-8")) {
            bytes(w);
        }
    }

    static void group(PrintWriter w, int number) {
        boolean equal = number % 2 == 0;    // the constrained algorithm needs equal subscriptions
        boolean big = number % 15 == 7;     // past the first growth of Java's hash tables
        Map<String, Integer> topics = new LinkedHashMap<>();
        int topicCount = 1 + random.nextInt(big ? 15 : 5);
        for (int t = 0; t < topicCount; t++) topics.put(topicName(), 1 + random.nextInt(big ? 6 : 9));
        List<String> common = new ArrayList<>(topics.keySet());
        if (random.nextInt(5) == 0) common.add("missing");
        List<Member> members = new ArrayList<>();
        int size = 1 + random.nextInt(big ? 30 : 6);
        for (int m = 0; m < size; m++) members.add(member(common, equal));
        int generation = 1 + random.nextInt(3);
        int rounds = big ? 2 : 3 + random.nextInt(3);
        for (int r = 0; r < rounds; r++) {
            Map<String, List<TopicPartition>> cooperative = round(w, topics, members);
            for (Member m : members) {
                if (random.nextInt(12) == 0) continue;          // missed the round: keeps old claims
                m.owned = sorted(cooperative.get(m.id));
                m.generation = generation;
                m.userData = generation;
            }
            generation++;
            if (members.size() > 1 && random.nextInt(3) == 0) members.remove(random.nextInt(members.size()));
            if (random.nextInt(2) == 0) members.add(random.nextInt(members.size() + 1), member(common, equal));
            if (random.nextInt(4) == 0) {
                String t = topics.keySet().iterator().next();
                topics.put(t, topics.get(t) + 1 + random.nextInt(3));
            }
            if (!equal && random.nextInt(3) == 0) members.get(random.nextInt(members.size())).topics = subset(common);
            if (random.nextInt(6) == 0) {                        // forgets everything, as after a restart
                Member m = members.get(random.nextInt(members.size()));
                m.owned = new ArrayList<>(); m.generation = -1; m.userData = -1;
            }
            if (random.nextInt(6) == 0) {                        // claims what another holds
                Member a = members.get(random.nextInt(members.size())), b = members.get(random.nextInt(members.size()));
                if (a != b) { Set<TopicPartition> s = new LinkedHashSet<>(a.owned); s.addAll(b.owned); a.owned = sorted(s); }
            }
        }
    }

    /** A group whose members and brokers have racks, or not: both come and go. */
    static void rackGroup(PrintWriter w, int number) {
        boolean equal = number % 2 == 0;
        List<Node> nodes = new ArrayList<>();
        int racks = 2 + random.nextInt(3);
        for (int n = 0; n < racks + random.nextInt(3); n++)
            nodes.add(new Node(n, "h", 1, random.nextInt(8) == 0 ? null : "" + (char) ('a' + n % racks)));
        Map<String, List<Node[]>> topics = new LinkedHashMap<>();
        int topicCount = 1 + random.nextInt(4), count = 1 + random.nextInt(8);
        for (int t = 0; t < topicCount; t++) {
            int style = random.nextInt(6);              // equal counts: topics that are assigned side by side
            int size = random.nextInt(3) == 0 ? 1 + random.nextInt(8) : count;
            List<Node[]> partitions = new ArrayList<>();
            for (int p = 0; p < size; p++) partitions.add(replicas(nodes, style));
            topics.put((char) ('t' + t) + "" + random.nextInt(90), partitions);
        }
        List<String> common = new ArrayList<>(topics.keySet());
        int withRack = random.nextInt(5);
        List<Member> members = new ArrayList<>();
        int size = 1 + random.nextInt(7);
        for (int m = 0; m < size; m++) members.add(rackMember(common, equal, racks, withRack));
        int generation = 1 + random.nextInt(3);
        int rounds = 3 + random.nextInt(3);
        for (int r = 0; r < rounds; r++) {
            Map<String, List<TopicPartition>> cooperative = round(w, topics, members, true);
            for (Member m : members) {
                if (random.nextInt(12) == 0) continue;
                m.owned = sorted(cooperative.get(m.id));
                m.generation = generation;
                m.userData = generation;
            }
            generation++;
            if (members.size() > 1 && random.nextInt(4) == 0) members.remove(random.nextInt(members.size()));
            if (random.nextInt(3) == 0)
                members.add(random.nextInt(members.size() + 1), rackMember(common, equal, racks, withRack));
            List<Node[]> first = topics.values().iterator().next();
            if (random.nextInt(4) == 0) first.add(replicas(nodes, 0));
            if (random.nextInt(3) == 0) first.set(random.nextInt(first.size()), replicas(nodes, 0));  // moved
            Member any = members.get(random.nextInt(members.size())), other = members.get(random.nextInt(members.size()));
            if (!equal && random.nextInt(3) == 0) any.topics = subset(common);
            if (random.nextInt(4) == 0) any.rack = other.rack;
            if (random.nextInt(6) == 0 && any != other) {
                Set<TopicPartition> s = new LinkedHashSet<>(any.owned); s.addAll(other.owned); any.owned = sorted(s);
            }
        }
    }

    /** Style 1: on every broker; style 2: nobody knows where; else on some. */
    static Node[] replicas(List<Node> nodes, int style) {
        if (style == 2) return new Node[]{new Node(99, "", -1)};
        List<Node> all = new ArrayList<>(nodes);
        Collections.shuffle(all, random);
        return all.subList(0, style == 1 ? all.size() : 1 + random.nextInt(Math.min(3, all.size()))).toArray(new Node[0]);
    }

    static Member rackMember(List<String> common, boolean equal, int racks, int withRack) {
        String instance = random.nextInt(4) == 0 ? "i" + random.nextInt(1000) : null;
        Member m = new Member("m" + Integer.toHexString(random.nextInt(1 << 16)), instance, equal ? common : subset(common));
        m.oldStyle = random.nextInt(8) == 0;
        if (!m.oldStyle && random.nextInt(5) <= withRack) m.rack = "" + (char) ('a' + random.nextInt(racks + random.nextInt(2)));
        return m;
    }

    static Map<String, List<TopicPartition>> round(PrintWriter w, Map<String, Integer> topics, List<Member> members) {
        Node node = new Node(1, "localhost", 9092);
        Map<String, List<Node[]>> replicas = new LinkedHashMap<>();
        topics.forEach((t, n) -> replicas.put(t, Collections.nCopies(n, new Node[]{node})));
        return round(w, replicas, members, false);
    }

    static Map<String, List<TopicPartition>> round(PrintWriter w, Map<String, List<Node[]>> topics, List<Member> members, boolean racks) {
        List<PartitionInfo> infos = new ArrayList<>();
        topics.forEach((t, partitions) -> {
            for (int p = 0; p < partitions.size(); p++) {
                Node[] replicas = partitions.get(p);
                infos.add(new PartitionInfo(t, p, replicas[0], replicas, replicas));
            }
        });
        Set<Node> nodes = topics.values().stream().flatMap(List::stream).flatMap(Arrays::stream).collect(Collectors.toSet());
        Cluster cluster = new Cluster("c", nodes, infos, Set.of(), Set.of());
        Map<String, Assignment> range = new RangeAssignor().assign(cluster, subscriptions(members)).groupAssignment();
        Map<String, Assignment> cooperative = new CooperativeStickyAssignor().assign(cluster, subscriptions(members)).groupAssignment();
        w.println("round");
        topics.forEach((t, p) -> w.println("topic " + t + " " + p.size() + (racks ? " " + racks(p) : "")));
        for (Member m : members) {
            w.println(String.join(" ", "member", m.id, m.instance == null ? "-" : m.instance,
                m.oldStyle ? "-" : "" + m.generation, m.oldStyle && m.generation < 0 ? "-" : "" + m.userData,
                String.join(",", m.topics),
                text(m.owned), text(range.get(m.id).partitions()), text(cooperative.get(m.id).partitions()))
                + (racks ? " " + (m.rack == null ? "-" : m.rack) : ""));
        }
        Map<String, List<TopicPartition>> result = new HashMap<>();
        cooperative.forEach((k, v) -> result.put(k, v.partitions()));
        return result;
    }

    /** As the leader of a group builds them: a HashMap, filled in the order of the response, from the wire. */
    static GroupSubscription subscriptions(List<Member> members) {
        Map<String, Subscription> map = new HashMap<>();
        for (Member m : members) {
            ByteBuffer user = m.oldStyle && m.generation < 0 ? null : ByteBuffer.allocate(4).putInt(0, m.userData);
            Subscription s = new Subscription(m.topics, user, m.owned, m.oldStyle ? -1 : m.generation, Optional.ofNullable(m.rack));
            Subscription read = ConsumerProtocol.deserializeSubscription(ConsumerProtocol.serializeSubscription(s));
            read.setGroupInstanceId(Optional.ofNullable(m.instance));
            map.put(m.id, read);
        }
        return new GroupSubscription(map);
    }

    static Member member(List<String> common, boolean equal) {
        String instance = random.nextInt(3) == 0 ? "i" + random.nextInt(1000) : null;
        String prefix = new String[]{"client-", "rdkafka-", "consumer-g-1-", "\u00fcn\u00ef-"}[random.nextInt(4)];
        Member m = new Member(prefix + Integer.toHexString(random.nextInt()), instance, equal ? common : subset(common));
        m.oldStyle = random.nextInt(5) == 0;
        return m;
    }

    static List<String> subset(List<String> common) {
        List<String> all = new ArrayList<>(common);
        Collections.shuffle(all, random);
        return new ArrayList<>(all.subList(0, 1 + random.nextInt(all.size())));
    }

    static String topicName() {
        String[] words = {"orders", "t", "payments.v2", "a-b_c", "Log", "events"};
        return words[random.nextInt(words.length)] + random.nextInt(500);
    }

    static List<TopicPartition> sorted(Collection<TopicPartition> list) {
        List<TopicPartition> l = new ArrayList<>(list);
        l.sort(Comparator.comparing(TopicPartition::topic).thenComparing(TopicPartition::partition));
        return l;
    }

    static String racks(List<Node[]> partitions) {
        return partitions.stream().map(nodes -> {
            String racks = Arrays.stream(nodes).map(Node::rack).filter(Objects::nonNull).distinct().sorted().collect(Collectors.joining());
            return racks.isEmpty() ? "-" : racks;
        }).collect(Collectors.joining(","));
    }

    /** Groups runs of one topic, so that the order can be read back. */
    static String text(Collection<TopicPartition> list) {
        if (list.isEmpty()) return "-";
        StringBuilder b = new StringBuilder();
        String last = null;
        for (TopicPartition tp : list) {
            if (tp.topic().equals(last)) b.append(',');
            else b.append(last == null ? "" : ";").append(tp.topic()).append(':');
            b.append(tp.partition());
            last = tp.topic();
        }
        return b.toString();
    }

    static void bytes(PrintWriter w) {
        List<TopicPartition> owned = List.of(new TopicPartition("b", 2), new TopicPartition("a", 1), new TopicPartition("b", 0));
        for (short v = 0; v <= 3; v++) {
            Subscription none = new Subscription(List.of("t"), null, List.of(), -1, Optional.empty());
            Subscription full = new Subscription(List.of("b", "a"), ByteBuffer.allocate(4).putInt(0, 7), owned, 7, Optional.of("rack-1"));
            w.println("subscription " + v + " none " + hex(ConsumerProtocol.serializeSubscription(none, v)));
            w.println("subscription " + v + " full " + hex(ConsumerProtocol.serializeSubscription(full, v)));
            w.println("assignment " + v + " none " + hex(ConsumerProtocol.serializeAssignment(new Assignment(List.of()), v)));
            w.println("assignment " + v + " full " + hex(ConsumerProtocol.serializeAssignment(new Assignment(owned, ByteBuffer.wrap(new byte[]{1, 2})), v)));
        }
    }

    static String hex(ByteBuffer b) {
        StringBuilder s = new StringBuilder();
        ByteBuffer d = b.duplicate();
        while (d.hasRemaining()) s.append(String.format("%02x", d.get()));
        return s.toString();
    }
}
