package byoc;

import io.netty.handler.codec.http.FullHttpResponse;
import io.netty.handler.codec.http.HttpContent;
import io.netty.handler.codec.http.HttpHeaderNames;
import io.netty.handler.codec.http.HttpMethod;
import io.netty.handler.codec.http.HttpRequest;
import io.netty.handler.codec.http.HttpUtil;
import io.netty.handler.codec.http.QueryStringDecoder;
import java.util.List;
import java.util.Locale;

/** Decides by a request's head whether it goes on to the model server. */
final class Admission {
    // Of a body: each costs as much as thousands of bytes.
    private static final int PIECES = 1000;
    private static final int PIECE_BYTES = 256;

    private final Settings settings;

    Admission(Settings settings) {
        this.settings = settings;
    }

    /** Null where the address cannot be read. */
    static String path(HttpRequest request) {
        try {
            return new QueryStringDecoder(request.uri()).path();
        } catch (IllegalArgumentException unreadable) { // as /%zz
            return null;
        }
    }

    /** The gate's own answer; null: the request, whose address then is the mere path, is for the model server. */
    FullHttpResponse decide(HttpRequest request, String path) {
        if (path == null || !request.decoderResult().isSuccess()) {
            return Answers.invalid();
        }
        // Whatever reads a request's end otherwise than whoever stands before us would take its body for a request.
        String expected = request.headers().get(HttpHeaderNames.EXPECT);
        if (expected != null && !"100-continue".equalsIgnoreCase(expected.trim())) {
            return Answers.error(417, "ExpectationFailed", "The only expectation that is met is 100-continue.");
        }
        List<String> codings = request.headers().getAll(HttpHeaderNames.TRANSFER_ENCODING);
        if (codings.size() > 1 || codings.size() == 1 && !"chunked".equalsIgnoreCase(codings.get(0).trim())) {
            return Answers.invalid();
        }
        if (path.equals("/ping")) {
            return Answers.json(Health.answers(settings.multiModel) ? 200 : 503, Health.report());
        }
        if (path.equals("/execution-parameters")) {
            return Answers.executionParameters(settings);
        }
        if (settings.multiModel && path.equals("/models") && HttpMethod.GET.equals(request.method())) {
            return Answers.models(new QueryStringDecoder(request.uri()));
        }
        if (settings.multiModel && (path.equals("/models") || path.startsWith("/models/"))) {
            if (HttpMethod.PUT.equals(request.method())) {
                return Answers.error(
                        405, "MethodNotAllowed", "The number of workers is set with the environment.");
            }
        } else if (!settings.multiModel && path.equals("/invocations")) {
            if (!HttpMethod.POST.equals(request.method())) {
                return Answers.error(405, "MethodNotAllowed", "Send the picture with POST.");
            }
        } else {
            String there = settings.multiModel ? "/models/NAME/invoke" : "/invocations";
            return Answers.error(
                    404, "NotFound", "There is nothing at this path; pictures go to POST " + there + ".");
        }
        request.setUri(path); // a query could name another model, another handler, or a model at some URL
        return refusal(request);
    }

    private FullHttpResponse refusal(HttpRequest request) {
        String type = mimeType(request);
        if (type.equals("application/x-www-form-urlencoded") || type.startsWith("multipart/")) {
            return Answers.form(type);
        }
        if (HttpUtil.getContentLength(request, 0L) > settings.maxRequestBytes) {
            return Answers.tooLarge(settings);
        }
        if (!"ready".equals(Supervisor.state())) {
            return Answers.error(
                    503, "NotReady", "The server is " + Supervisor.state() + "; send the request again later.");
        }
        if (!settings.multiModel && Health.QUEUED.get() >= room() || isMemoryFull()) {
            return Answers.queueFull(); // before its body is sent
        }
        return null;
    }

    /** What more of a request's body means for it: null, or a refusal. */
    FullHttpResponse more(Exchange exchange, HttpContent content) {
        if (!content.decoderResult().isSuccess()) {
            return Answers.invalid();
        }
        if (exchange.received > settings.maxRequestBytes) {
            return Answers.tooLarge(settings);
        }
        if (exchange.pieces > PIECES + settings.maxRequestBytes / PIECE_BYTES) {
            return Answers.error(400, "TooManyPieces", "The body comes in too many pieces; send larger ones.");
        }
        // Only a request that is there as a whole takes a place from others: a slow client takes nothing but memory.
        boolean full = exchange.complete && !settings.multiModel && !exchange.enqueue(room());
        return full || isMemoryFull() ? Answers.queueFull() : null;
    }

    private int room() {
        return settings.workers + settings.queueSize;
    }

    private boolean isMemoryFull() {
        return Health.HELD_BYTES.get() > settings.maxWaitingBytes;
    }

    private static String mimeType(HttpRequest request) {
        CharSequence type = HttpUtil.getMimeType(request);
        return type == null ? "" : type.toString().trim().toLowerCase(Locale.ROOT);
    }
}
