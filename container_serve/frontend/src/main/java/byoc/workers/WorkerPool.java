package byoc.workers;

import com.amazonaws.ml.mms.wlm.Model;
import io.netty.channel.EventLoopGroup;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;

/** The workers of one model, and the queue of its requests. */
final class WorkerPool {
    private static final long PAUSE_MILLIS = 100;
    private static final long LONG_PAUSE_MILLIS = 1000; // where it did not come so far as to load the model

    final RequestQueue queue;
    final List<Worker> workers = new CopyOnWriteArrayList<>();
    final CompletableFuture<Boolean> loaded = new CompletableFuture<>(); // true: by all the first ones; false: one ended
    final AtomicInteger died = new AtomicInteger(); // workers that had loaded the model
    private final Model model;
    private final EventLoopGroup group;
    private final ForkServer forkServer;
    private final int size;
    private int missing; // of the first ones, those that have not loaded the model yet
    private boolean closed;

    WorkerPool(Model model, int size, RequestQueue queue, EventLoopGroup group) {
        this.model = model;
        this.queue = queue;
        this.group = group;
        this.size = size;
        missing = size;
        forkServer = new ForkServer(model, () -> {
            for (int i = 0; i < size; i++) {
                start();
            }
        });
        forkServer.start();
    }

    private synchronized void start() {
        if (!closed && workers.size() < size) {
            Worker worker = new Worker(model, this);
            workers.add(worker);
            worker.connect(group);
        }
    }

    synchronized void loaded(Worker worker) {
        missing--;
        if (missing == 0) {
            loaded.complete(true);
        }
        queue.free(worker);
    }

    /** Its process has ended, or never came: another one takes its place. */
    void ended(Worker worker) {
        loaded.complete(false); // says something only where it was not complete
        workers.remove(worker);
        long pause = worker.pid() > 0 ? PAUSE_MILLIS : LONG_PAUSE_MILLIS;
        group.schedule(this::start, pause, TimeUnit.MILLISECONDS);
    }

    synchronized boolean isClosed() {
        return closed;
    }

    synchronized void close() {
        closed = true;
        workers.forEach(Worker::close);
        forkServer.close();
        queue.close();
    }
}
