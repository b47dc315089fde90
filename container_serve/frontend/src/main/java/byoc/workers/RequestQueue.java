package byoc.workers;

import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.List;
import java.util.concurrent.atomic.AtomicInteger;

/**
 * The requests for one model, which its workers take out. A request leaves when its caller has an answer or went away,
 * so that nobody computes for a caller who is gone.
 */
public final class RequestQueue {
    private static final AtomicInteger QUEUED = new AtomicInteger();
    private static final String GONE = "The model was unloaded.";
    private static final double WEIGHT = 0.2; // of the newest value in a running mean
    private static final double MARGIN = 2; // of the time that a request usually takes

    private final int capacity;
    private final int batch;
    private final Memory memory;
    private final Deque<PendingRequest> waiting = new ArrayDeque<>();
    private int idle; // workers, which wait for a request
    private int taken; // by workers, which have not answered yet
    private double nanos; // that a worker takes to answer, the running mean; 0: not known
    private boolean closed;

    /** `capacity`: of requests, those that a worker has included. `batch`: so many a worker takes at a time, at most. */
    RequestQueue(int capacity, int batch, Memory memory) {
        this.capacity = capacity;
        this.batch = batch;
        this.memory = memory;
    }

    /** Requests in all queues, those that a worker has included. */
    public static int queued() {
        return QUEUED.get();
    }

    public synchronized boolean isFull() {
        return waiting.size() + taken >= capacity;
    }

    /** False where it is full, or its model has gone. */
    public synchronized boolean offer(PendingRequest request) {
        if (closed || isFull()) {
            return false;
        }
        waiting.add(request);
        QUEUED.incrementAndGet();
        notifyAll();
        return true;
    }

    /**
     * Waits for a request, and for the memory that a worker needs for it; takes more with it where they
     * wait. The worker has to say when each is `done`, or `failed`.
     */
    List<PendingRequest> take() throws InterruptedException {
        while (true) {
            PendingRequest request = next();
            try {
                request.lent = memory.lend(request.bytes(), request.isJson());
            } catch (InterruptedException end) {
                putBack(request);
                throw end;
            }
            if (request.begin()) {
                List<PendingRequest> taken = new ArrayList<>(List.of(request));
                if (!request.alone) {
                    addMore(taken);
                }
                return taken;
            }
            done(request, 0); // answered while it waited for memory
        }
    }

    private synchronized PendingRequest next() throws InterruptedException {
        idle++;
        try {
            while (waiting.isEmpty()) {
                wait();
            }
        } finally {
            idle--;
        }
        PendingRequest next = choose();
        waiting.remove(next);
        taken++;
        return next;
    }

    /**
     * The oldest that can still be answered in time. Under overload all others wait for nearly as long as they may: to
     * take the very oldest would compute answers that come too late, and nothing else. If none is in time, the youngest.
     */
    private PendingRequest choose() {
        long now = System.nanoTime();
        for (PendingRequest request : waiting) {
            if (request.deadline - now > MARGIN * nanos) {
                return request;
            }
        }
        return waiting.getLast();
    }

    /** Takes what waits, up to a batch, but leaves their share to other workers that are free. */
    private synchronized void addMore(List<PendingRequest> batched) {
        int most = Math.min(batch, 1 + waiting.size() / (1 + idle));
        while (batched.size() < most) {
            PendingRequest next = choose();
            next.lent = next.alone ? -1 : memory.tryLend(next.bytes(), false);
            if (next.lent < 0 || !next.begin()) {
                memory.giveBack(Math.max(0, next.lent));
                return;
            }
            waiting.remove(next);
            taken++;
            batched.add(next);
        }
    }

    /** Their worker has died. One of several may be to blame for it: each is tried again, alone. False: it was alone. */
    boolean failed(List<PendingRequest> requests) {
        if (requests.size() <= 1) {
            return false;
        }
        for (int i = requests.size() - 1; i >= 0; i--) {
            memory.giveBack(requests.get(i).lent);
            requests.get(i).putBack();
            putBack(requests.get(i));
        }
        return true;
    }

    private synchronized void putBack(PendingRequest request) {
        taken--;
        if (closed || request.isAbandoned()) {
            QUEUED.decrementAndGet();
            request.release();
            request.fail(503, GONE); // for whoever still waits
        } else {
            waiting.addFirst(request);
            notifyAll();
        }
    }

    /** A worker has answered it, after `nanos`, or did not come to an answer: 0. */
    void done(PendingRequest request, long nanos) {
        memory.giveBack(request.lent);
        request.release();
        QUEUED.decrementAndGet();
        synchronized (this) {
            taken--;
            if (nanos > 0) {
                this.nanos = this.nanos == 0 ? nanos : this.nanos + WEIGHT * (nanos - this.nanos);
            }
        }
    }

    /** Takes it out if no worker has it yet: its caller has an answer, or went away. */
    public synchronized void remove(PendingRequest request) {
        if (waiting.remove(request)) {
            QUEUED.decrementAndGet();
            request.release();
        }
    }

    /** No more requests: the model goes. Those that wait are told so. */
    synchronized void close() {
        closed = true;
        for (PendingRequest request : new ArrayList<>(waiting)) {
            remove(request);
            request.fail(503, GONE);
        }
    }
}
