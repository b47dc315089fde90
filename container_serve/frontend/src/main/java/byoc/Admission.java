package byoc;

import byoc.workers.WorkerPool;
import io.netty.handler.codec.DecoderResult;
import io.netty.handler.codec.http.FullHttpResponse;
import io.netty.handler.codec.http.HttpHeaderNames;
import io.netty.handler.codec.http.HttpRequest;
import io.netty.handler.codec.http.HttpUtil;
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.concurrent.TimeUnit;

/** Decides by a request's head, and by how its body comes, whether it is passed to the models; puts it into a queue. */
final class Admission {
    // Of a body: each costs as much as thousands of bytes.
    private static final int PIECES = 1000;
    private static final int PIECE_BYTES = 256;
    // Headers that may have several lines. The Python side looks them up by these names, and reads one line of each.
    private static final String[] LISTS = {"Accept", "X-Amzn-SageMaker-Custom-Attributes"};

    private Admission() {}

    /** The filter's own answer; null: the request is for a model, or changes one. */
    static FullHttpResponse answer(HttpRequest request, Target target) throws Refusal {
        Settings settings = Health.settings;
        if (!request.decoderResult().isSuccess()) {
            throw Refusal.invalid(request.decoderResult().cause());
        }
        // A server that finds a request's end elsewhere than the proxy before us would take its body for a request.
        String expected = request.headers().get(HttpHeaderNames.EXPECT);
        if (expected != null && !"100-continue".equalsIgnoreCase(expected.trim())) {
            throw new Refusal(417, "ExpectationFailed", "The only expectation that is met is 100-continue.");
        }
        if (!target.valid) {
            throw new Refusal(400, "BadAddress", "The address has to be a path of letters, digits and - . _ ~ alone.");
        }
        if (target.route == null && !target.allowed.isEmpty()) {
            return Answers.wrongMethod(target.allowed);
        }
        if (target.route == null) {
            String there = settings.multiModel ? "/models/NAME/invoke" : "/invocations";
            throw new Refusal(404, "NotFound", "There is nothing at this path; images go to POST " + there + ".");
        }
        if (target.route.isForPeople()) {
            Page.checkHost(request);
        }
        return switch (target.route) {
            case PING -> Answers.json(Health.state().equals(Health.READY) ? 200 : 503, Health.report());
            case EXECUTION_PARAMETERS ->
                    Answers.json(200, Answers.executionParameters(settings.workers, settings.maxRequestBytes));
            case LIST_MODELS -> Answers.models(target);
            case DESCRIBE_MODEL -> Answers.json(200, Answers.described(target.model));
            case PAGE -> Page.answer();
            case INFO -> Answers.text("application/json", Page.info() + "\n");
            case METRICS -> Answers.text(Metrics.TYPE, Metrics.text());
            case OPENAPI -> Answers.text("application/json", Page.file("openapi.json"));
            case INVOCATIONS, INVOKE_MODEL, LOAD_MODEL, UNLOAD_MODEL -> {
                check(request, target);
                yield null;
            }
        };
    }

    private static void check(HttpRequest request, Target target) throws Refusal {
        if (target.asks("top_k")) {
            throw new Refusal(400, "InvalidTopK", "top_k is not taken from the address: send it in a JSON body,"
                    + " or as the header X-Amzn-SageMaker-Custom-Attributes: top_k=3.");
        }
        List<String> types = request.headers().getAll(HttpHeaderNames.CONTENT_TYPE);
        if (types.size() > 1) {
            throw new Refusal(415, "UnsupportedMediaType", "There are " + types.size() + " Content-Type headers: send one,"
                    + " that of the body.");
        }
        set(request, "Content-Type", types);
        for (String name : LISTS) {
            set(request, name, request.headers().getAll(name));
        }
        String coding = String.join(",", request.headers().getAll(HttpHeaderNames.CONTENT_ENCODING)).trim();
        if (!coding.isEmpty() && !coding.equalsIgnoreCase("identity")) {
            throw new Refusal(415, "UnsupportedMediaType", "Content-Encoding " + RequestContext.printable(coding, 50)
                    + " is not taken: send the body as it is, without that header.");
        }
        long length = HttpUtil.getContentLength(request, 0L);
        checkSize(length);
        if (!Supervisor.state().equals(Health.READY)) {
            throw new Refusal(503, "NotReady", "The server is " + Supervisor.state() + "; send the request again later.");
        }
        // Before its body is sent. A model that has more to do than it can is loaded or unloaded all the same.
        WorkerPool pool = target.route.isPrediction() ? Health.workers.pool(target.model) : null;
        if (pool != null && pool.queue.isFull()) {
            throw Refusal.queueFull();
        }
        if (!Health.settings.memory.fits(length)) {
            throw Refusal.memoryFull();
        }
    }

    /** Clients spell the names of headers as they like, the Python side as here. */
    private static void set(HttpRequest request, String name, List<String> lines) {
        if (!lines.isEmpty()) {
            request.headers().set(name, String.join(",", lines));
        }
    }

    /** Refuses a request by what has come of its body; `result`: of the newest piece. */
    static void check(RequestContext request, DecoderResult result) throws Refusal {
        if (!result.isSuccess()) {
            throw Refusal.invalid(result.cause());
        }
        checkSize(request.received);
        if (request.body.numComponents() > PIECES + Health.settings.maxRequestBytes / PIECE_BYTES) {
            throw new Refusal(400, "TooManyPieces", "The body comes in too many pieces; send larger ones.");
        }
        if (!request.grow()) { // a slow client takes memory from others only for what it has sent
            throw Refusal.memoryFull();
        }
    }

    private static void checkSize(long bytes) throws Refusal {
        if (bytes > Health.settings.maxRequestBytes) {
            throw new Refusal(413, "PayloadTooLarge", "The body is larger than " + Health.settings.maxRequestBytes + " bytes.");
        }
    }

    /** Hands on a request that is there as a whole: only such a one takes a place from others. */
    static void handOn(RequestContext request) throws Refusal {
        if (!request.target.route.isPrediction()) {
            ModelChanges.change(request.target, request.body.toString(StandardCharsets.UTF_8), request);
            return;
        }
        WorkerPool pool = Health.workers.pool(request.target.model);
        request.setPending(request.begun + TimeUnit.SECONDS.toNanos(Health.settings.timeoutSeconds));
        if (pool == null || !pool.queue.offer(request.pending)) {
            request.pending.release();
            throw pool == null ? Refusal.noModel(request.target.model) : Refusal.queueFull();
        }
    }
}
