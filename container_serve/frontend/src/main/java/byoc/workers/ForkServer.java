package byoc.workers;

import com.amazonaws.ml.mms.util.ConfigManager;
import com.amazonaws.ml.mms.wlm.BatchAggregator;
import com.amazonaws.ml.mms.wlm.Model;
import com.amazonaws.ml.mms.wlm.WorkerState;
import com.amazonaws.ml.mms.wlm.WorkerStateListener;
import com.amazonaws.ml.mms.wlm.WorkerThread;
import io.netty.channel.EventLoopGroup;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * The thread that keeps the process running which forks a model's workers. The kernel ends that process along with the
 * thread that started it. The model server would not start it again: it fails where it closes a connection that this
 * process does not have.
 */
final class ForkServer extends WorkerThread {
    private static final Logger LOG = LoggerFactory.getLogger("workers");
    private static final long PAUSE_MILLIS = 200;

    private final Model model;

    ForkServer(EventLoopGroup group, Model model, WorkerStateListener listener) {
        super(ConfigManager.getInstance(), group, model.getPort(), -1, model, new BatchAggregator(model), listener, 0, true);
        this.model = model;
    }

    @Override
    public void run() {
        while (getState() != WorkerState.WORKER_SCALED_DOWN) {
            try {
                super.run();
            } catch (NullPointerException notConnected) {
                // always, see above
            }
            Integer status = getLifeCycle().getExitValue();
            getLifeCycle().exit(); // and its socket's file goes
            try {
                if (getState() != WorkerState.WORKER_SCALED_DOWN) {
                    LOG.warn("the worker process of {} ended with {}; starting it again", model.getModelName(), status);
                    Thread.sleep(PAUSE_MILLIS);
                }
            } catch (InterruptedException asked) {
                // to end, most likely: the state says it
            }
        }
    }
}
