package byoc;

import byoc.workers.WorkerPool;
import com.google.gson.Gson;
import com.google.gson.JsonArray;
import com.google.gson.JsonObject;
import java.io.IOException;
import java.io.Reader;
import java.nio.file.Files;
import java.nio.file.Path;

/** The answer of GET /info: the models that are served, as their model.json describes them, and the server's limits. */
final class Info {
    private static final int MODELS = 100; // at most
    private static final String[] SHOWN =
            {"architecture", "precision", "classes", "preprocessing", "accuracy", "accuracy_interval"};

    private Info() {}

    static JsonObject all(Settings settings) {
        JsonArray models = new JsonArray();
        Health.workers.models().stream().limit(MODELS).forEach(name ->
                models.add(model(name, settings.multiModel ? "/models/" + name + "/invoke" : "/invocations")));
        JsonObject info = Answers.object(
                "version", settings.version,
                "workers_per_model", settings.workers,
                "max_request_bytes", settings.maxRequestBytes,
                "timeout_seconds", settings.timeoutSeconds);
        info.add("models", models);
        return info;
    }

    /** The name and path alone where the model is a program of the user's own, without a model.json. */
    private static JsonObject model(String name, String path) {
        JsonObject model = Answers.object("name", name, "path", path);
        WorkerPool pool = Health.workers.pool(name);
        try (Reader file = Files.newBufferedReader(Path.of(pool.folder(), "model.json"))) {
            JsonObject document = new Gson().fromJson(file, JsonObject.class);
            for (String key : SHOWN) {
                model.add(key, document.get(key));
            }
            JsonObject data = document.getAsJsonObject("data");
            model.add("images", data == null ? null : data.get("images"));
        } catch (IOException | RuntimeException none) {
            // the worker that loads it says what is wrong with it
        }
        return model;
    }
}
