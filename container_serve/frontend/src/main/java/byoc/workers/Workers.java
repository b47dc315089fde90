package byoc.workers;

import com.amazonaws.ml.mms.util.ConfigManager;
import com.amazonaws.ml.mms.wlm.Model;
import com.amazonaws.ml.mms.wlm.ModelManager;
import com.amazonaws.ml.mms.wlm.WorkLoadManager;
import com.amazonaws.ml.mms.wlm.WorkerState;
import com.amazonaws.ml.mms.wlm.WorkerStateListener;
import com.amazonaws.ml.mms.wlm.WorkerThread;
import com.google.gson.JsonArray;
import io.netty.channel.EventLoopGroup;
import io.netty.handler.codec.http.HttpResponseStatus;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.concurrent.atomic.AtomicInteger;

/** The workers of all models, each with the queue of its model; in the place of the model server's own bookkeeping. */
public final class Workers extends WorkLoadManager {
    private static final int FIRST_PORT = 9000; // part of the name of a socket's file
    private static final long START_MINUTES = 1;
    private static final long GRACE_NANOS = 5_000_000_000L; // for a worker's own alarm, and for a busy machine
    private static final long PAUSE_MILLIS = 100;
    private static final long LONG_PAUSE_MILLIS = 1000; // where it did not come so far as to load the model

    private final int capacity;
    private final int batch;
    private final long stuckNanos;
    private final Memory memory;
    private final EventLoopGroup group;
    private final int answerBytes;
    private final AtomicInteger threads = new AtomicInteger();
    private final AtomicInteger ports = new AtomicInteger(FIRST_PORT);
    private final Map<String, Pool> pools = new ConcurrentHashMap<>();

    /** `capacity` of each model's queue; `batch`: requests that a worker has at a time, each for at most `seconds`. */
    public Workers(ConfigManager config, EventLoopGroup group, int capacity, int batch, int seconds, Memory memory) {
        super(config, group);
        this.capacity = capacity;
        this.batch = batch;
        this.memory = memory;
        stuckNanos = TimeUnit.SECONDS.toNanos(seconds) + GRACE_NANOS;
        this.group = group;
        answerBytes = config.getMaxResponseSize();
    }

    /** One model's. */
    private final class Pool {
        final Model model;
        final RequestQueue queue;
        final List<Worker> workers = new CopyOnWriteArrayList<>();
        private final WorkerStateListener listener;
        private boolean closed;

        Pool(Model model, CompletableFuture<HttpResponseStatus> loaded) {
            this.model = model;
            queue = new RequestQueue(capacity, batch, memory);
            listener = new WorkerStateListener(loaded, model.getMinWorkers());
        }

        synchronized void start() {
            if (closed) {
                return;
            }
            Assignment assignment = new Assignment(model, queue);
            Worker worker = new Worker(assignment.encoding(group, answerBytes), model, assignment, listener, threads.getAndIncrement(), this::replace);
            workers.add(worker);
            scheduleAsync(worker);
        }

        private void replace(Worker ended) {
            workers.remove(ended);
            long pause = ended.getPid() > 0 ? PAUSE_MILLIS : LONG_PAUSE_MILLIS;
            ModelManager.getInstance().getScheduler().schedule(this::start, pause, TimeUnit.MILLISECONDS);
        }

        synchronized void close() {
            closed = true;
            workers.forEach(WorkerThread::shutdown);
            queue.close();
        }
    }

    /** Null where `model` is, or no such model is there. */
    public RequestQueue queue(String model) {
        Pool pool = model == null ? null : pools.get(model);
        return pool == null ? null : pool.queue;
    }

    /** Process ids of workers that have had one request for longer than any may take. Each ends itself, if it can. */
    public JsonArray stuck() {
        JsonArray stuck = new JsonArray();
        for (Pool pool : pools.values()) {
            pool.workers.stream().filter(worker -> worker.isStuck(stuckNanos)).forEach(worker -> stuck.add(worker.getPid()));
        }
        return stuck;
    }

    @Override
    public List<WorkerThread> getWorkers(String model) {
        Pool pool = pools.get(model);
        return pool == null ? List.of() : new ArrayList<>(pool.workers);
    }

    @Override
    public boolean hasNoWorker(String model) {
        return getWorkers(model).isEmpty();
    }

    @Override
    public int getNumRunningWorkers(String model) {
        return getWorkers(model).size();
    }

    /** Of all models, those that hold a loaded one; a killed one is noticed by its closed socket. */
    public int loaded() {
        return (int) pools.values().stream()
                .flatMap(pool -> pool.workers.stream())
                .filter(worker -> worker.getState() == WorkerState.WORKER_MODEL_LOADED)
                .count();
    }

    @Override
    public CompletableFuture<HttpResponseStatus> modelChanged(Model model) {
        Pool before = pools.remove(model.getModelName());
        if (before != null) {
            before.close();
        }
        if (model.getMinWorkers() == 0) {
            CompletableFuture<HttpResponseStatus> ended = super.modelChanged(model); // of the fork server
            model.getServerThread().getLifeCycle().exit();
            return ended;
        }
        CompletableFuture<HttpResponseStatus> loaded = new CompletableFuture<>();
        Pool pool = new Pool(model, loaded);
        pools.put(model.getModelName(), pool);
        for (int i = 0; i < model.getMinWorkers(); i++) {
            pool.start();
        }
        return loaded;
    }

    @Override
    public void addServerThread(Model model, CompletableFuture<HttpResponseStatus> started)
            throws InterruptedException, ExecutionException, TimeoutException {
        model.setPort(ports.getAndIncrement());
        ForkServer server =
                new ForkServer(group, model, new WorkerStateListener(started, 1), threads.getAndIncrement());
        model.setServerThread(server);
        scheduleAsync(server);
        started.get(START_MINUTES, TimeUnit.MINUTES);
    }

    /** The model server would start a worker's thread again some time after its end. */
    @Override
    public void scheduleAsync(Runnable task) {
        if (!(task instanceof Worker) || !((Worker) task).hasEnded()) {
            super.scheduleAsync(task);
        }
    }
}
