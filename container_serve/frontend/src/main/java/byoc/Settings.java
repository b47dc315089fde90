package byoc;

import com.amazonaws.ml.mms.util.ConfigManager;

/** What the supervisor wrote for the gate into the model server's own properties file. */
final class Settings {
    final int timeoutSeconds;
    final int workers;
    final int queueSize;
    final int maxRequestBytes;
    final long maxWaitingBytes;
    final boolean multiModel;

    Settings(ConfigManager config) {
        timeoutSeconds = Integer.parseInt(config.getProperty("byoc_timeout_seconds", "55"));
        workers = config.getDefaultWorkers();
        queueSize = Integer.parseInt(config.getProperty("byoc_queue_size", "100"));
        maxRequestBytes = config.getMaxRequestSize();
        maxWaitingBytes = Long.parseLong(config.getProperty("byoc_max_waiting_bytes", "100000000"));
        multiModel = Boolean.parseBoolean(config.getProperty("byoc_multi_model", "false"));
    }
}
