package byoc;

import byoc.workers.Memory;
import com.amazonaws.ml.mms.util.ConfigManager;

/** What the supervisor wrote for the filter into the model server's own properties file. */
final class Settings {
    final int timeoutSeconds;
    final int workers;
    final int queueSize;
    final int batch; // requests that a worker gets at a time, at most
    final int maxRequestBytes;
    final Memory memory;
    final boolean multiModel;

    Settings(ConfigManager config) {
        timeoutSeconds = Integer.parseInt(config.getProperty("byoc_timeout_seconds", "55"));
        workers = config.getDefaultWorkers();
        batch = Integer.parseInt(config.getProperty("byoc_batch", "1"));
        queueSize = Integer.parseInt(config.getProperty("byoc_queue_size", "100"));
        maxRequestBytes = config.getMaxRequestSize();
        memory = new Memory(bytes(config, "byoc_body_bytes"), bytes(config, "byoc_worker_bytes"));
        multiModel = Boolean.parseBoolean(config.getProperty("byoc_multi_model", "false"));
    }

    private static long bytes(ConfigManager config, String key) {
        return Long.parseLong(config.getProperty(key, "100000000"));
    }
}
