package byoc.workers;

import com.amazonaws.ml.mms.util.ConfigManager;
import com.amazonaws.ml.mms.wlm.Model;
import com.amazonaws.ml.mms.wlm.WorkLoadManager;
import com.amazonaws.ml.mms.wlm.WorkerStateListener;
import com.google.gson.JsonArray;
import io.netty.channel.EventLoopGroup;
import io.netty.handler.codec.http.HttpResponseStatus;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.concurrent.atomic.AtomicInteger;

/** The workers of all models, each with the queue of its model; in the place of the model server's own bookkeeping. */
public final class Workers extends WorkLoadManager {
    private static final int FIRST_PORT = 9000; // part of the name of a socket's file
    private static final long START_MINUTES = 1;
    private static final long GRACE_NANOS = 5_000_000_000L; // for a worker's own alarm, and for a busy machine

    private final int capacity;
    private final int batch;
    private final long stuckNanos;
    private final Memory memory;
    private final EventLoopGroup group;
    private final AtomicInteger ports = new AtomicInteger(FIRST_PORT);
    private final Map<String, WorkerPool> pools = new ConcurrentHashMap<>();

    /** `capacity` of each model's queue; `batch`: requests that a worker has at a time, each for at most `seconds`. */
    public Workers(ConfigManager config, EventLoopGroup group, int capacity, int batch, int seconds, Memory memory) {
        super(config, group);
        this.capacity = capacity;
        this.batch = batch;
        this.memory = memory;
        stuckNanos = TimeUnit.SECONDS.toNanos(seconds) + GRACE_NANOS;
        this.group = group;
    }

    /** Null where `model` is, or no such model is there. */
    public RequestQueue queue(String model) {
        WorkerPool pool = model == null ? null : pools.get(model);
        return pool == null ? null : pool.queue;
    }

    /** Process ids of workers that have had one request for longer than any may take. Each ends itself, if it can. */
    public JsonArray stuck() {
        JsonArray stuck = new JsonArray();
        for (WorkerPool pool : pools.values()) {
            pool.workers.stream().filter(worker -> worker.isStuck(stuckNanos)).forEach(worker -> stuck.add(worker.pid()));
        }
        return stuck;
    }

    /** Of all models, those that hold a loaded one; a killed one is noticed by its closed socket. */
    public int loaded() {
        return (int) pools.values().stream().flatMap(pool -> pool.workers.stream()).filter(Worker::isLoaded).count();
    }

    @Override
    public CompletableFuture<HttpResponseStatus> modelChanged(Model model) {
        WorkerPool before = pools.remove(model.getModelName());
        if (before != null) {
            before.close();
        }
        if (model.getMinWorkers() == 0) {
            CompletableFuture<HttpResponseStatus> ended = super.modelChanged(model); // of the fork server
            model.getServerThread().getLifeCycle().exit();
            return ended;
        }
        WorkerPool pool = new WorkerPool(model, new RequestQueue(capacity, batch, memory), group);
        pools.put(model.getModelName(), pool);
        return pool.loaded;
    }

    @Override
    public void addServerThread(Model model, CompletableFuture<HttpResponseStatus> started)
            throws InterruptedException, ExecutionException, TimeoutException {
        model.setPort(ports.getAndIncrement());
        ForkServer server = new ForkServer(group, model, new WorkerStateListener(started, 1));
        model.setServerThread(server);
        scheduleAsync(server);
        started.get(START_MINUTES, TimeUnit.MINUTES);
    }
}
