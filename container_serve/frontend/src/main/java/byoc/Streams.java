package byoc;

import com.amazonaws.ml.mms.util.ConfigManager;
import com.amazonaws.ml.mms.wlm.Model;
import com.amazonaws.ml.mms.wlm.WorkerLifeCycle;
import com.amazonaws.ml.mms.wlm.WorkerState;
import com.amazonaws.ml.mms.wlm.WorkerThread;
import java.io.Closeable;
import java.io.IOException;
import java.io.InputStream;
import java.lang.reflect.Field;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * What the model server reads of a worker's output: two named pipes, each with a thread of its own. It opens them for
 * reading and writing, so that it never sees the end of a worker that died, and would keep threads and pipes for as long
 * as it runs. They are closed here when the worker's next process brings its own.
 */
final class Streams extends WorkerLifeCycle {
    private static final Logger LOG = LoggerFactory.getLogger("streams");

    private Closeable[] open;

    private Streams(Model model) {
        super(ConfigManager.getInstance(), model);
    }

    /** Gives a worker one of these in the place of its own life cycle; it takes over the streams that are open. */
    static synchronized void watch(Model model, WorkerThread worker) {
        if (worker.isServerThread() || worker.getLifeCycle() instanceof Streams) {
            return;
        }
        Streams streams = new Streams(model);
        streams.setPid(worker.getPid());
        try {
            field("lifeCycle").set(worker, streams);
            synchronized (streams) {
                if (streams.open == null && worker.getState() == WorkerState.WORKER_MODEL_LOADED) {
                    streams.open = new Closeable[] {
                        (Closeable) field("out").get(worker), (Closeable) field("err").get(worker)
                    };
                }
            }
        } catch (ReflectiveOperationException error) {
            throw new IllegalStateException(error);
        }
    }

    @Override
    public synchronized void attachIOStreams(String name, InputStream out, InputStream err) {
        if (open != null) {
            for (Closeable stream : open) {
                try {
                    stream.close(); // its reader wakes and ends
                } catch (IOException error) {
                    LOG.warn("the output of a worker that ended could not be closed: {}", error.toString());
                }
            }
        }
        open = new Closeable[] {out, err};
        super.attachIOStreams(name, out, err);
    }

    /** The model server's own, private field of a worker. */
    static Field field(String name) throws NoSuchFieldException {
        Field field = WorkerThread.class.getDeclaredField(name);
        field.setAccessible(true);
        return field;
    }
}
