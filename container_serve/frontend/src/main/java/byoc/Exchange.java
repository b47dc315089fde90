package byoc;

import io.netty.handler.codec.http.HttpRequest;
import io.netty.handler.codec.http.HttpUtil;
import io.netty.handler.codec.http.HttpVersion;
import java.util.Locale;
import java.util.Map;
import java.util.UUID;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ScheduledFuture;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/** One request and its answer, as the access log shows them. */
final class Exchange {
    private static final Logger LOG = LoggerFactory.getLogger("access");
    // The first two are the platform's; the third is what proxies and other people's clients send.
    private static final String[] ID_HEADERS = {
        "X-Amzn-SageMaker-Inference-Id", "X-Amzn-RequestId", "X-Request-Id"
    };
    private static final int ID_LENGTH = 128;
    private static final long STUCK_NANOS = 1_000_000_000L;
    private static final Map<Thread, Long> WRITING = new ConcurrentHashMap<>();

    final String id;
    final String method;
    final String path;
    final boolean keepAlive;
    boolean isHttp10; // and has to be told that the connection stays
    boolean unreadable; // its end is not known: what follows is dropped
    private final long begun = System.nanoTime();
    long received; // bytes of the body
    long pieces; // in which they came
    boolean complete; // the whole body was read
    boolean accepted; // counted as in flight
    boolean queued; // and among those that a worker has, or is to get
    long held; // bytes of its body, later of its answer, that count as held in memory
    boolean answered; // an answer is on its way
    boolean written; // it has left
    boolean close; // and the connection ends with it
    ScheduledFuture<?> timer;

    Exchange(HttpRequest request, String path) {
        // Where chunks end is read in more ways than one: what follows them is not taken for another request.
        this(
                id(request),
                request.method().name(),
                path,
                HttpUtil.isKeepAlive(request) && !HttpUtil.isTransferEncodingChunked(request));
        isHttp10 = HttpVersion.HTTP_1_0.equals(request.protocolVersion());
    }

    private Exchange(String id, String method, String path, boolean keepAlive) {
        this.id = id;
        this.method = method;
        this.path = path;
        this.keepAlive = keepAlive;
    }

    /** One whose request never came to the end of its head. */
    static Exchange unread() {
        Exchange exchange = new Exchange(UUID.randomUUID().toString(), "-", "-", false);
        exchange.complete = true;
        return exchange;
    }

    void accept() {
        accepted = true;
        Health.IN_FLIGHT.incrementAndGet();
    }

    /** False when there is no room for it among those that wait for a worker. */
    boolean enqueue(int room) {
        queued = Health.QUEUED.incrementAndGet() <= room;
        if (!queued) {
            Health.QUEUED.decrementAndGet();
        }
        return queued;
    }

    /** Counts `bytes` as what is held in memory of this exchange. */
    void hold(long bytes) {
        Health.HELD_BYTES.addAndGet(bytes - held);
        held = bytes;
    }

    /** It has its answer, and no worker needs to have it any more. */
    void dequeue() {
        if (timer != null) {
            timer.cancel(false);
        }
        if (queued) {
            queued = false;
            Health.QUEUED.decrementAndGet();
        }
    }

    /** Its answer has left, or nobody is there any more to take it. */
    void release() {
        dequeue();
        hold(0);
        if (accepted) {
            accepted = false;
            Health.IN_FLIGHT.decrementAndGet();
        }
    }

    private static String id(HttpRequest request) {
        for (String name : ID_HEADERS) {
            String value = request.headers().get(name);
            if (value != null && !value.isEmpty()) {
                return printable(value, ID_LENGTH);
            }
        }
        return UUID.randomUUID().toString();
    }

    /** A caller's text must not be able to forge a line of the log. */
    static String printable(String text, int length) {
        return text.substring(0, Math.min(text.length(), length)).replaceAll("[^\\x21-\\x7e]", "?");
    }

    /** Whether a line of the log has been on its way for so long that nobody can be reading it. */
    static boolean isLogStuck() {
        for (long since : WRITING.values()) {
            if (System.nanoTime() - since > STUCK_NANOS) {
                return true;
            }
        }
        return false;
    }

    void log(int status, long sent, String timing) {
        WRITING.put(Thread.currentThread(), System.nanoTime());
        write(status, sent, timing);
        WRITING.remove(Thread.currentThread());
    }

    private void write(int status, long sent, String timing) {
        LOG.info(
                "id={} {} {} status={} received={} sent={}{} total_ms={}",
                id,
                printable(method, 16),
                printable(path, 200),
                status,
                received,
                sent,
                timing,
                String.format(Locale.ROOT, "%.1f", (System.nanoTime() - begun) / 1e6));
    }
}
