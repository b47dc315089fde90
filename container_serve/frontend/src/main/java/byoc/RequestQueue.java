package byoc;

import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.List;

/**
 * The requests for one model, which its workers take out one by one. A request leaves when its caller has an answer or
 * went away, so that nobody computes for a caller who is gone.
 */
final class RequestQueue {
    private static final double WEIGHT = 0.2; // of the newest value in a running mean
    private static final double MARGIN = 2; // of the time that a request usually takes

    private final int capacity;
    private final Memory memory;
    private final Deque<PendingRequest> waiting = new ArrayDeque<>();
    private int taken; // by workers, which have not answered yet
    private double nanos; // that a worker takes to answer, the running mean; 0: not known
    private boolean closed;

    /** `capacity`: of requests, those that a worker has included. */
    RequestQueue(int capacity, Memory memory) {
        this.capacity = capacity;
        this.memory = memory;
    }

    synchronized boolean isFull() {
        return waiting.size() + taken >= capacity;
    }

    /** False where it is full, or its model has gone. */
    synchronized boolean offer(PendingRequest request) {
        if (closed || isFull()) {
            return false;
        }
        waiting.add(request);
        Health.QUEUED.incrementAndGet();
        notifyAll();
        return true;
    }

    /** Waits for a request, and for the memory that a worker needs for it. The worker has to say when it is `done`. */
    PendingRequest take() throws InterruptedException {
        while (true) {
            PendingRequest request = next();
            try {
                request.lent = memory.lend(request.bytes(), request.isJson());
            } catch (InterruptedException end) {
                putBack(request);
                throw end;
            }
            if (request.begin()) {
                return request;
            }
            done(request, 0); // answered while it waited for memory
        }
    }

    private synchronized PendingRequest next() throws InterruptedException {
        while (waiting.isEmpty()) {
            wait();
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

    private synchronized void putBack(PendingRequest request) {
        taken--;
        if (closed || request.isAbandoned()) {
            Health.QUEUED.decrementAndGet();
            request.release();
        } else {
            waiting.addFirst(request);
            notifyAll();
        }
    }

    /** A worker has answered it, after `nanos`, or did not come to an answer: 0. */
    void done(PendingRequest request, long nanos) {
        memory.giveBack(request.lent);
        request.release();
        Health.QUEUED.decrementAndGet();
        synchronized (this) {
            taken--;
            if (nanos > 0) {
                this.nanos = this.nanos == 0 ? nanos : this.nanos + WEIGHT * (nanos - this.nanos);
            }
        }
    }

    /** Takes it out if no worker has it yet: its caller has an answer, or went away. */
    synchronized void remove(PendingRequest request) {
        if (waiting.remove(request)) {
            Health.QUEUED.decrementAndGet();
            request.release();
        }
    }

    /** No more requests: the model goes. Returns those that wait. */
    synchronized List<PendingRequest> close() {
        closed = true;
        List<PendingRequest> rest = new ArrayList<>(waiting);
        rest.forEach(this::remove);
        return rest;
    }
}
