import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.HexFormat;
import java.util.List;
import java.util.Objects;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.FutureTask;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.function.BooleanSupplier;
import java.util.stream.Stream;
import org.apache.zookeeper.WatchedEvent;
import org.apache.zookeeper.Watcher;

/** The Java statement of what every ZooKeeper client's program has in common;
 *  ../../../../python/plan.py describes it. */
final class Plan {
    static final int WAIT_S = 20;
    static final int CHECK_S = 40;
    static final int SESSION_MS = 30_000;
    static final int SHORT_SESSION_MS = 4_000;
    static final int LARGE_BYTES = 1_000_000;
    static final int TOO_LARGE_BYTES = 1_100_000;
    static final int OUTSTANDING = 2_000;
    static final int SURVIVORS = 300;

    private static final BufferedReader STDIN = new BufferedReader(new InputStreamReader(System.in));

    private Plan() {}

    /** What was seen, and what was to be seen instead. */
    static final class Failed extends RuntimeException {
        Failed(String what) {
            super(what);
        }
    }

    interface Body {
        void run() throws Exception;
    }

    static void say(String line) {
        System.out.println(line.replace('\n', ' '));
        System.out.flush();
    }

    static void expect(boolean holds, String what) {
        if (!holds) {
            throw new Failed(what);
        }
    }

    static void equal(String what, Object got, Object want) {
        expect(Objects.equals(got, want), what + " is " + got + ", not " + want);
    }

    static void raises(Class<? extends Exception> error, String what, Body body) {
        try {
            body.run();
        } catch (Exception e) {
            expect(error.isInstance(e), what + ": " + e + ", not " + error.getSimpleName());
            return;
        }
        throw new Failed(what + " succeeded, instead of " + error.getSimpleName());
    }

    static void until(BooleanSupplier condition, String what) throws InterruptedException {
        until(condition, what, WAIT_S);
    }

    static void until(BooleanSupplier condition, String what, int withinS) throws InterruptedException {
        long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(withinS);
        while (!condition.getAsBoolean()) {
            expect(System.nanoTime() < end, "waited " + withinS + " s for " + what);
            Thread.sleep(10);
        }
    }

    static void skip(String names, String reason) {
        for (String name : names.split(" ")) {
            say("CHECK " + name + " skip " + reason);
        }
    }

    /** Makes one check; what it returns is the detail. */
    static void check(String name, Callable<String> body) throws InterruptedException {
        FutureTask<String> task = new FutureTask<>(body);
        Thread thread = new Thread(task, name);
        thread.setDaemon(true);
        thread.start();
        try {
            say(("CHECK " + name + " ok " + task.get(CHECK_S, TimeUnit.SECONDS)).stripTrailing());
        } catch (ExecutionException e) {
            Throwable why = e.getCause();
            say("CHECK " + name + " fail " + (why instanceof Failed ? why.getMessage() : why + " at " + where(why)));
        } catch (TimeoutException e) {
            task.cancel(true);
            say("CHECK " + name + " fail it took longer than " + CHECK_S + " s");
        }
    }

    /** The line of the program that a library's error came through. */
    private static String where(Throwable why) {
        return Stream.of(why.getStackTrace())
                .filter(frame -> frame.getClassName().startsWith("With"))
                .findFirst()
                .map(StackTraceElement::toString)
                .orElse("?");
    }

    static void awaitRestart(boolean kill) throws IOException {
        say(kill ? "RESTART KILL" : "RESTART");
        expect(STDIN.readLine() != null, "the runner is gone");
    }

    static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    static byte[] large() {
        byte[] data = new byte[LARGE_BYTES];
        for (int i = 0; i < data.length; i++) {
            data[i] = (byte) (i * 7 % 251);
        }
        return data;
    }

    /** The events of one watch, in their order, as "NodeCreated /path". */
    static final class Events implements Watcher {
        final BlockingQueue<String> seen = new LinkedBlockingQueue<>();

        @Override
        public void process(WatchedEvent event) {
            // A connection that comes and goes is told to every watch.
            if (event.getType() != Event.EventType.None) {
                seen.add(event.getType() + " " + event.getPath());
            }
        }

        void await(String... wanted) throws InterruptedException {
            until(() -> seen.size() >= wanted.length, String.join(", ", wanted) + "; there was " + seen);
            equal("the events", List.copyOf(seen), List.of(wanted));
        }
    }

    /** The program once more, which holds sessions until it is killed. */
    static final class Victim {
        private final Process process;
        final long session;
        final byte[] password;

        Victim(String program, String[] arguments) throws IOException {
            String java = ProcessHandle.current().info().command().orElse("java");
            List<String> command = Stream.concat(
                            Stream.of(java, "-Xmx64m", "-XX:TieredStopAtLevel=1", "-cp", System.getProperty("java.class.path"), program),
                            Stream.concat(Stream.of(arguments).limit(3), Stream.of("hold")))
                    .toList();
            process = new ProcessBuilder(command).redirectError(ProcessBuilder.Redirect.INHERIT).start();
            String line = new BufferedReader(new InputStreamReader(process.getInputStream())).readLine();
            expect(line != null && line.startsWith("HELD "), "the victim said " + line);
            session = Long.parseLong(line.split(" ")[1]);
            password = HexFormat.of().parseHex(line.split(" ")[2]);
        }

        static void held(long session, byte[] password) throws InterruptedException {
            say("HELD " + session + " " + HexFormat.of().formatHex(password));
            Thread.sleep(600_000);
        }

        void kill() throws InterruptedException {
            process.destroyForcibly().waitFor();
        }
    }
}
