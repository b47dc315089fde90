package byoc.workers;

import com.amazonaws.ml.mms.util.ConfigManager;
import io.netty.channel.EventLoopGroup;
import java.util.Map;
import java.util.SortedSet;
import java.util.TreeSet;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;

/** The workers of all models, each with the queue of its model. */
public final class Workers {
    private static final int FIRST_PORT = 9000; // part of the name of a socket's file
    private static final long GRACE_NANOS = 1_000_000_000L;

    private final int capacity;
    private final int batch;
    private final long stuckNanos;
    private final Memory memory;
    private final EventLoopGroup group;
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
        RequestQueue queue = new RequestQueue(capacity, batch, memory);
        WorkerPool pool = new WorkerPool(name, folder, ports.getAndIncrement(), queue, group);
        pools.put(name, pool);
        int seconds = ConfigManager.getInstance().getDefaultResponseTimeoutSeconds();
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

    /** Ends the workers that have had one request for longer than any may take: its caller has been answered 504. */
    public void endStuck() {
        pools.values().forEach(pool -> pool.workers.forEach(worker -> worker.endIfStuck(stuckNanos)));
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
