package byoc;

import com.amazonaws.ml.mms.wlm.BatchAggregator;
import com.amazonaws.ml.mms.wlm.Job;
import com.amazonaws.ml.mms.wlm.Model;
import com.amazonaws.ml.mms.wlm.ModelManager;
import com.amazonaws.ml.mms.wlm.WorkerThread;
import com.google.gson.JsonArray;
import java.lang.reflect.Field;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.Map;

/**
 * Workers that have had one request for longer than any may take. A worker ends itself then, by an alarm; one that was
 * stopped cannot, and would keep its place for ever.
 */
final class Stuck {
    private static final int GRACE_SECONDS = 5; // for the alarm, and for what a busy machine takes

    private static Map<WorkerThread, Held> held = new HashMap<>();

    private Stuck() {}

    private static final class Held {
        final Object job;
        final long since = System.nanoTime();

        Held(Object job) {
            this.job = job;
        }
    }

    /** Their process ids. */
    static synchronized JsonArray workers(int timeoutSeconds) {
        JsonArray stuck = new JsonArray();
        Map<WorkerThread, Held> now = new HashMap<>();
        for (Model model : ModelManager.getInstance().getModels().values()) {
            for (WorkerThread worker : Health.workers(model.getModelName())) {
                Job job = job(worker);
                if (job == null) {
                    continue;
                }
                Held before = held.get(worker);
                Held still = before != null && before.job == job ? before : new Held(job);
                now.put(worker, still);
                if (System.nanoTime() - still.since > (timeoutSeconds + GRACE_SECONDS) * 1_000_000_000L) {
                    stuck.add(worker.getPid());
                }
            }
        }
        held = now;
        return stuck;
    }

    /** The request that a worker has; null: none, or it loads the model, which may take its time. */
    private static Job job(WorkerThread worker) {
        try {
            Field jobs = BatchAggregator.class.getDeclaredField("jobs");
            jobs.setAccessible(true);
            for (Object job : new ArrayList<>(((Map<?, ?>) jobs.get(Streams.field("aggregator").get(worker))).values())) {
                if (job instanceof Job && !((Job) job).isControlCmd()) {
                    return (Job) job;
                }
            }
        } catch (ReflectiveOperationException error) {
            throw new IllegalStateException(error);
        } catch (RuntimeException changing) {
            // the list changed while it was read: it is not stuck
        }
        return null;
    }
}
