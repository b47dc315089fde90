package byoc;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.DirectoryStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.Paths;

/**
 * Where each model lies, as links in a folder of our own, which the workers read; and what they leave there of a load.
 */
final class ModelFolders {
    private static final Path RUN = Paths.get(System.getProperty("model_server_home"));
    private static final Path LINKS = RUN.resolve("models");
    private static final String FAILURE = "load-failure-"; // and the model's name: why a worker could not load it
    private static final String LOADING = "loading-*"; // of each worker that loads a model; holds the model's name

    private ModelFolders() {}

    static void put(String model, Path folder) throws Refusal {
        try {
            remove(model);
            Files.deleteIfExists(RUN.resolve(FAILURE + model));
            Files.createSymbolicLink(LINKS.resolve(model), folder);
        } catch (IOException full) {
            throw new Refusal(507, "InsufficientStorage", "The server's temporary folder (TMPDIR) is full.");
        }
    }

    static void remove(String model) {
        LINKS.resolve(model).toFile().delete();
    }

    /** Why the model could not be loaded. */
    static Refusal failure(String model) {
        Path told = RUN.resolve(FAILURE + model);
        try (DirectoryStream<Path> loading = Files.newDirectoryStream(RUN, LOADING)) {
            remove(model);
            if (Files.exists(told)) {
                String reason = Files.readString(told);
                Files.delete(told);
                return new Refusal(500, "ModelLoadFailed", reason);
            }
            for (Path worker : loading) {
                if (Files.readString(worker).equals(model)) {
                    Files.delete(worker);
                    return new Refusal(507, "InsufficientMemory", "A worker was killed while it loaded the model,"
                            + " probably for lack of memory: unload another model first.");
                }
            }
        } catch (IOException | UncheckedIOException gone) {
            // the log says more
        }
        return new Refusal(500, "ModelLoadFailed", "No worker of the model started; the server's log says more.");
    }

    /** The model's folder, as its workers read it. */
    static Path folder(String model) {
        return LINKS.resolve(model);
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
