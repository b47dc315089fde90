package byoc;

import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonParseException;
import com.google.gson.JsonParser;
import java.io.IOException;
import java.nio.file.AccessDeniedException;
import java.nio.file.FileVisitOption;
import java.nio.file.FileVisitResult;
import java.nio.file.Files;
import java.nio.file.InvalidPathException;
import java.nio.file.Path;
import java.nio.file.Paths;
import java.nio.file.SimpleFileVisitor;
import java.nio.file.attribute.BasicFileAttributes;
import java.util.EnumSet;

/**
 * What a caller may say of a model to load: its name, and the local folder that it lies in. The model server would also
 * download code from a URL and run any handler that the request names; of that it never hears.
 */
final class Registration {
    private static final int LEVELS = 4; // of folders that are looked through
    private static final int FILES = 10_000;

    final String model;
    final Path folder;
    long weights; // their bytes, once it is checked

    Registration(String body) throws Refusal {
        JsonElement asked;
        try {
            asked = JsonParser.parseString(body);
        } catch (JsonParseException invalid) {
            asked = null;
        }
        if (asked == null || !asked.isJsonObject()) {
            throw new Refusal(400, "BadRequest", "The body: expected {\"model_name\": NAME, \"url\": FOLDER} in JSON.");
        }
        model = text(asked.getAsJsonObject(), "model_name");
        if (!Route.isModelName(model)) {
            throw new Refusal(400, "BadModelName", "model_name: got " + shown(model) + ", expected " + Route.NAMES + ".");
        }
        folder = folder(text(asked.getAsJsonObject(), "url"));
    }

    /** Whether there is such a folder, and this process may read what is in it. */
    void check() throws Refusal {
        int[] seen = {0};
        try {
            boolean isModel = Files.exists(folder.resolve("model.json")) || Files.exists(folder.resolve("code"));
            if (Files.isDirectory(folder) && Files.isReadable(folder) && Files.isExecutable(folder) && !isModel) {
                return; // any folder may have files that nobody may read: its worker says what is missing
            }
            Files.walkFileTree(folder.toRealPath(), EnumSet.noneOf(FileVisitOption.class), LEVELS, new SimpleFileVisitor<Path>() {
                @Override
                public FileVisitResult visitFile(Path file, BasicFileAttributes attributes) throws IOException {
                    if (Files.exists(file) && !Files.isReadable(file)) {
                        throw new AccessDeniedException(file.toString());
                    }
                    weights += attributes.size();
                    return ++seen[0] < FILES ? FileVisitResult.CONTINUE : FileVisitResult.TERMINATE;
                }
            });
            Path graph = folder.resolve("model.bin");
            weights = Files.exists(graph) ? Files.size(graph) : weights; // an own program may load any file
        } catch (AccessDeniedException denied) {
            String user = System.getProperty("user.name");
            throw new Refusal(403, "PermissionDenied", "url: " + shown(folder) + " cannot be read by the user " + user
                    + ", as whom the server runs: make it readable (chmod -R a+rX), or start the server with BYOC_USER=root.");
        } catch (IOException missing) {
            throw new Refusal(404, "ModelNotFound", "url: " + shown(folder) + ": there is no such folder.");
        }
        if (!Files.isDirectory(folder)) {
            throw new Refusal(400, "BadRequest", "url: " + shown(folder) + ": is not a folder; unpack model.tar.gz into one.");
        }
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

    private static String text(JsonObject asked, String key) {
        JsonElement value = asked.get(key);
        return value != null && value.isJsonPrimitive() ? value.getAsString() : "";
    }

    private static String shown(Object text) {
        return RequestContext.printable(text.toString(), 300);
    }
}
