import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.stream.IntStream;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/** Apache's kafka-clients through the plan. */
final class WithKafkaClients {
    private static final Duration SHORT = Duration.ofMillis(100);

    private final Plan plan;
    private final Plan.Ledger seen;
    private final List<KafkaProducer<String, String>> producers = new ArrayList<>();
    private int acknowledged;

    private WithKafkaClients(Plan plan) {
        this.plan = plan;
        this.seen = new Plan.Ledger(plan);
        // One idempotent producer a codec, open over the restart.
        for (String codec : Plan.CODECS) {
            Map<String, Object> settings = Map.of(
                    "bootstrap.servers", plan.bootstrap(),
                    "enable.idempotence", true,
                    "acks", "all",
                    "compression.type", codec,
                    "linger.ms", 5);
            producers.add(new KafkaProducer<>(settings, new StringSerializer(), new StringSerializer()));
        }
    }

    private void send(int stage) throws Exception {
        for (int codec = 0; codec < producers.size(); codec++) {
            List<Future<RecordMetadata>> sent = new ArrayList<>();
            for (int n = Plan.begin(stage, codec); n < Plan.begin(stage, codec + 1); n++) {
                Plan.Message m = plan.message(n);
                var record = new ProducerRecord<>(plan.topic(), null, m.timestamp(), m.key(), m.value());
                for (Plan.Header h : m.headers()) {
                    record.headers().add(h.key(), h.value().array());
                }
                sent.add(producers.get(codec).send(record));
            }
            producers.get(codec).flush();
            for (Future<RecordMetadata> future : sent) {
                try {
                    future.get(Plan.WAIT.toSeconds(), TimeUnit.SECONDS);
                    acknowledged++;
                } catch (ExecutionException e) {
                    Plan.must("produce", false, Plan.CODECS.get(codec) + ": " + e.getCause());
                }
            }
        }
    }

    private static KafkaConsumer<String, String> consumer(Plan plan, String group) {
        Map<String, Object> settings = new HashMap<>(Map.of(
                "bootstrap.servers", plan.bootstrap(),
                "auto.offset.reset", "earliest",
                "enable.auto.commit", false,
                "heartbeat.interval.ms", 500,
                "session.timeout.ms", 10_000));
        if (group != null) {
            settings.put("group.id", group);
        }
        return new KafkaConsumer<>(settings, new StringDeserializer(), new StringDeserializer());
    }

    /** One consumer of the group. */
    private final class Member {
        final KafkaConsumer<String, String> consumer = consumer(plan, plan.group());
        final Map<Integer, Long> first = new TreeMap<>();
        int read;

        Member() {
            consumer.subscribe(Set.of(plan.topic()));
        }

        Collection<Integer> owned() {
            Set<Integer> partitions = new TreeSet<>();
            consumer.assignment().forEach(tp -> partitions.add(tp.partition()));
            return partitions;
        }

        void poll() {
            for (ConsumerRecord<String, String> r : consumer.poll(SHORT)) {
                first.putIfAbsent(r.partition(), r.offset());
                read++;
                take(seen, r);
            }
        }
    }

    private static void take(Plan.Ledger ledger, ConsumerRecord<String, String> r) {
        List<Plan.Header> headers = new ArrayList<>();
        for (Header h : r.headers()) {
            headers.add(new Plan.Header(h.key(), h.value()));
        }
        ledger.add(new Plan.Place(r.partition(), r.offset()), new Plan.Message(r.key(), r.value(), headers, r.timestamp()));
    }

    private List<TopicPartition> everywhere() {
        return IntStream.range(0, Plan.PARTITIONS).mapToObj(i -> new TopicPartition(plan.topic(), i)).toList();
    }

    private Map<Integer, Long> committed() {
        try (KafkaConsumer<String, String> asking = consumer(plan, plan.group())) {
            Map<Integer, Long> found = new TreeMap<>();
            asking.committed(Set.copyOf(everywhere()), Plan.WAIT)
                    .forEach((tp, at) -> found.put(tp.partition(), at == null ? null : at.offset()));
            return found;
        }
    }

    private Map<Integer, Long> lookup(KafkaConsumer<String, String> reader, long ms) {
        Map<TopicPartition, Long> asked = new HashMap<>();
        everywhere().forEach(tp -> asked.put(tp, ms));
        Map<Integer, Long> found = new TreeMap<>();
        reader.offsetsForTimes(asked).forEach((tp, at) -> found.put(tp.partition(), at == null ? -1 : at.offset()));
        return found;
    }

    private boolean read(int stage) {
        return seen.places.size() >= Plan.STAGES[stage][1];
    }

    private void run() throws Exception {
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", plan.bootstrap()))) {
            admin.createTopics(Set.of(new NewTopic(plan.topic(), Plan.PARTITIONS, (short) 1))).all().get();
            var topic = admin.describeTopics(Set.of(plan.topic())).allTopicNames().get().get(plan.topic());
            Plan.must("create", topic.partitions().size() == Plan.PARTITIONS, topic.partitions().size() + " partitions");
        }

        send(0);
        Member a = new Member();
        Plan.until(() -> read(0), a::poll, "A to read stage 0");
        a.consumer.commitSync();

        Member b = new Member();
        Runnable both = () -> {
            a.poll();
            b.poll();
        };
        Plan.until(() -> Plan.split(a.owned(), b.owned()), both, "A and B to share the partitions");
        Plan.check("join", true, "A has " + a.owned() + ", B has " + b.owned());
        send(1);
        Plan.until(() -> read(1), both, "A and B to read stage 1");
        a.consumer.commitSync();
        b.consumer.commitSync();

        a.consumer.close();
        Plan.until(() -> b.owned().size() == Plan.PARTITIONS, b::poll, "B to get A's partitions");
        send(2);
        Plan.until(() -> read(2), b::poll, "B to read stage 2");
        Plan.check("leave", b.read > 0, "A read " + a.read + ", B " + b.read);
        b.consumer.commitSync();
        Map<Integer, Long> before = committed();
        b.consumer.close();

        Plan.awaitRestart();
        Map<Integer, Long> after = committed();
        Plan.check("commit", before.equals(after) && after.equals(seen.next),
                "before the restart " + before + ", after " + after + ", read up to " + seen.next);
        send(3);
        Plan.check("produce", acknowledged == Plan.ALL, acknowledged + " acknowledged");
        Member c = new Member();
        Plan.until(() -> read(3), c::poll, "C to read stage 3");
        Plan.check("resume", c.first.equals(after) && c.read == Plan.ALL - Plan.BEFORE_RESTART,
                "C read " + c.read + ", from " + c.first);
        c.consumer.commitSync();
        c.consumer.close();

        Plan.Ledger again = new Plan.Ledger(plan);
        try (KafkaConsumer<String, String> reader = consumer(plan, null)) {
            reader.assign(everywhere());
            reader.seekToBeginning(everywhere());
            Runnable poll = () -> {
                ConsumerRecords<String, String> records = reader.poll(SHORT);
                records.forEach(r -> take(again, r));
            };
            Plan.until(() -> again.places.size() >= Plan.ALL, poll, "the read from the beginning");
            plan.checkTimestamps(again, ms -> lookup(reader, ms));
        }
        producers.forEach(KafkaProducer::close);
        Plan.checkLedgers(seen, again);
    }

    public static void main(String[] arguments) throws Exception {
        try {
            new WithKafkaClients(Plan.of(arguments)).run();
        } catch (Plan.GivenUp e) {
            System.err.println("given up: " + e.getMessage());
            System.exit(1);
        }
    }
}
