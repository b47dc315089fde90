package byoc;

import byoc.workers.Workers;
import com.google.gson.JsonObject;
import java.util.concurrent.atomic.AtomicInteger;

/** What /ping says, and the counters behind it. */
final class Health {
    static final AtomicInteger IN_FLIGHT = new AtomicInteger(); // accepted, and the answer has not left yet
    static volatile Workers workers; // null: they have not been started

    private Health() {}

    /** Workers that hold a loaded model. */
    static int workers() {
        return workers == null ? 0 : workers.loaded();
    }

    /** With several models the failure of one is not the server's. */
    static boolean answers(boolean multiModel) {
        boolean works = multiModel || workers() > 0 && !FailureTracker.failing();
        return "ready".equals(Supervisor.state()) && works && !RequestContext.isLogStuck();
    }

    static JsonObject report() {
        JsonObject report = new JsonObject();
        report.addProperty("state", Supervisor.state());
        report.addProperty("workers", workers());
        report.addProperty("in_flight", IN_FLIGHT.get());
        report.addProperty("failing", FailureTracker.failing());
        return report;
    }
}
