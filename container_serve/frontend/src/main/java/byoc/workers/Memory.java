package byoc.workers;

import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.Semaphore;
import java.util.concurrent.atomic.AtomicLong;

/**
 * The one place that counts what requests take of memory: bodies and answers here, and what a worker makes of a body.
 * The supervisor has divided the container's memory; models and decoded images have their own shares of it.
 */
public final class Memory {
    private static final int UNIT = 1024; // bytes

    private final long bodyBytes;
    private final int workerUnits;
    private final Semaphore free;
    private final Set<RequestQueue> starved = ConcurrentHashMap.newKeySet(); // their next request did not fit
    private final AtomicLong held = new AtomicLong();

    /** `bodyBytes` for bodies and answers in this process, `workerBytes` for copies of bodies in the workers. */
    public Memory(long bodyBytes, long workerBytes) {
        this.bodyBytes = bodyBytes;
        workerUnits = (int) Math.min(Integer.MAX_VALUE, workerBytes / UNIT + 1);
        free = new Semaphore(workerUnits);
    }

    /** Counts that many bytes more, or fewer if negative. */
    public void add(long bytes) {
        held.addAndGet(bytes);
    }

    /** Tells whether that many bytes fit beside those that are counted. */
    public boolean fits(long more) {
        return held.get() + more <= bodyBytes;
    }

    /** Takes the copies of a body from the workers' share. False: they do not fit, and the queue hears when some may. */
    boolean lend(PendingRequest request, RequestQueue queue) {
        long units = request.bytes * request.copies / UNIT;
        int lent = (int) Math.min(workerUnits, units); // one that is larger than all goes alone
        starved.add(queue); // before the look, so that what is given back meanwhile is not missed
        boolean fits = free.tryAcquire(lent);
        if (fits) {
            request.lent = lent;
            starved.remove(queue);
        }
        return fits;
    }

    void forget(RequestQueue queue) {
        starved.remove(queue);
    }

    void giveBack(PendingRequest request) {
        free.release(request.lent);
        request.lent = 0;
        for (RequestQueue queue : starved) {
            queue.dispatch();
        }
    }
}
