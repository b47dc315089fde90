package byoc;

import com.amazonaws.ml.mms.wlm.Model;
import com.amazonaws.ml.mms.wlm.ModelManager;
import com.amazonaws.ml.mms.wlm.WorkerLifeCycle;
import com.amazonaws.ml.mms.wlm.WorkerState;
import com.amazonaws.ml.mms.wlm.WorkerThread;
import io.netty.handler.codec.http.HttpResponseStatus;
import java.lang.reflect.Method;
import java.util.Arrays;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * The model server replaces workers that died, but not the process that forks them: the thread that
 * waits for that process fails on a null channel before it could start it again. Nor does it
 * close the {@link Streams} of those that died, or remove their files.
 */
final class Watchdog {
    private static final Logger LOG = LoggerFactory.getLogger("watchdog");
    private static final long PAUSE_MILLIS = 200;
    // Before a worker that died time and again is started anew. The model server's own pauses grow to nearly a minute,
    // in which nobody is there to answer though whatever killed it may be over.
    private static final int PAUSE_SECONDS = 3;

    private Watchdog() {}

    static void start() throws ReflectiveOperationException {
        int[] pauses = (int[]) Streams.field("BACK_OFF").get(null);
        Arrays.setAll(pauses, i -> Math.min(pauses[i], PAUSE_SECONDS));
        Thread thread = new Thread(Watchdog::watch, "watchdog");
        thread.setDaemon(true);
        thread.start(); // must not end: the kernel ends the processes that it started along with it
    }

    private static void watch() {
        while (true) {
            try {
                Thread.sleep(PAUSE_MILLIS);
                ModelManager models = ModelManager.getInstance();
                for (Model model : models.getModels().values()) {
                    try {
                        revive(model);
                    } catch (Exception error) { // the next time, then; the other models do not wait for it
                        LOG.warn("the worker process of {} did not start: {}", model.getModelName(), error.toString());
                    }
                    for (WorkerThread worker : Health.workers(model.getModelName())) {
                        Streams.watch(model, worker);
                    }
                }
                Leftovers.remove();
            } catch (Exception error) {
                LOG.warn("the workers could not be looked after: {}", error.toString());
            }
        }
    }

    private static void revive(Model model) throws Exception {
        if (model.getServerThread() == null) {
            return; // being registered
        }
        WorkerThread thread = model.getServerThread();
        WorkerLifeCycle life = thread.getLifeCycle();
        Process process = life.getProcess();
        if (process != null && !process.isAlive()) {
            LOG.warn("the worker process of {} ended with {}; starting it again",
                    model.getModelName(), process.exitValue());
            life.startBackendServer(model.getPort());
            // Who registers the model may still be waiting for this: its thread failed if the first process died early.
            Method setState = WorkerThread.class.getDeclaredMethod(
                    "setState", WorkerState.class, HttpResponseStatus.class);
            setState.setAccessible(true);
            setState.invoke(thread, WorkerState.WORKER_MODEL_LOADED, HttpResponseStatus.OK);
        }
    }
}
