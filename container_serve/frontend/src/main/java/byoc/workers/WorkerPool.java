package byoc.workers;

import com.amazonaws.ml.mms.util.ConfigManager;
import com.amazonaws.ml.mms.wlm.Model;
import com.amazonaws.ml.mms.wlm.WorkerInitializationException;
import com.amazonaws.ml.mms.wlm.WorkerLifeCycle;
import io.netty.channel.EventLoopGroup;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.locks.LockSupport;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/** The workers of one model, and the queue of its requests. */
public final class WorkerPool {
    private static final Logger LOG = LoggerFactory.getLogger("workers");
    private static final long PAUSE_MILLIS = 100;
    private static final long LONG_PAUSE_MILLIS = 1000; // where it did not come so far as to load the model

    public final RequestQueue queue;
    public volatile String failure; // why a worker could not load the model; null: none has said so, or one has loaded it
    public volatile int diedLoading; // workers that died silently while they loaded it, since one has loaded it
    final CompletableFuture<Boolean> loaded = new CompletableFuture<>(); // true: by all the first ones; false: one ended
    final List<Worker> workers = new CopyOnWriteArrayList<>();
    private final Model model;
    private final EventLoopGroup group;
    private final int size;
    private final AtomicInteger died; // workers of any model that had loaded it
    private int missing; // of the first ones, those that have not loaded the model yet
    private volatile WorkerLifeCycle forkServer; // the process that forks the workers
    private volatile boolean closed;

    WorkerPool(Model model, int size, RequestQueue queue, EventLoopGroup group, AtomicInteger died) {
        this.model = model;
        this.queue = queue;
        this.group = group;
        this.size = size;
        this.died = died;
        missing = size;
        new Thread(this::runForkServer, "fork-server-" + model.getModelName()).start();
    }

    /** Keeps the process running that forks the workers. The kernel ends it along with the thread that started it. */
    private void runForkServer() {
        while (!closed) {
            forkServer = new WorkerLifeCycle(ConfigManager.getInstance(), model);
            try {
                forkServer.startBackendServer(model.getPort());
                for (int i = 0; i < size; i++) {
                    start();
                }
                if (!closed) {
                    forkServer.getProcess().waitFor();
                }
            } catch (InterruptedException | WorkerInitializationException failed) {
                LOG.debug("the worker process of {}: {}", model.getModelName(), failed.toString());
            }
            Integer status = forkServer.getExitValue();
            forkServer.exit(); // and its socket's file goes
            if (!closed) {
                LOG.warn("the worker process of {} ended with {}; starting it again", model.getModelName(), status);
                LockSupport.parkNanos(TimeUnit.MILLISECONDS.toNanos(2 * PAUSE_MILLIS));
            }
        }
    }

    private synchronized void start() {
        if (!closed && workers.size() < size) {
            Worker worker = new Worker(model, this);
            workers.add(worker);
            worker.connect(group);
        }
    }

    synchronized void loaded(Worker worker) {
        failure = null;
        diedLoading = 0;
        missing--;
        if (missing == 0) {
            loaded.complete(true);
        }
        queue.free(worker);
    }

    /** The model's, as its caller named it. */
    public String folder() {
        return model.getModelUrl();
    }

    /** A worker cannot load the model. */
    void failed(String reason) {
        LOG.error("model {} cannot be loaded: {}", model.getModelName(), reason);
        failure = reason;
    }

    synchronized void diedLoading() {
        diedLoading++;
    }

    void died() {
        died.incrementAndGet();
        LOG.warn("a worker died and is started again; {} to answer", countLoaded());
    }

    /** Its process has ended, or never came: another one takes its place. */
    void ended(Worker worker) {
        loaded.complete(false); // says something only where it was not complete
        workers.remove(worker);
        long pause = worker.pid() > 0 ? PAUSE_MILLIS : LONG_PAUSE_MILLIS;
        group.schedule(this::start, pause, TimeUnit.MILLISECONDS);
    }

    /** Workers that hold the model; a killed one is noticed by its closed socket. */
    int countLoaded() {
        return (int) workers.stream().filter(Worker::isLoaded).count();
    }

    boolean isClosed() {
        return closed;
    }

    synchronized void close() {
        closed = true;
        workers.forEach(Worker::close);
        if (forkServer != null) {
            forkServer.exit();
        }
        queue.close();
    }
}
