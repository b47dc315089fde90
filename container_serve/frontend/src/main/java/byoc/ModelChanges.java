package byoc;

import byoc.workers.WorkerPool;
import io.netty.handler.codec.http.FullHttpResponse;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Has models loaded and unloaded, on threads of their own, which wait there for processes. What concerns one
 * model waits until what was asked for before is done.
 */
final class ModelChanges {
    private static final Logger LOG = LoggerFactory.getLogger("models");
    private static final Map<String, CompletableFuture<Void>> LAST = new ConcurrentHashMap<>();
    private static final ExecutorService THREADS = Executors.newCachedThreadPool(task -> {
        Thread thread = new Thread(task, "models");
        thread.setDaemon(true);
        return thread;
    });

    private ModelChanges() {}

    /** Loads or unloads the model that the target or the body names; the caller hears of it when that is done. */
    static void change(Target target, String body, RequestContext caller) throws Refusal {
        Registration load = target.route == Route.LOAD_MODEL ? new Registration(body) : null;
        String model = load == null ? target.model : load.model;
        CompletableFuture<Void> change = LAST.compute(model, (name, last) ->
                (last == null ? CompletableFuture.<Void>completedFuture(null) : last)
                        .thenRunAsync(() -> caller.answer(load == null ? unload(model) : load(load)), THREADS)
                        .exceptionally(error -> {
                            LOG.warn("{} could not be changed: {}", model, error.toString());
                            caller.answer(Refusal.internal().answer());
                            return null;
                        }));
        change.thenRun(() -> LAST.remove(model, change));
    }

    private static FullHttpResponse load(Registration load) {
        try {
            if (Health.workers.models().contains(load.model)) {
                throw new Refusal(409, "ConflictStatusException", "Model " + load.model + " is already registered.");
            }
            load.check();
            long bytes = ModelMemory.needed(load.weights);
            ModelMemory.promise(load.model, bytes);
            try {
                if (Health.workers.start(load.model, load.folder.toString()).join()) {
                    return answer("Model \"" + load.model + "\" registered");
                }
            } finally {
                ModelMemory.giveBack(bytes);
            }
            WorkerPool pool = Health.workers.pool(load.model);
            unload(load.model);
            if (pool.failure == null && pool.diedLoading > 0) {
                throw new Refusal(507, "InsufficientMemory", "A worker was killed while it loaded the model, probably for"
                        + " lack of memory: unload another model first.");
            }
            String other = "No worker of the model started; the server's log says more.";
            throw new Refusal(500, "ModelLoadFailed", pool.failure == null ? other : pool.failure);
        } catch (Refusal refusal) {
            return refusal.answer();
        }
    }

    private static FullHttpResponse unload(String model) {
        if (!Health.workers.stop(model)) {
            return Refusal.noModel(model).answer();
        }
        ModelMemory.unloaded();
        return answer("Model \"" + model + "\" unregistered");
    }

    private static FullHttpResponse answer(String status) {
        return Answers.json(200, Answers.object("status", status));
    }
}
