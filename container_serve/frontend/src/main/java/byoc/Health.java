package byoc;

import byoc.workers.WorkerPool;
import byoc.workers.Workers;
import com.google.gson.JsonObject;
import java.util.concurrent.atomic.AtomicInteger;

/** The answer of /ping, and the counters behind it. */
final class Health {
    static final AtomicInteger IN_FLIGHT = new AtomicInteger(); // accepted, and the answer has not left yet
    static final String READY = "ready";
    private static final int SILENT_DEATHS = 3; // of workers while they load the model, until nobody waits any more
    static volatile Workers workers;
    static volatile Settings settings = new Settings();

    private Health() {}

    /** READY while a request would be answered, else why not: the supervisor's state, or what is wrong with the server. */
    static String state() {
        String state = Supervisor.state();
        if (state.equals(READY) && RequestContext.isLogStuck()) {
            return "log blocked";
        }
        if (!state.equals(READY) || settings.multiModel) { // with several models the failure of one is not the server's
            return state;
        }
        return workers.loaded() == 0 ? "no worker" : FailureTracker.failing() ? "failing" : state;
    }

    /** The reason why no worker can load the only model: what one said, or that they keep dying while they do. Null: no reason. */
    static String failure() {
        WorkerPool pool = workers.pool(FrontEnd.MODEL);
        if (pool == null || pool.failure != null || pool.diedLoading < SILENT_DEATHS) {
            return pool == null ? null : pool.failure;
        }
        return pool.diedLoading + " workers died while they loaded the model: mostly for lack of memory (use fewer workers),"
                + " unless a program in the model ends its process";
    }

    static JsonObject report() {
        return Answers.object(
                "state", state(), "workers", workers.loaded(), "in_flight", IN_FLIGHT.get(), "failing", FailureTracker.failing());
    }
}
