package byoc;

import io.netty.handler.codec.http.HttpRequest;
import io.netty.handler.codec.http.HttpUtil;
import java.util.Locale;
import java.util.UUID;
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

    final String id;
    final String method;
    final String path;
    final boolean keepAlive;
    private final long begun = System.nanoTime();
    long received; // bytes of the body
    boolean complete; // the whole body was read
    boolean accepted; // counted as in flight
    boolean answered; // an answer is on its way
    boolean written; // it has left
    boolean close; // and the connection ends with it
    ScheduledFuture<?> timer;

    Exchange(HttpRequest request, String path) {
        this.id = id(request);
        this.method = request.method().name();
        this.path = path;
        this.keepAlive = HttpUtil.isKeepAlive(request);
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

    void log(int status, long sent, String timing) {
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
