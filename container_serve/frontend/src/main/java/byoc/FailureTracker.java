package byoc;

/**
 * Predictions that fail for all callers: a model whose every answer is an error of the server (500, 504) must not
 * pass for a healthy one. Answers of 4xx say nothing about it, the first good one ends it.
 */
final class FailureTracker {
    private static final long SECOND = 1_000_000_000L;
    private static final long SPAN = SECOND; // between the first failure and one that shows it to last
    private static final long HOLD = 5 * SECOND; // after the last one; then a request may try again
    private static final long FORGET = 60 * SECOND; // failures that are further apart have nothing to do with each other

    private static long good = System.nanoTime() - FORGET; // the last good answer
    private static long first = good; // of the failures since then
    private static long last = good;

    private FailureTracker() {}

    /**
     * A result, from a worker or the clock; refusals of our own tell nothing about it, nor does 503: there is too much
     * to do, or no worker, which is seen anyway. `since`: the model has given no answer from then on.
     */
    static synchronized void count(int status, long since) {
        long now = System.nanoTime();
        if (status < 400) {
            good = now;
        } else if (status >= 500 && status != 503) {
            long begun = last > good && now - last < FORGET ? first : now;
            first = Math.min(begun, Math.max(since, good));
            last = now;
        }
    }

    static synchronized boolean failing() {
        if (Health.settings.multiModel || last <= good || last - first < SPAN) {
            return false;
        }
        return System.nanoTime() - last < HOLD || Health.workers.queued() > 0; // what is asked now will tell
    }
}
