package byoc;

import byoc.workers.WorkerPool;
import io.netty.handler.codec.http.FullHttpResponse;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/** Has models loaded and unloaded, on threads of their own, which wait there for processes: each model on one at a time. */
final class ModelChanges {
    private static final Logger LOG = LoggerFactory.getLogger("models");
    private static final ExecutorService THREADS = Executors.newCachedThreadPool();

    private ModelChanges() {}

    /** Loads or unloads the model that the target or the body names; the caller hears of it when that is done. */
    static void change(Target target, String body, RequestContext caller) throws Refusal {
        Registration load = target.route == Route.LOAD_MODEL ? new Registration(body) : null;
        String model = (load == null ? target.model : load.model).intern(); // one object for all who change this model
        THREADS.execute(() -> {
            synchronized (model) {
                try {
                    caller.answer(Answers.json(200, Answers.object("status", load == null ? unload(model) : load(load))));
                } catch (Refusal refusal) {
                    caller.answer(refusal.answer());
                } catch (RuntimeException error) {
                    LOG.warn("{} could not be changed: {}", model, error.toString());
                    caller.answer(Refusal.internal().answer());
                }
            }
        });
    }

    private static String load(Registration load) throws Refusal {
        if (Health.workers.models().contains(load.model)) {
            throw new Refusal(409, "ConflictStatusException", "Model " + load.model + " is already registered.");
        }
        load.check();
        long bytes = ModelMemory.needed(load.weights);
        ModelMemory.promise(load.model, bytes);
        try {
            if (Health.workers.start(load.model, load.folder.toString()).join()) {
                return "Model \"" + load.model + "\" registered";
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
    }

    private static String unload(String model) throws Refusal {
        if (!Health.workers.stop(model)) {
            throw Refusal.noModel(model);
        }
        ModelMemory.unloaded();
        return "Model \"" + model + "\" unregistered";
    }
}
