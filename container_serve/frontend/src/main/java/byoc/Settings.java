package byoc;

import byoc.workers.Memory;
import com.amazonaws.ml.mms.util.ConfigManager;
import java.util.EnumSet;
import java.util.Set;

/** The settings that the supervisor wrote for the filter into the model server's own properties file. */
final class Settings {
    final int timeoutSeconds;
    final int workers;
    final int queueSize;
    final int batch; // requests that a worker gets at a time, at most
    final int maxRequestBytes;
    final Memory memory;
    final boolean multiModel;
    final Set<Route.Group> routes; // that are served
    final String host; // this machine's own name
    final String version; // of this program

    Settings(ConfigManager config) {
        timeoutSeconds = Integer.parseInt(config.getProperty("byoc_timeout_seconds", "55"));
        workers = config.getDefaultWorkers();
        batch = Integer.parseInt(config.getProperty("byoc_batch", "1"));
        queueSize = Integer.parseInt(config.getProperty("byoc_queue_size", "100"));
        maxRequestBytes = config.getMaxRequestSize();
        memory = new Memory(bytes(config, "byoc_body_bytes"), bytes(config, "byoc_worker_bytes"));
        multiModel = Boolean.parseBoolean(config.getProperty("byoc_multi_model", "false"));
        routes = EnumSet.of(Route.Group.ALWAYS, multiModel ? Route.Group.SEVERAL_MODELS : Route.Group.ONE_MODEL);
        if (Boolean.parseBoolean(config.getProperty("byoc_page", "false"))) {
            routes.add(Route.Group.PAGE);
        }
        host = config.getProperty("byoc_host", "");
        version = config.getProperty("byoc_version", "");
    }

    private static long bytes(ConfigManager config, String key) {
        return Long.parseLong(config.getProperty(key, "100000000"));
    }
}
