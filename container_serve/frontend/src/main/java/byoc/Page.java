package byoc;

import com.google.gson.Gson;
import com.google.gson.JsonArray;
import com.google.gson.JsonObject;
import io.netty.handler.codec.http.FullHttpResponse;
import io.netty.handler.codec.http.HttpHeaderNames;
import io.netty.handler.codec.http.HttpRequest;
import java.io.IOException;
import java.io.Reader;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Locale;
import java.util.UUID;
import java.util.regex.Pattern;

/**
 * The page on which a person tries the model, and what it shows of models and limits: GET /info. It is there for this
 * machine's user, and off unless it was asked for.
 */
final class Page {
    // Nothing but the page's own two elements runs or is drawn, and it asks this server alone, with any text in a label.
    private static final String POLICY = "default-src 'none'; script-src 'nonce-NONCE'; style-src 'nonce-NONCE';"
            + " img-src blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    private static final Path FOLDER = Path.of(System.getProperty("model_server_home"), "page");
    private static final int MODELS = 100; // at most
    private static final String[] SHOWN =
            {"architecture", "precision", "classes", "preprocessing", "accuracy", "accuracy_interval"};
    // An address of this machine, and the name for itself.
    private static final Pattern ADDRESS = Pattern.compile("[0-9.]+|\\[.+\\]|localhost");

    private Page() {}

    /**
     * Refuses a request that came by a name which is not this machine's. Anyone can make a name of theirs lead here: a
     * browser would take the page below it for theirs, and let them read what this server answers (DNS rebinding).
     */
    static void checkHost(HttpRequest request) throws Refusal {
        String given = request.headers().get(HttpHeaderNames.HOST, "localhost"); // HTTP/1.0, which no browser speaks
        String host = given.replaceFirst(":[0-9]*$", "").toLowerCase(Locale.ROOT);
        if (!ADDRESS.matcher(host).matches() && !host.equals(Health.settings.host)) {
            throw new Refusal(421, "MisdirectedRequest", "This is answered at localhost, at this machine's name and at"
                    + " its IP addresses, not at the name " + RequestContext.printable(host, 100) + ".");
        }
    }

    static FullHttpResponse answer() throws Refusal {
        String nonce = UUID.randomUUID().toString();
        FullHttpResponse response = Answers.text("text/html; charset=utf-8", file("page.html").replace("NONCE", nonce));
        response.headers().set("Content-Security-Policy", POLICY.replace("NONCE", nonce)).set("Referrer-Policy", "no-referrer");
        return response;
    }

    /** One of the files that the supervisor has written for this server. */
    static String file(String name) throws Refusal {
        try {
            return Files.readString(FOLDER.resolve(name));
        } catch (IOException gone) {
            throw Refusal.internal();
        }
    }

    static JsonObject info() {
        Settings settings = Health.settings;
        JsonArray models = new JsonArray();
        Health.workers.models().stream().limit(MODELS).forEach(name ->
                models.add(model(name, settings.multiModel ? "/models/" + name + "/invoke" : "/invocations")));
        JsonObject info = Answers.object(
                "version", settings.version,
                "workers_per_model", settings.workers,
                "max_request_bytes", settings.maxRequestBytes,
                "timeout_seconds", settings.timeoutSeconds);
        info.add("models", models); // with the nulls in it
        return info;
    }

    /** The name and path, and what its model.json says; a program of the user's own may have none. */
    private static JsonObject model(String name, String path) {
        JsonObject model = Answers.object("name", name, "path", path);
        try (Reader file = Files.newBufferedReader(Path.of(Health.workers.pool(name).folder, "model.json"))) {
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
