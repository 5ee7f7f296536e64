import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.function.BooleanSupplier;
import java.util.function.LongFunction;

/** The Java statement of what every client of the matrix does and must see;
 *  ../python/plan.py describes it. */
record Plan(String bootstrap, String topic, String group, long firstTimestamp) {
    static final int PARTITIONS = 3;
    static final int[][] STAGES = {{0, 4000}, {4000, 7000}, {7000, 10_000}, {10_000, 11_000}};
    static final int BEFORE_RESTART = 10_000;
    static final int ALL = 11_000;
    static final List<String> CODECS = List.of("none", "gzip", "snappy", "lz4", "zstd");
    /** One wait for one thing (an assignment, a stage's records) takes no longer. */
    static final Duration WAIT = Duration.ofSeconds(40);

    record Header(String key, ByteBuffer value) {
        Header(String key, byte[] value) {
            this(key, value == null ? null : ByteBuffer.wrap(value));
        }
    }

    record Message(String key, String value, List<Header> headers, long timestamp) {}

    record Place(int partition, long offset) {}

    /** Nothing after this can be judged. */
    static final class GivenUp extends RuntimeException {
        GivenUp(String why) {
            super(why);
        }
    }

    static Plan of(String[] arguments) {
        if (arguments.length != 4) {
            throw new GivenUp("usage: BOOTSTRAP TOPIC GROUP FIRST_TIMESTAMP");
        }
        Map<String, Integer> sent = new TreeMap<>();
        for (int n = 0; n < ALL; n++) {
            sent.merge(codecOf(n), 1, Integer::sum);
        }
        StringBuilder line = new StringBuilder("INFO codecs");
        sent.forEach((codec, count) -> line.append(' ').append(codec).append('=').append(count));
        say(line.toString());
        return new Plan(arguments[0], arguments[1], arguments[2], Long.parseLong(arguments[3]));
    }

    /** Where the records of a stage begin that go out with a codec; the next codec's begin ends them. */
    static int begin(int stage, int codec) {
        int[] s = STAGES[stage];
        return s[0] + (s[1] - s[0]) * codec / CODECS.size();
    }

    static String codecOf(int n) {
        for (int stage = 0; stage < STAGES.length; stage++) {
            for (int codec = 0; codec < CODECS.size(); codec++) {
                if (begin(stage, codec) <= n && n < begin(stage, codec + 1)) {
                    return CODECS.get(codec);
                }
            }
        }
        return "?";
    }

    long timestamp(int n) {
        return firstTimestamp + 10L * n;
    }

    Message message(int n) {
        List<Header> headers = List.of(
                new Header("n", bytes(Integer.toString(n))),
                new Header("codec", bytes(codecOf(n))),
                new Header("dup", bytes("a")),
                new Header("dup", bytes("b")),
                new Header("bytes", new byte[] {0, (byte) 0xff, (byte) n}),
                new Header("empty", new byte[0]));
        String value = "value-" + n + ":" + "abcdefghij".repeat(10 + n % 20);
        return new Message("key-" + n % 101, value, headers, timestamp(n));
    }

    static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    /** Every record that was read, checked as it comes. */
    static final class Ledger {
        private final Plan plan;
        final Map<Integer, Place> places = new HashMap<>();
        final Map<Integer, Long> next = new TreeMap<>();
        final List<String> wrong = new ArrayList<>();
        final List<String> disordered = new ArrayList<>();
        final List<String> notOnce = new ArrayList<>();
        private final Map<String, Integer> lastOfKey = new HashMap<>();
        private final Map<String, Integer> partitionOfKey = new HashMap<>();

        Ledger(Plan plan) {
            this.plan = plan;
        }

        void add(Place at, Message got) {
            String where = plan.topic + "-" + at.partition + " offset " + at.offset;
            int n;
            try {
                n = Integer.parseInt(got.value.substring("value-".length(), got.value.indexOf(':')));
            } catch (RuntimeException e) {
                wrong.add(where + ": a value that nobody sent: " + got.value);
                return;
            }
            Message want = plan.message(n);
            if (!got.equals(want)) {
                wrong.add(where + ": " + got + ", not " + want);
            }
            if (places.containsKey(n)) {
                notOnce.add("record " + n + " twice: at " + where + ", before at " + places.get(n));
                return;
            }
            long expected = next.getOrDefault(at.partition, 0L);
            if (at.offset != expected) {
                notOnce.add(where + " came where offset " + expected + " was next");
            }
            if (lastOfKey.getOrDefault(got.key, -1) > n) {
                disordered.add(where + ": " + got.key + " has " + n + " after " + lastOfKey.get(got.key));
            }
            if (partitionOfKey.getOrDefault(got.key, at.partition) != at.partition) {
                disordered.add(where + ": " + got.key + " was in partition " + partitionOfKey.get(got.key) + " before");
            }
            lastOfKey.put(got.key, n);
            partitionOfKey.put(got.key, at.partition);
            next.put(at.partition, at.offset + 1);
            places.put(n, at);
        }

        /** Offset of the first record at or after record n's time, or -1. */
        long offsetAt(int partition, int n) {
            for (; n < ALL; n++) {
                Place place = places.get(n);
                if (place != null && place.partition == partition) {
                    return place.offset;
                }
            }
            return -1;
        }
    }

    static void say(String line) {
        System.out.println(line.replace('\n', ' '));
        System.out.flush();
    }

    static boolean check(String name, boolean ok, String detail) {
        say("CHECK " + name + (ok ? " ok " : " fail ") + detail);
        return ok;
    }

    static void must(String name, boolean ok, String detail) {
        if (!check(name, ok, detail)) {
            throw new GivenUp(name);
        }
    }

    /** Runs step, which blocks for a little while, until the condition holds. */
    static void until(BooleanSupplier holds, Runnable step, String what) {
        long end = System.nanoTime() + WAIT.toNanos();
        while (!holds.getAsBoolean()) {
            if (System.nanoTime() > end) {
                throw new GivenUp("waited " + WAIT.toSeconds() + " s for " + what);
            }
            step.run();
        }
    }

    /** Returns once the runner has restarted the broker. */
    static void awaitRestart() throws IOException {
        say("RESTART");
        if (new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8)).readLine() == null) {
            throw new GivenUp("the runner is gone");
        }
    }

    /** Two members share all partitions, each having some. */
    static boolean split(Collection<Integer> a, Collection<Integer> b) {
        Set<Integer> both = new HashSet<>(a);
        both.addAll(b);
        return !a.isEmpty() && !b.isEmpty() && both.size() == PARTITIONS && a.size() + b.size() == PARTITIONS;
    }

    /** Looks up records, and moments between two of them; -1 where no record is so late. */
    void checkTimestamps(Ledger ledger, LongFunction<Map<Integer, Long>> lookup) {
        List<String> wrong = new ArrayList<>();
        int asked = 0;
        for (int n : new int[] {0, 1, 1234, 3999, 6999, 9999, 10_500, 10_999}) {
            for (int late = 0; late < 2; late++) {
                Map<Integer, Long> got = lookup.apply(timestamp(n) + 5 * late);
                for (int partition = 0; partition < PARTITIONS; partition++) {
                    asked++;
                    long want = ledger.offsetAt(partition, n + late);
                    if (!Long.valueOf(want).equals(got.get(partition))) {
                        wrong.add("record " + n + " + " + 5 * late + " ms in partition " + partition + ": offset "
                                + got.get(partition) + ", not " + want);
                    }
                }
            }
        }
        verdict("timestamp", wrong, asked + " lookups, each exact");
    }

    /** The verdicts on what the group saw and what is read again at the end. */
    static void checkLedgers(Ledger group, Ledger again) {
        String read = group.places.size() + " in the group, " + again.places.size() + " from the beginning";
        verdict("records", joined(group.wrong, again.wrong), read);
        verdict("order", joined(group.disordered, again.disordered), read);
        List<String> wrong = joined(group.notOnce, again.notOnce);
        for (Ledger ledger : List.of(group, again)) {
            for (int n = 0; n < ALL; n++) {
                if (!ledger.places.containsKey(n)) {
                    wrong.add(ALL - ledger.places.size() + " lost, the first is record " + n);
                    break;
                }
            }
        }
        if (!group.places.equals(again.places)) {
            wrong.add("the group saw records at other offsets than the read from the beginning");
        }
        verdict("once", wrong, ALL + " records, none lost, none twice");
    }

    private static List<String> joined(List<String> a, List<String> b) {
        List<String> both = new ArrayList<>(a);
        both.addAll(b);
        return both;
    }

    private static void verdict(String name, List<String> wrong, String good) {
        String bad = wrong.size() + " faults: " + String.join("; ", wrong.subList(0, Math.min(3, wrong.size())));
        check(name, wrong.isEmpty(), wrong.isEmpty() ? good : bad);
    }
}
