package byoc;

import byoc.workers.RequestQueue;
import io.netty.handler.codec.http.FullHttpResponse;
import io.netty.handler.codec.http.HttpContent;
import io.netty.handler.codec.http.HttpHeaderNames;
import io.netty.handler.codec.http.HttpRequest;
import io.netty.handler.codec.http.HttpUtil;
import java.util.List;

/** Decides by a request's head, and by how its body comes, whether it goes on to the models. */
final class Admission {
    // Of a body: each costs as much as thousands of bytes.
    private static final int PIECES = 1000;
    private static final int PIECE_BYTES = 256;
    private static final CharSequence[] LISTS = {HttpHeaderNames.ACCEPT, "X-Amzn-SageMaker-Custom-Attributes"};

    private final Settings settings;

    Admission(Settings settings) {
        this.settings = settings;
    }

    /** The filter's own answer; null: the request is for a model, or changes one. */
    FullHttpResponse decide(HttpRequest request, Target target) {
        if (!request.decoderResult().isSuccess()) {
            return Answers.invalid(request.decoderResult().cause());
        }
        // Whatever reads a request's end otherwise than whoever stands before us would take its body for a request.
        String expected = request.headers().get(HttpHeaderNames.EXPECT);
        if (expected != null && !"100-continue".equalsIgnoreCase(expected.trim())) {
            return Answers.error(417, "ExpectationFailed", "The only expectation that is met is 100-continue.");
        }
        if (!target.valid) {
            return Answers.error(400, "BadAddress", "The address has to be a path of letters, digits and - . _ ~ alone.");
        }
        if (target.route == null) {
            return Answers.noRoute(target, settings.multiModel);
        }
        switch (target.route) {
            case PING:
            case PING_HEAD:
                return Answers.json(Health.state().equals(Health.READY) ? 200 : 503, Health.report());
            case EXECUTION_PARAMETERS:
                return Answers.json(200, Answers.executionParameters(settings.workers, settings.maxRequestBytes));
            case LIST_MODELS:
                return Answers.models(target);
            case DESCRIBE_MODEL:
                return Answers.model(target.model);
            default:
                return refusal(request, settings.multiModel ? target.model : FrontEnd.MODEL);
        }
    }

    private FullHttpResponse refusal(HttpRequest request, String model) {
        String type = Form.mimeType(request);
        if (type.equals("application/x-www-form-urlencoded") || type.startsWith("multipart/") && !Form.isForm(type)) {
            return Answers.error(415, "UnsupportedMediaType", "Content-Type " + RequestContext.printable(type, 100)
                    + " is not taken (curl sends it when no header is given); send the picture itself with its type, for"
                    + " example curl -H 'Content-Type: image/jpeg' --data-binary @picture.jpg URL.");
        }
        String coding = request.headers().get(HttpHeaderNames.CONTENT_ENCODING, "").trim();
        if (!coding.isEmpty() && !coding.equalsIgnoreCase("identity")) {
            return Answers.error(415, "UnsupportedMediaType", "Content-Encoding " + RequestContext.printable(coding, 50)
                    + " is not taken: send the body as it is, without that header.");
        }
        for (CharSequence list : LISTS) { // the Python side sees the first line of each
            List<String> lines = request.headers().getAll(list);
            if (lines.size() > 1) {
                request.headers().set(list, String.join(", ", lines));
            }
        }
        long length = HttpUtil.getContentLength(request, 0L);
        if (length > settings.maxRequestBytes) {
            return tooLarge();
        }
        if (!Supervisor.state().equals(Health.READY)) {
            return Answers.error(
                    503, "NotReady", "The server is " + Supervisor.state() + "; send the request again later.");
        }
        RequestQueue queue = Health.workers.queue(model);
        if (queue != null && queue.isFull()) {
            return Answers.queueFull(); // before its body is sent
        }
        return settings.memory.fits(length) ? null : memoryFull();
    }

    /** What more of a request's body means for it: null, or a refusal. */
    FullHttpResponse more(RequestContext request, HttpContent content) {
        if (!content.decoderResult().isSuccess()) {
            return Answers.invalid(content.decoderResult().cause());
        }
        if (request.received > settings.maxRequestBytes) {
            return tooLarge();
        }
        if (request.pieces() > PIECES + settings.maxRequestBytes / PIECE_BYTES) {
            return Answers.error(400, "TooManyPieces", "The body comes in too many pieces; send larger ones.");
        }
        // A slow client takes memory from others only for what it has sent.
        return request.grow() ? null : memoryFull();
    }

    private FullHttpResponse tooLarge() {
        return Answers.error(413, "PayloadTooLarge", "The body is larger than " + settings.maxRequestBytes + " bytes.");
    }

    private static FullHttpResponse memoryFull() {
        return Answers.error(
                503, "MemoryFull", "Other requests take the memory that this one needs; send the request again later.");
    }
}
