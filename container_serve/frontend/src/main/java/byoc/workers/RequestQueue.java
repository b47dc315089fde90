package byoc.workers;

import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.List;

/**
 * The requests for one model, and the workers that are free for them. A request leaves when its caller has an answer or
 * went away, so that nobody computes for a caller who is gone.
 */
public final class RequestQueue {
    private static final double WEIGHT = 0.2; // of the newest value in a running mean
    private static final double MARGIN = 2; // of the time that a request usually takes

    private final int capacity;
    private final int batch;
    private final Memory memory;
    private final Deque<PendingRequest> waiting = new ArrayDeque<>();
    private final Deque<Worker> idle = new ArrayDeque<>(); // first the one that was busy last: its caches are warm
    private int taken; // by workers, which have not answered yet
    private double nanos; // that a worker takes to answer, the running mean; 0: not known
    private boolean closed;

    /** `capacity`: of requests, those that a worker has included. `batch`: so many a worker takes at a time, at most. */
    public RequestQueue(int capacity, int batch, Memory memory) {
        this.capacity = capacity;
        this.batch = batch;
        this.memory = memory;
    }

    /** Something that computes requests, and says when each is `done`, or that it `died`. */
    interface Worker {
        void send(List<PendingRequest> requests);
    }

    /** Requests that no worker has yet. */
    synchronized int waiting() {
        return waiting.size();
    }

    /** Those that a worker has included. */
    synchronized int queued() {
        return waiting.size() + taken;
    }

    public boolean isFull() {
        return queued() >= capacity;
    }

    /** False where it is full, or its model has gone. */
    public synchronized boolean offer(PendingRequest request) {
        if (closed || isFull()) {
            return false;
        }
        request.queue = this;
        waiting.add(request);
        dispatch();
        return true;
    }

    synchronized void free(Worker worker) {
        idle.push(worker);
        dispatch();
    }

    synchronized void leave(Worker worker) {
        idle.remove(worker);
    }

    /** Gives free workers what waits, as far as there is memory for it. */
    synchronized void dispatch() {
        while (!idle.isEmpty() && !waiting.isEmpty()) {
            List<PendingRequest> next = take();
            if (next.isEmpty()) {
                return;
            }
            idle.pop().send(next);
        }
    }

    /** Takes what waits, up to a batch, but leaves their share to other workers that are free. */
    private List<PendingRequest> take() {
        int most = Math.min(batch, 1 + (waiting.size() - 1) / idle.size());
        List<PendingRequest> batched = new ArrayList<>();
        while (batched.size() < most) {
            PendingRequest next = choose();
            if (next.alone && !batched.isEmpty() || !memory.lend(next, this)) {
                break;
            }
            waiting.remove(next);
            next.taken = true;
            batched.add(next);
            if (next.alone) {
                break;
            }
        }
        taken += batched.size();
        return batched;
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

    /** Their worker has died. One of several may be to blame for it: each is tried again, alone. */
    void died(List<PendingRequest> requests) {
        for (int i = requests.size() - 1; i >= 0; i--) {
            memory.giveBack(requests.get(i));
            died(requests.get(i), requests.size() > 1);
        }
    }

    private synchronized void died(PendingRequest request, boolean again) {
        taken--;
        if (again && !closed && !request.abandoned) {
            request.taken = false;
            request.alone = true;
            waiting.addFirst(request);
            dispatch();
        } else {
            drop(request, 500, "The worker died.");
        }
    }

    /** Gives a request up; where the model has gone, that is the reason. */
    private void drop(PendingRequest request, int status, String reason) {
        request.release();
        request.fail(closed ? 503 : status, closed ? "The model was unloaded." : reason);
    }

    /** A worker has answered it, after `nanos`, or has failed to: 0. */
    void done(PendingRequest request, long nanos) {
        synchronized (this) {
            request.release();
            taken--;
            if (nanos > 0) {
                this.nanos = this.nanos == 0 ? nanos : this.nanos + WEIGHT * (nanos - this.nanos);
            }
        }
        memory.giveBack(request);
    }

    synchronized void remove(PendingRequest request) {
        request.abandoned = true;
        if (waiting.remove(request)) {
            request.release();
        }
    }

    /** No more requests: the model goes. Those that wait are told so. */
    synchronized void close() {
        closed = true;
        memory.forget(this);
        waiting.forEach(request -> drop(request, 503, ""));
        waiting.clear();
    }
}
