package byoc;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.Paths;

/**
 * Where each model lies, as links in a folder of our own, which the workers read. The model server itself gets an empty
 * folder: of a model's own it would take a handler, another Python, or an archive to unpack, and put it on Python's path.
 */
final class ModelFolders {
    static final String EMPTY = "empty"; // in the model server's store
    private static final Path LINKS = Paths.get(System.getProperty("model_server_home"), "models");

    private ModelFolders() {}

    static void put(String model, Path folder) throws Refusal {
        try {
            remove(model);
            Files.createSymbolicLink(LINKS.resolve(model), folder);
        } catch (IOException full) {
            throw new Refusal(507, "InsufficientStorage", "The server's temporary folder (TMPDIR) is full.");
        }
    }

    static void remove(String model) throws IOException {
        Files.deleteIfExists(LINKS.resolve(model));
    }

    /** The folder as its caller named it. */
    static String get(String model) {
        try {
            return Files.readSymbolicLink(LINKS.resolve(model)).toString();
        } catch (IOException gone) {
            return "";
        }
    }
}
