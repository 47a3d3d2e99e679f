import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.locks.LockSupport;

/**
 * A process that looks like a server and does nothing but start threads, each of which ends at once: half of them have a
 * name of a proposal's path, the others are workers, and all of them hand something to the thread that writes the log.
 * Arguments: threads a second, and a zoo.cfg, which the probe reads and this program does not. At the end of standard
 * input it prints how many threads there were.
 */
public final class ChurnQuorumPeerMain {
    public static void main(String[] args) throws Exception {
        long everyNanos = 1_000_000_000L / Long.parseLong(args[0]);
        LinkedBlockingQueue<Long> log = new LinkedBlockingQueue<>();
        AtomicLong handed = new AtomicLong();
        Thread sync = new Thread(() -> {
            try {
                while (true) {
                    log.take();
                    handed.incrementAndGet();
                }
            } catch (InterruptedException ended) {
                Thread.currentThread().interrupt();
            }
        }, "SyncThread:1");
        sync.setDaemon(true);
        sync.start();
        AtomicLong started = new AtomicLong();
        Thread churn = new Thread(() -> {
            long due = System.nanoTime();
            while (!Thread.currentThread().isInterrupted()) {
                long number = started.incrementAndGet();
                String kind = number % 2 == 0 ? "LearnerHandler-/127.0.0.1:" : "NIOWorkerThread-";
                Thread thread = new Thread(() -> log.add(number), kind + number);
                thread.setDaemon(true);
                thread.start();
                due = Math.max(due + everyNanos, System.nanoTime() - 1_000_000_000L);
                LockSupport.parkNanos(due - System.nanoTime());
            }
        }, "Churn");
        churn.setDaemon(true);
        churn.start();
        System.out.println("ready");
        while (System.in.read() >= 0) {
            continue;
        }
        churn.interrupt();
        churn.join();
        System.out.println(started.get());
    }
}
