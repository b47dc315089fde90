package byoc;

import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import java.io.IOException;
import java.nio.file.AccessDeniedException;
import java.nio.file.Files;
import java.nio.file.InvalidPathException;
import java.nio.file.NotDirectoryException;
import java.nio.file.Path;
import java.nio.file.Paths;
import java.util.stream.Stream;

/**
 * The body of a request to load a model: its name, and its local folder. The model server would also
 * download code from a URL and run any handler that the request names; of that it never hears.
 */
final class Registration {
    // Characters that mean the same however often they are decoded, and that name one file.
    static final String NAME = "[A-Za-z0-9][A-Za-z0-9._-]{0,199}";

    final String model;
    final Path folder;
    long weights; // their bytes, once it is checked

    /** Of the body two keys are read; others are ignored. */
    Registration(String text) throws Refusal {
        String url;
        try {
            JsonObject body = JsonParser.parseString(text).getAsJsonObject();
            model = body.getAsJsonPrimitive("model_name").getAsString();
            url = body.getAsJsonPrimitive("url").getAsString();
        } catch (RuntimeException invalid) {
            throw new Refusal(400, "BadRequest", "The body: expected {\"model_name\": NAME, \"url\": FOLDER} in JSON.");
        }
        if (!model.matches(NAME)) {
            throw new Refusal(400, "BadModelName", "model_name: got " + shown(model) + ", expected 1 to 200 of the"
                    + " characters A-Z a-z 0-9 . _ -, the first a letter or a digit.");
        }
        folder = folder(url);
    }

    /** Tells whether there is such a folder, and this process may read what is in it. */
    void check() throws Refusal {
        try (Stream<Path> files = Files.list(folder)) {
            for (Path file : (Iterable<Path>) files::iterator) {
                if (Files.exists(file) && !Files.isReadable(file)) {
                    throw denied();
                }
                weights += Files.isRegularFile(file) ? Files.size(file) : 0; // an own program may load any file
            }
            Path graph = folder.resolve("model.bin");
            weights = Files.exists(graph) ? Files.size(graph) : weights;
        } catch (AccessDeniedException unreadable) {
            throw denied();
        } catch (NotDirectoryException file) {
            throw new Refusal(400, "BadRequest", "url: " + shown(folder) + ": is not a folder; unpack model.tar.gz into one.");
        } catch (IOException missing) {
            throw new Refusal(404, "ModelNotFoundException", "url: " + shown(folder) + ": there is no such folder.");
        }
    }

    private Refusal denied() {
        String user = System.getProperty("user.name");
        return new Refusal(403, "PermissionDenied", "url: " + shown(folder) + " cannot be read by the user " + user
                + ", as whom the server runs: make it readable (chmod -R a+rX), or start the server with BYOC_USER=root.");
    }

    private static Path folder(String url) throws Refusal {
        try {
            Path path = Paths.get(url);
            if (path.isAbsolute() && path.equals(path.normalize())) {
                return path;
            }
        } catch (InvalidPathException invalid) { // as with a NUL in it
        }
        throw new Refusal(400, "BadRequest", "url: got " + shown(url) + ", expected the absolute path of a local folder.");
    }

    private static String shown(Object text) {
        return RequestContext.printable(text.toString(), 300);
    }
}
