package byoc.workers;

import com.amazonaws.ml.mms.wlm.Model;
import com.amazonaws.ml.mms.wlm.ModelManager;
import io.netty.channel.EventLoopGroup;
import io.netty.handler.codec.http.HttpResponseStatus;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.TimeUnit;

/** The workers of one model, and the queue of its requests. */
final class WorkerPool {
    private static final long PAUSE_MILLIS = 100;
    private static final long LONG_PAUSE_MILLIS = 1000; // where it did not come so far as to load the model

    final RequestQueue queue;
    final List<Worker> workers = new CopyOnWriteArrayList<>();
    final CompletableFuture<HttpResponseStatus> loaded = new CompletableFuture<>(); // all of the first ones, or one died
    private final Model model;
    private final EventLoopGroup group;
    private int missing; // of the first ones
    private boolean closed;

    WorkerPool(Model model, RequestQueue queue, EventLoopGroup group) {
        this.model = model;
        this.queue = queue;
        this.group = group;
        missing = model.getMinWorkers();
        for (int i = model.getMinWorkers(); i > 0; i--) {
            start();
        }
    }

    private synchronized void start() {
        if (!closed) {
            Worker worker = new Worker(model, this);
            workers.add(worker);
            worker.connect(group);
        }
    }

    synchronized void loaded(Worker worker) {
        missing--;
        if (missing == 0) {
            loaded.complete(HttpResponseStatus.OK);
        }
        queue.free(worker);
    }

    /** Its process has ended, or never came: another one takes its place. */
    void ended(Worker worker) {
        loaded.complete(HttpResponseStatus.INTERNAL_SERVER_ERROR); // says something only where it was not complete
        workers.remove(worker);
        long pause = worker.pid() > 0 ? PAUSE_MILLIS : LONG_PAUSE_MILLIS;
        ModelManager.getInstance().getScheduler().schedule(this::start, pause, TimeUnit.MILLISECONDS);
    }

    synchronized boolean isClosed() {
        return closed;
    }

    synchronized void close() {
        closed = true;
        workers.forEach(Worker::close);
        queue.close();
    }
}
