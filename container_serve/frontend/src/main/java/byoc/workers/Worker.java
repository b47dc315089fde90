package byoc.workers;

import com.amazonaws.ml.mms.util.ConfigManager;
import com.amazonaws.ml.mms.wlm.Model;
import com.amazonaws.ml.mms.wlm.WorkerState;
import com.amazonaws.ml.mms.wlm.WorkerStateListener;
import com.amazonaws.ml.mms.wlm.WorkerThread;
import io.netty.channel.EventLoopGroup;
import java.io.File;
import java.util.function.Consumer;

/**
 * The thread that speaks with one worker process, until that ends. The model server would use it again for the next
 * process, and keep open what it reads of the output of each that was killed; here each process has a thread of its own.
 */
final class Worker extends WorkerThread {
    private static final String FOLDER = System.getProperty("java.io.tmpdir");

    private final Assignment assignment;
    private final Consumer<Worker> replace;
    private volatile boolean hasEnded;

    /** `replace` is called at its end, unless it was to end. */
    Worker(
            EventLoopGroup group,
            Model model,
            Assignment assignment,
            WorkerStateListener listener,
            int number,
            Consumer<Worker> replace) {
        super(ConfigManager.getInstance(), group, model.getPort(), -1, model, assignment, listener, number, false);
        this.assignment = assignment;
        this.replace = replace;
    }

    @Override
    public void run() {
        try {
            super.run();
        } catch (NullPointerException neverConnected) {
            // it closes a connection that there may not be
        }
        hasEnded = true;
        boolean wanted = getState() != WorkerState.WORKER_SCALED_DOWN;
        shutdown(); // closes what it reads of the process's output
        for (String pipe : new String[] {"-stdout", "-stderr"}) {
            new File(FOLDER, assignment.channel() + pipe).delete(); // a process that was killed has left it
        }
        if (wanted) {
            replace.accept(this);
        }
    }

    /** Its process has ended: it is of no more use. */
    boolean hasEnded() {
        return hasEnded;
    }

    boolean isStuck(long nanos) {
        return assignment.isStuck(nanos);
    }
}
