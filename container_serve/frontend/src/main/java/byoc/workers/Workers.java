package byoc.workers;

import com.amazonaws.ml.mms.archive.Manifest;
import com.amazonaws.ml.mms.archive.ModelArchive;
import com.amazonaws.ml.mms.util.ConfigManager;
import com.amazonaws.ml.mms.wlm.Model;
import io.netty.channel.EventLoopGroup;
import java.io.File;
import java.util.Map;
import java.util.SortedSet;
import java.util.TreeSet;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;

/** The workers of all models, each with the queue of its model. */
public final class Workers {
    // All that the model server sees of a model: of its folder it would take a handler, another Python, or an archive to
    // unpack, and put it on Python's path.
    private static final String EMPTY = "empty";
    private static final int FIRST_PORT = 9000; // part of the name of a socket's file
    private static final long GRACE_NANOS = 5_000_000_000L; // for a worker's own alarm, and for a busy machine

    private final int capacity;
    private final int batch;
    private final long stuckNanos;
    private final Memory memory;
    private final EventLoopGroup group;
    private final AtomicInteger died = new AtomicInteger();
    private final AtomicInteger ports = new AtomicInteger(FIRST_PORT);
    private final Map<String, WorkerPool> pools = new ConcurrentHashMap<>();

    /** `capacity` of each model's queue; `batch`: requests that a worker has at a time, each for at most `seconds`. */
    public Workers(EventLoopGroup group, int capacity, int batch, int seconds, Memory memory) {
        this.group = group;
        this.capacity = capacity;
        this.batch = batch;
        this.memory = memory;
        stuckNanos = TimeUnit.SECONDS.toNanos(seconds) + GRACE_NANOS;
    }

    /** Starts the processes of a model in `folder`. True once all of its workers have loaded it, false where one could not. */
    public CompletableFuture<Boolean> start(String name, String folder) {
        ConfigManager config = ConfigManager.getInstance();
        int seconds = config.getDefaultResponseTimeoutSeconds();
        Manifest manifest = new Manifest();
        manifest.getModel().setModelName(name);
        manifest.getModel().setHandler("");
        ModelArchive archive = new ModelArchive(manifest, folder, new File(config.getModelStore(), EMPTY), false);
        Model model = new Model(archive, 1, config.getPreloadModel());
        model.setPort(ports.getAndIncrement());
        model.setResponseTimeoutSeconds(seconds);
        RequestQueue queue = new RequestQueue(capacity, batch, memory);
        WorkerPool pool = new WorkerPool(model, config.getDefaultWorkers(), queue, group, died);
        pools.put(name, pool);
        return pool.loaded.completeOnTimeout(false, seconds, TimeUnit.SECONDS);
    }

    /** Ends a model's processes. False: there is no such model. */
    public boolean stop(String name) {
        WorkerPool pool = pools.remove(name);
        if (pool != null) {
            pool.close();
        }
        return pool != null;
    }

    /** The names of the models that were started. */
    public SortedSet<String> models() {
        return new TreeSet<>(pools.keySet());
    }

    /** Null where there is no such model. */
    public WorkerPool pool(String name) {
        return pools.get(name);
    }

    /** Ends the workers that have had one request for longer than any may take; most end themselves before. */
    public void endStuck() {
        pools.values().forEach(pool -> pool.workers.forEach(worker -> worker.endIfStuck(stuckNanos)));
    }

    /** The number of workers with a loaded model that have died since the start; most are replaced at once. */
    public int died() {
        return died.get();
    }

    /** Requests of all models that wait for a worker. */
    public int waiting() {
        return pools.values().stream().mapToInt(pool -> pool.queue.waiting()).sum();
    }

    /** Of all models, those that hold a loaded one. */
    public int loaded() {
        return pools.values().stream().mapToInt(WorkerPool::countLoaded).sum();
    }
}
