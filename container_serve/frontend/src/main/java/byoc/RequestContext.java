package byoc;

import byoc.workers.Memory;
import byoc.workers.PendingRequest;
import io.netty.buffer.CompositeByteBuf;
import io.netty.buffer.Unpooled;
import io.netty.handler.codec.http.FullHttpResponse;
import io.netty.handler.codec.http.HttpContent;
import io.netty.handler.codec.http.HttpHeaders;
import io.netty.handler.codec.http.HttpRequest;
import io.netty.handler.codec.http.HttpUtil;
import io.netty.handler.codec.http.HttpVersion;
import java.util.Map;
import java.util.UUID;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ScheduledFuture;
import java.util.concurrent.ThreadLocalRandom;
import java.util.regex.Pattern;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/** One request and its answer: what has come of it, what it holds, and its line in the access log. */
final class RequestContext implements PendingRequest.Caller {
    private static final Logger LOG = LoggerFactory.getLogger("access");
    // The first two are the platform's; the third is what proxies and other people's clients send.
    private static final String[] ID_HEADERS = {"X-Amzn-SageMaker-Inference-Id", "X-Amzn-RequestId", "X-Request-Id"};
    private static final Pattern UNPRINTABLE = Pattern.compile("[^\\x21-\\x7e]");
    private static final int ID_LENGTH = 128;
    private static final long STUCK_NANOS = 1_000_000_000L;
    private static final Map<Thread, Long> WRITING = new ConcurrentHashMap<>();

    final String id;
    final Target target;
    final boolean keepAlive;
    final boolean isHttp10; // and has to be told that the connection stays
    final long begun = System.nanoTime();
    boolean unreadable; // its end is not known: what follows is dropped
    long received; // bytes of the body
    boolean complete; // the whole body was read
    boolean answered; // an answer is on its way
    boolean written; // it has left
    boolean close; // and the connection ends with it
    private final RequestFilter filter;
    private final HttpRequest head;
    private final Memory memory;
    CompositeByteBuf body = Unpooled.compositeBuffer(Integer.MAX_VALUE); // fewer would be copied into one
    private ScheduledFuture<?> timer; // not null: it is counted as in flight
    PendingRequest pending; // once it is there as a whole
    private long held; // bytes of its body, later of its answer, that are counted in `memory`

    RequestContext(RequestFilter filter, HttpRequest request, Target target, Memory memory) {
        this.filter = filter;
        this.head = request;
        this.target = target;
        this.memory = memory;
        id = id(request.headers());
        // Where chunks end is read in more ways than one: what follows them is not taken for another request.
        keepAlive = HttpUtil.isKeepAlive(request) && !HttpUtil.isTransferEncodingChunked(request);
        isHttp10 = HttpVersion.HTTP_1_0.equals(request.protocolVersion());
    }

    /** `timer`: ends with the request. */
    void accept(ScheduledFuture<?> timer) {
        this.timer = timer;
        Health.IN_FLIGHT.incrementAndGet();
    }

    /**
     * Counts what has come of its body. False where that does not fit: none of it counts any more, so that the others, of
     * which none may fit either at this moment, can go on.
     */
    boolean grow() {
        boolean fits = memory.fits(received - held);
        hold(fits ? received : 0);
        return fits;
    }

    /** Owns the content from now on. */
    void add(HttpContent content) {
        received += content.content().readableBytes();
        if (content.content().isReadable()) {
            body.addComponent(true, content.content());
        } else {
            content.release();
        }
    }

    /** Makes of it what waits for a worker, until `deadline` of System.nanoTime(), and owns its body. */
    void setPending(long deadline) {
        pending = new PendingRequest(head.headers().set("X-Request-Id", id), body, deadline, this);
        body = null;
    }

    @Override
    public void answer(FullHttpResponse response) {
        filter.answer(this, response);
    }

    @Override
    public void fail(int status, String message) {
        answer(new Refusal(status, status == 503 ? "ServiceUnavailable" : "InternalError", message).answer());
    }

    /** Counts `bytes` as what is held in memory of this request. */
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
            pending.leave();
        }
        if (body != null) {
            body.release();
            body = null;
        }
    }

    /** Its answer has left, or nobody is there any more to take it. */
    void release() {
        dequeue();
        hold(0);
        if (timer != null) {
            timer = null;
            Health.IN_FLIGHT.decrementAndGet();
        }
    }

    private static String id(HttpHeaders headers) {
        for (String name : ID_HEADERS) {
            String value = headers.get(name);
            if (value != null && !value.isEmpty()) {
                return printable(value, ID_LENGTH);
            }
        }
        ThreadLocalRandom random = ThreadLocalRandom.current(); // it has to differ from others, and guard nothing
        return new UUID(random.nextLong(), random.nextLong()).toString();
    }

    /** A caller's text must not be able to forge a line of the log. */
    static String printable(String text, int length) {
        return UNPRINTABLE.matcher(text.substring(0, Math.min(text.length(), length))).replaceAll("?");
    }

    /** Tells whether a line of the log has been on its way for so long that nobody can be reading it. */
    static boolean isLogStuck() {
        return WRITING.values().stream().anyMatch(since -> System.nanoTime() - since > STUCK_NANOS);
    }

    /**
     * Its answer has left, or its caller has: counts it, and writes its line unless it is one of the many for /ping.
     * `timing`: "decode;dur=3.1, model;dur=12.0" becomes " decode_ms=3.1 model_ms=12.0".
     */
    void end(int status, long sent, String timing) {
        Metrics.count(target.route, status, System.nanoTime() - begun);
        if (target.route == Route.PING) {
            return;
        }
        WRITING.put(Thread.currentThread(), System.nanoTime());
        LOG.info(
                "id={} {} {} status={} received={} sent={}{} total_ms={}",
                id,
                printable(head.method().name(), 16),
                printable(target.path, 200),
                status,
                received,
                sent,
                timing.isEmpty() ? "" : " " + timing.replace(";dur=", "_ms=").replace(",", ""),
                Math.round((System.nanoTime() - begun) / 1e5) / 10.0);
        WRITING.remove(Thread.currentThread());
    }
}
