package byoc;

import com.amazonaws.ml.mms.wlm.Model;
import com.amazonaws.ml.mms.wlm.ModelManager;
import com.amazonaws.ml.mms.wlm.WorkerState;
import com.amazonaws.ml.mms.wlm.WorkerThread;
import com.google.gson.JsonObject;
import java.util.ArrayList;
import java.util.List;
import java.util.Objects;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicLong;

/** What /ping says, and the counters behind it. */
final class Health {
    static final AtomicInteger IN_FLIGHT = new AtomicInteger(); // accepted, and the answer has not left yet
    static final AtomicInteger QUEUED = new AtomicInteger(); // of them those that a worker has, or is to get
    static final AtomicLong HELD_BYTES = new AtomicLong(); // bodies and answers in memory

    private Health() {}

    /** A model's workers, in a list that no other thread changes. */
    static List<WorkerThread> workers(String model) {
        List<WorkerThread> copy = new ArrayList<>(ModelManager.getInstance().getWorkers(model));
        copy.removeIf(Objects::isNull); // what the copy may hold of a list that grew or shrank meanwhile
        return copy;
    }

    /** Workers that hold a loaded model; the model server notices a killed one by its closed socket. */
    static int workers() {
        int loaded = 0;
        for (Model model : ModelManager.getInstance().getModels().values()) {
            for (WorkerThread worker : workers(model.getModelName())) {
                if (worker.getState() == WorkerState.WORKER_MODEL_LOADED) {
                    Streams.watch(model, worker); // none counts that could die before the watchdog has seen it
                    loaded++;
                }
            }
        }
        return loaded;
    }

    /** With several models the failure of one is not the server's. */
    static boolean answers(boolean multiModel) {
        boolean works = multiModel || workers() > 0 && !Outcomes.failing();
        return "ready".equals(Supervisor.state()) && works && !Exchange.isLogStuck();
    }

    static JsonObject report() {
        JsonObject report = new JsonObject();
        report.addProperty("state", Supervisor.state());
        report.addProperty("workers", workers());
        report.addProperty("in_flight", IN_FLIGHT.get());
        report.addProperty("failing", Outcomes.failing());
        return report;
    }
}
