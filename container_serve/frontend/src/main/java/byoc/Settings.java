package byoc;

import byoc.workers.Memory;
import com.google.gson.Gson;
import java.util.Set;

/** The settings that the supervisor wrote for the filter, as JSON, into the model server's own properties file. */
final class Settings {
    int timeoutSeconds;
    int workers; // of a model
    int queueSize;
    int batch; // requests that a worker gets at a time, at most
    int maxRequestBytes;
    long bodyBytes; // for bodies and answers in this process
    long workerBytes; // for copies of bodies in the workers
    boolean multiModel;
    Set<Route.Group> routes; // that are served
    String modelDir; // of the only model
    String host; // this machine's own name
    String version; // of this program
    // With several models, of memory:
    long modelBytes; // what loading a model takes, beside its weights
    double weightCopies; // how often it takes those
    long imageBytes; // that each loaded worker may take for an image
    String memoryFolders; // the cgroups that have a limit, as a class path
    transient Memory memory;

    static Settings read(String json) {
        Settings settings = new Gson().fromJson(json, Settings.class);
        settings.memory = new Memory(settings.bodyBytes, settings.workerBytes);
        return settings;
    }
}
