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
import java.util.function.Supplier;

/** The workers of all models, each with the queue of its model. */
public final class Workers {
    private static final int FIRST_PORT = 9000; // part of the name of a socket's file

    private final EventLoopGroup group;
    private final Supplier<RequestQueue> queues;
    private final AtomicInteger ports = new AtomicInteger(FIRST_PORT);
    private final Map<String, WorkerPool> pools = new ConcurrentHashMap<>();

    /** `queues` makes one for a model. */
    public Workers(EventLoopGroup group, Supplier<RequestQueue> queues) {
        this.group = group;
        this.queues = queues;
    }

    /** Starts the processes of a model in `folder`. True once all of its workers have loaded it, false where one could not. */
    public CompletableFuture<Boolean> start(String name, String folder) {
        WorkerPool pool = new WorkerPool(name, folder, ports.getAndIncrement(), queues.get(), group);
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

    /** Ends the workers that have had one request for longer than that. */
    public void endStuck(int seconds) {
        long nanos = TimeUnit.SECONDS.toNanos(seconds);
        pools.values().forEach(pool -> pool.workers.forEach(worker -> worker.endIfStuck(nanos)));
    }

    /** Requests of all models that wait for a worker. */
    public int waiting() {
        return pools.values().stream().mapToInt(pool -> pool.queue.waiting()).sum();
    }

    /** Requests of all models, those that a worker has included. */
    public int queued() {
        return pools.values().stream().mapToInt(pool -> pool.queue.queued()).sum();
    }

    /** Of all models, those that hold a loaded one. */
    public int loaded() {
        return pools.values().stream().mapToInt(WorkerPool::countLoaded).sum();
    }
}
