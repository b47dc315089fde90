package byoc.workers;

import java.util.concurrent.Semaphore;

/**
 * The one place that counts what requests take of memory: bodies and answers here, and what a worker makes of a body.
 * The supervisor has divided the container's memory; models and decoded images have their own shares of it.
 */
public final class Memory {
    static final int COPIES = 2; // of a body in a worker: as it is read, and as somebody's program may copy it
    static final int JSON_COPIES = 5; // of one in JSON: its text, the strings in it, and what their base64 decodes to
    private static final int UNIT = 1024; // bytes

    private final long bodyBytes;
    private final int workerUnits;
    private final Semaphore free;
    private long held;

    /** `bodyBytes` for bodies and answers in this process, `workerBytes` for copies of bodies in the workers. */
    public Memory(long bodyBytes, long workerBytes) {
        this.bodyBytes = bodyBytes;
        workerUnits = (int) Math.min(Integer.MAX_VALUE, workerBytes / UNIT + 1);
        free = new Semaphore(workerUnits, true);
    }

    /** Counts that many bytes more, or fewer if negative. */
    public synchronized void add(long bytes) {
        held += bytes;
    }

    /** Whether that many bytes fit beside those that are counted. */
    public synchronized boolean fits(long more) {
        return held + more <= bodyBytes;
    }

    /**
     * Counts more of a body of which `counted` bytes are counted. False where that does not fit: none of it counts any
     * more, so that the others, of which none may fit either at this moment, can go on.
     */
    public synchronized boolean grow(long counted, long more) {
        boolean fits = held + more <= bodyBytes;
        held += fits ? more : -counted;
        return fits;
    }

    /** Waits until the copies of a body fit into the workers' share. Returns what has to be given back. */
    int lend(long bytes, boolean json) throws InterruptedException {
        int lent = units(bytes, json);
        free.acquire(lent);
        return lent;
    }

    /** The same without waiting; -1: they do not fit. */
    int tryLend(long bytes, boolean json) {
        int lent = units(bytes, json);
        return free.tryAcquire(lent) ? lent : -1;
    }

    private int units(long bytes, boolean json) {
        long units = bytes * (json ? JSON_COPIES : COPIES) / UNIT;
        return (int) Math.min(workerUnits, units); // one that is larger than all goes alone
    }

    void giveBack(int lent) {
        free.release(lent);
    }
}
