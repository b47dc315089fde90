package byoc;

import com.amazonaws.ml.mms.archive.ModelException;
import com.amazonaws.ml.mms.util.ConfigManager;
import com.amazonaws.ml.mms.wlm.ModelManager;
import io.netty.handler.codec.http.FullHttpResponse;
import io.netty.handler.codec.http.HttpResponseStatus;
import java.io.IOException;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeoutException;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Has models loaded and unloaded, on threads of their own: the model server waits there for processes. What concerns one
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
            if (ModelManager.getInstance().getModels().containsKey(load.model)) { // its workers go on to read its link
                throw new Refusal(409, "ConflictStatusException", "Model " + load.model + " is already registered.");
            }
            load.check();
            long bytes = ModelMemory.needed(load.weights);
            ModelMemory.promise(load.model, bytes);
            try {
                ModelFolders.put(load.model, load.folder);
                if (start(load.model).get().equals(HttpResponseStatus.OK)) {
                    return answer("Model \"" + load.model + "\" registered");
                }
            } catch (ExecutionException | InterruptedException | IOException | ModelException | TimeoutException error) {
                LOG.warn("{} could not be loaded: {}", load.model, error.toString());
            } finally {
                ModelMemory.giveBack(bytes);
            }
            // The model server knows that no worker started; why, the worker has left in a file.
            ModelManager.getInstance().unregisterModel(load.model);
            throw ModelFolders.failure(load.model);
        } catch (Refusal refusal) {
            return refusal.answer();
        }
    }

    /** Starts the process that forks a model's workers, and those; the result is there when all of them have loaded it. */
    static CompletableFuture<HttpResponseStatus> start(String model)
            throws ExecutionException, InterruptedException, IOException, ModelException, TimeoutException {
        ConfigManager config = ConfigManager.getInstance();
        ModelManager models = ModelManager.getInstance();
        int seconds = config.getDefaultResponseTimeoutSeconds();
        models.registerModel(ModelFolders.EMPTY, model, null, null, 1, 0, seconds, null, config.getPreloadModel());
        return models.updateModel(model, config.getDefaultWorkers(), config.getDefaultWorkers());
    }

    private static FullHttpResponse unload(String model) {
        HttpResponseStatus status = ModelManager.getInstance().unregisterModel(model);
        if (status.equals(HttpResponseStatus.NOT_FOUND)) {
            return Refusal.noModel(model).answer();
        }
        if (!status.equals(HttpResponseStatus.OK)) {
            return new Refusal(500, "ModelUnloadFailed", "Model " + model + "'s processes have not ended in time.").answer();
        }
        ModelFolders.remove(model);
        ModelMemory.unloaded();
        return answer("Model \"" + model + "\" unregistered");
    }

    private static FullHttpResponse answer(String status) {
        return Answers.json(200, Answers.object("status", status));
    }
}
