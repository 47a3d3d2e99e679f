import java.lang.instrument.Instrumentation;
import java.lang.management.GarbageCollectorMXBean;
import java.lang.management.ManagementFactory;
import java.lang.ref.Reference;
import java.lang.reflect.Field;
import java.net.StandardProtocolFamily;
import java.net.UnixDomainSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.Channels;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Scanner;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.locks.LockSupport;
import javax.management.ObjectName;

/**
 * Makes the JVM that it is loaded into pause, on command. Does nothing until somebody connects to the
 * socket "fault-agent" in its working directory and sends one line: a command and its argument. The
 * answer is "ok FROM TO", both System.nanoTime(), or "error WHY".
 */
public final class FaultAgent {
    /** About a megabyte of nodes: 24 bytes each with compressed references. */
    private static final int NODES_OF_MEGABYTE = 43_690;

    private static final class Node {
        Node one;
        Node other;
        int value;
    }

    /** The live graph that the collector has to walk, a megabyte an element. */
    private static final List<Node[]> HELD = new ArrayList<>();

    /** Threads that do nothing but have a stack. */
    private static final List<Thread> PARKED = new ArrayList<>();
    private static final int DEPTH = 400;

    public static void premain(String arguments, Instrumentation instrumentation) throws Exception {
        Path path = Path.of("fault-agent");
        Files.deleteIfExists(path);
        ServerSocketChannel server = ServerSocketChannel.open(StandardProtocolFamily.UNIX);
        server.bind(UnixDomainSocketAddress.of(path));
        start("FaultAgent", () -> serve(server));
    }

    private static void serve(ServerSocketChannel server) {
        while (true) {
            try (SocketChannel client = server.accept()) {
                String line = new Scanner(Channels.newReader(client, StandardCharsets.US_ASCII)).nextLine();
                client.write(ByteBuffer.wrap(answer(line).getBytes(StandardCharsets.US_ASCII)));
            } catch (Exception error) {
                System.err.println("fault agent: " + error);
            }
        }
    }

    private static String answer(String line) {
        String[] words = line.split(" ");
        long from = System.nanoTime();
        try {
            switch (words[0]) {
                case "hold" -> hold(Integer.parseInt(words[1]));
                case "gc" -> System.gc();
                case "young" -> young(Integer.parseInt(words[1]));
                case "dump" -> dump(words[1]);
                case "stacks" -> stacks(Integer.parseInt(words[1]));
                case "print" -> print();
                case "lock" -> lock(Long.parseLong(words[1]));
                case "burn" -> burn(Long.parseLong(words[1]), Integer.parseInt(words[2]));
                default -> throw new IllegalArgumentException("no such command: " + line);
            }
            return "ok " + from + " " + System.nanoTime() + "\n";
        } catch (Throwable error) {
            return "error " + error + "\n";
        }
    }

    /** Keeps a graph of so many megabytes alive, its edges at random: the slow kind to mark. */
    private static void hold(int megabytes) {
        while (HELD.size() > megabytes) {
            HELD.remove(HELD.size() - 1);
        }
        grow(HELD, megabytes);
    }

    private static void grow(List<Node[]> graph, int megabytes) {
        ThreadLocalRandom random = ThreadLocalRandom.current();
        while (graph.size() < megabytes) {
            Node[] nodes = new Node[NODES_OF_MEGABYTE];
            graph.add(nodes);
            for (int index = 0; index < nodes.length; index++) {
                nodes[index] = new Node();
                nodes[index].value = index;
                Node[] near = graph.get(random.nextInt(Math.max(0, graph.size() - 8), graph.size()));
                nodes[index].one = near[random.nextInt(near == nodes ? index + 1 : near.length)];
                nodes[index].other = nodes[random.nextInt(index + 1)];
            }
        }
    }

    /** Fills the young generation with so many megabytes that live, and with garbage, until it is collected. */
    private static void young(int megabytes) {
        System.gc();
        List<Node[]> alive = new ArrayList<>();
        grow(alive, megabytes);
        long before = collections();
        while (collections() == before) {
            garbage = new byte[1 << 14];
        }
        Reference.reachabilityFence(alive);
    }

    /** Kept where the compiler cannot see that nobody reads it. */
    private static volatile byte[] garbage;

    private static long collections() {
        return ManagementFactory.getGarbageCollectorMXBeans().stream()
                .mapToLong(GarbageCollectorMXBean::getCollectionCount).sum();
    }

    /** All objects of the heap, without a collection before: a safepoint that is not GC. */
    private static void dump(String path) throws Exception {
        ManagementFactory.getPlatformMXBean(com.sun.management.HotSpotDiagnosticMXBean.class)
                .dumpHeap(path, false);
    }

    /** Keeps so many threads with deep stacks parked. */
    private static void stacks(int threads) throws InterruptedException {
        while (PARKED.size() > threads) {
            Thread thread = PARKED.remove(PARKED.size() - 1);
            thread.interrupt();
            thread.join();
        }
        while (PARKED.size() < threads) {
            CountDownLatch deep = new CountDownLatch(1);
            PARKED.add(start("FaultAgent-park", () -> descend(DEPTH, deep)));
            deep.await();
        }
    }

    private static void descend(int depth, CountDownLatch deep) {
        if (depth > 0) {
            descend(depth - 1, deep);
            return;
        }
        deep.countDown();
        while (!Thread.currentThread().isInterrupted()) {
            LockSupport.park();
        }
    }

    /** All stacks, as jstack prints them: at a safepoint, and as long as there are frames. */
    private static void print() throws Exception {
        ManagementFactory.getPlatformMBeanServer().invoke(
                new ObjectName("com.sun.management:type=DiagnosticCommand"), "threadPrint",
                new Object[] {new String[0]}, new String[] {String[].class.getName()});
    }

    /** Keeps the monitor without which SyncThread can neither append to its log nor commit it. */
    private static void lock(long milliseconds) throws Exception {
        Object log = transactionLog();
        synchronized (log) {
            Thread.sleep(milliseconds);
        }
    }

    private static Object transactionLog() throws Exception {
        for (Thread thread : Thread.getAllStackTraces().keySet()) {
            if (thread.getName().startsWith("SyncThread:")) {
                Object server = field(thread, "zks");
                return field(field(field(server, "zkDb"), "snapLog"), "txnLog");
            }
        }
        throw new IllegalStateException("no SyncThread runs");
    }

    private static Object field(Object of, String name) throws Exception {
        for (Class<?> type = of.getClass(); type != null; type = type.getSuperclass()) {
            for (Field field : type.getDeclaredFields()) {
                if (field.getName().equals(name)) {
                    field.setAccessible(true);
                    return field.get(of);
                }
            }
        }
        throw new NoSuchFieldException(of.getClass() + "." + name);
    }

    /** Uses up CPU time in some threads. */
    private static void burn(long milliseconds, int threads) throws InterruptedException {
        long until = System.nanoTime() + milliseconds * 1_000_000;
        List<Thread> started = new ArrayList<>();
        for (int index = 0; index < threads; index++) {
            started.add(start("FaultAgent-" + index, () -> {
                while (System.nanoTime() < until) {
                    Thread.onSpinWait();
                }
            }));
        }
        for (Thread thread : started) {
            thread.join();
        }
    }

    private static Thread start(String name, Runnable work) {
        Thread thread = new Thread(work, name);
        thread.setDaemon(true);
        thread.start();
        return thread;
    }
}
