package byoc.workers;

import com.amazonaws.ml.mms.util.ConfigManager;
import com.amazonaws.ml.mms.wlm.Model;
import com.amazonaws.ml.mms.wlm.WorkerInitializationException;
import com.amazonaws.ml.mms.wlm.WorkerLifeCycle;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.locks.LockSupport;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * The thread that keeps the process running which forks a model's workers. The kernel ends that process along with the
 * thread that started it.
 */
final class ForkServer extends Thread {
    private static final Logger LOG = LoggerFactory.getLogger("workers");
    private static final long PAUSE_NANOS = TimeUnit.MILLISECONDS.toNanos(200);

    private final Model model;
    private final Runnable started; // is called each time
    private volatile WorkerLifeCycle process;
    private volatile boolean closed;

    ForkServer(Model model, Runnable started) {
        super("fork-server-" + model.getModelName());
        this.model = model;
        this.started = started;
    }

    @Override
    public void run() {
        while (!closed) {
            process = new WorkerLifeCycle(ConfigManager.getInstance(), model);
            try {
                process.startBackendServer(model.getPort());
                if (!closed) {
                    started.run();
                    process.getProcess().waitFor();
                }
            } catch (InterruptedException | WorkerInitializationException failed) {
                LOG.debug("the worker process of {}: {}", model.getModelName(), failed.toString());
            }
            Integer status = process.getExitValue();
            process.exit(); // and its socket's file goes
            if (!closed) {
                LOG.warn("the worker process of {} ended with {}; starting it again", model.getModelName(), status);
                LockSupport.parkNanos(PAUSE_NANOS);
            }
        }
    }

    void close() {
        closed = true;
        if (process != null) {
            process.exit();
        }
    }
}
