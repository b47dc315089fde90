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
    final long modelBytes; // that loading any model takes, with all its workers
    final double weightCopies; // of the model's weights, which it takes beside that
    final long pictureBytes; // that a worker may take to decode one
    final String memoryFolders; // cgroups with a limit

    Settings(ConfigManager config) {
        timeoutSeconds = Integer.parseInt(config.getProperty("byoc_timeout_seconds", "55"));
        workers = config.getDefaultWorkers();
        queueSize = Integer.parseInt(config.getProperty("byoc_queue_size", "100"));
        maxRequestBytes = config.getMaxRequestSize();
        maxWaitingBytes = Long.parseLong(config.getProperty("byoc_max_waiting_bytes", "100000000"));
        modelBytes = Long.parseLong(config.getProperty("byoc_model_bytes", "0"));
        weightCopies = Double.parseDouble(config.getProperty("byoc_weight_copies", "0"));
        pictureBytes = Long.parseLong(config.getProperty("byoc_picture_bytes", "0"));
        memoryFolders = config.getProperty("byoc_memory_folders", "");
        multiModel = Boolean.parseBoolean(config.getProperty("byoc_multi_model", "false"));
    }
}
