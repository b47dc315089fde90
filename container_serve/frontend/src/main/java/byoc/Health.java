package byoc;

import byoc.workers.Workers;
import com.google.gson.JsonObject;
import java.util.concurrent.atomic.AtomicInteger;

/** What /ping says, and the counters behind it. */
final class Health {
    static final AtomicInteger IN_FLIGHT = new AtomicInteger(); // accepted, and the answer has not left yet
    static final String READY = "ready";
    static volatile Workers workers; // null: they have not been started
    static volatile boolean multiModel;

    private Health() {}

    /** Workers that hold a loaded model. */
    static int workers() {
        return workers == null ? 0 : workers.loaded();
    }

    /** READY while a request would be answered, else why not: the supervisor's state, or what is wrong with the server. */
    static String state() {
        String state = Supervisor.state();
        if (state.equals(READY) && RequestContext.isLogStuck()) {
            return "log blocked";
        }
        if (!state.equals(READY) || multiModel) { // with several models the failure of one is not the server's
            return state;
        }
        return workers() == 0 ? "no worker" : FailureTracker.failing() ? "failing" : state;
    }

    static JsonObject report() {
        return Answers.object(
                "state", state(), "workers", workers(), "in_flight", IN_FLIGHT.get(), "failing", FailureTracker.failing());
    }
}
