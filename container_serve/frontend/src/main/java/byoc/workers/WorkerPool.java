package byoc.workers;

import com.amazonaws.ml.mms.util.ConfigManager;
import com.amazonaws.ml.mms.util.Connector;
import io.netty.channel.EventLoopGroup;
import java.io.File;
import java.io.IOException;
import java.lang.ProcessBuilder.Redirect;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.locks.LockSupport;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/** The workers of one model, the process that forks them, and the queue of its requests. */
public final class WorkerPool {
    private static final Logger LOG = LoggerFactory.getLogger("workers");
    static final long CONNECT_MILLIS = 20; // until it is tried again, while nobody listens
    private static final long PAUSE_MILLIS = 100;
    private static final long LONG_PAUSE_MILLIS = 1000; // where it did not come so far as to load the model
    /** Workers with a loaded model, of any, that have died since the start; most are replaced at once. */
    public static final AtomicInteger DIED = new AtomicInteger();

    public final RequestQueue queue;
    public final String folder; // the model's, as its caller named it
    public volatile String failure; // why a worker could not load the model; null: none has said so, or one has loaded it
    public volatile int diedLoading; // workers that died silently while they loaded it, since one has loaded it
    final CompletableFuture<Boolean> loaded = new CompletableFuture<>(); // true: by all the first ones; false: one ended
    final List<Worker> workers = new CopyOnWriteArrayList<>();
    final Connector connector;
    private final String name;
    private final EventLoopGroup group;
    private final int size = ConfigManager.getInstance().getDefaultWorkers();
    private int missing = size; // of the first ones, those that have not loaded the model yet
    private volatile Process forkServer; // null: it has not been started yet
    volatile boolean closed;

    /** `port`: of the workers' socket, or part of the name of its file. */
    WorkerPool(String name, String folder, int port, RequestQueue queue, EventLoopGroup group) {
        this.name = name;
        this.folder = folder;
        this.queue = queue;
        this.group = group;
        connector = new Connector(port);
        new Thread(this::runForkServer, "fork-server-" + name).start();
        for (int i = 0; i < size; i++) {
            start();
        }
    }

    /** Keeps the process running that forks the workers. The kernel ends it along with the thread that started it. */
    private void runForkServer() {
        // -P: no folder that it is started in is looked at for modules.
        ProcessBuilder builder = new ProcessBuilder(
                ConfigManager.getInstance().getProperty("byoc_python", ""), "-P", "-m", "container_serve.worker.main",
                connector.getSocketType(), connector.getSocketPath(), name, folder);
        builder.redirectInput(new File("/dev/null")).redirectOutput(Redirect.INHERIT).redirectErrorStream(true);
        while (!closed) {
            String end;
            try {
                forkServer = builder.start();
                if (closed) {
                    forkServer.destroyForcibly();
                }
                end = "ended with " + forkServer.waitFor();
            } catch (IOException | InterruptedException failed) {
                end = "cannot be started: " + failed.getMessage();
            }
            connector.clean(); // the socket's file goes
            if (!closed) {
                LOG.warn("the worker process of {} {}; starting it again", name, end);
                LockSupport.parkNanos(TimeUnit.MILLISECONDS.toNanos(2 * PAUSE_MILLIS));
            }
        }
    }

    private synchronized void start() {
        if (!closed && workers.size() < size) {
            Worker worker = new Worker(this);
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

    /** A worker cannot load the model. */
    void failed(String reason) {
        LOG.error("model {} cannot be loaded: {}", name, reason);
        failure = reason;
    }

    /** Its process has ended: another one takes its place. */
    synchronized void ended(Worker worker) {
        if (!worker.loaded) {
            diedLoading += worker.failed ? 0 : 1;
        } else if (!closed) {
            worker.loaded = false;
            DIED.incrementAndGet();
            LOG.warn("a worker died and is started again; {} to answer", countLoaded());
        }
        loaded.complete(false); // says something only where it was not complete
        replace(worker, worker.pid > 0 ? PAUSE_MILLIS : LONG_PAUSE_MILLIS);
    }

    void replace(Worker worker, long millis) {
        workers.remove(worker);
        group.schedule(this::start, millis, TimeUnit.MILLISECONDS);
    }

    /** Workers that hold the model; a killed one is noticed by its closed socket. */
    int countLoaded() {
        return (int) workers.stream().filter(worker -> worker.loaded).count();
    }

    synchronized void close() {
        closed = true;
        queue.close(); // first: who has a worker is told why that ends
        workers.forEach(Worker::close);
        if (forkServer != null) {
            forkServer.destroyForcibly();
        }
    }
}
