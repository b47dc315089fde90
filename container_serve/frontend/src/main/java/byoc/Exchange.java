package byoc;

import byoc.workers.Memory;
import byoc.workers.PendingRequest;
import byoc.workers.RequestQueue;
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
    final long begun = System.nanoTime();
    String model; // that is asked for a prediction; null: something else is asked
    long received; // bytes of the body
    long pieces; // in which they came
    boolean complete; // the whole body was read
    boolean accepted; // counted as in flight
    private RequestQueue queue; // that holds it, once it is there as a whole
    private PendingRequest pending; // and as what
    private final Memory memory;
    private long held; // bytes of its body, later of its answer, that are counted there
    boolean answered; // an answer is on its way
    boolean written; // it has left
    boolean close; // and the connection ends with it
    ScheduledFuture<?> timer;

    Exchange(HttpRequest request, String path, Memory memory) {
        // Where chunks end is read in more ways than one: what follows them is not taken for another request.
        this(
                id(request),
                request.method().name(),
                path,
                HttpUtil.isKeepAlive(request) && !HttpUtil.isTransferEncodingChunked(request),
                memory);
        isHttp10 = HttpVersion.HTTP_1_0.equals(request.protocolVersion());
    }

    private Exchange(String id, String method, String path, boolean keepAlive, Memory memory) {
        this.id = id;
        this.method = method;
        this.path = path;
        this.keepAlive = keepAlive;
        this.memory = memory;
    }

    /** One whose request never came to the end of its head. */
    static Exchange unread(Memory memory) {
        Exchange exchange = new Exchange(UUID.randomUUID().toString(), "-", "-", false, memory);
        exchange.complete = true;
        return exchange;
    }

    void accept() {
        accepted = true;
        Health.IN_FLIGHT.incrementAndGet();
    }

    /** False when there is no room for it among those that wait for a worker. */
    boolean enqueue(RequestQueue queue, PendingRequest request) {
        if (!queue.offer(request)) {
            return false;
        }
        this.queue = queue;
        pending = request;
        return true;
    }

    /** A worker has it, or had. */
    boolean wasTaken() {
        return pending != null && pending.isTaken();
    }

    /** Counts what has come of its body; false where there is no memory for it, and none of it is to be kept. */
    boolean grow() {
        boolean fits = memory.grow(held, received - held);
        held = fits ? received : 0;
        return fits;
    }

    /** Counts `bytes` as what is held in memory of this exchange. */
    void hold(long bytes) {
        memory.add(bytes - held);
        held = bytes;
    }

    /** It has its answer, and no worker needs to have it any more. */
    void dequeue() {
        if (timer != null) {
            timer.cancel(false);
        }
        if (pending != null) {
            pending.abandon();
            queue.remove(pending);
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
                timings(timing),
                String.format(Locale.ROOT, "%.1f", (System.nanoTime() - begun) / 1e6));
    }

    /** "decode;dur=3.1, model;dur=12.0" becomes " decode_ms=3.1 model_ms=12.0". */
    private static String timings(String header) {
        return header.isEmpty() ? "" : " " + header.replace(";dur=", "_ms=").replace(",", "");
    }
}
