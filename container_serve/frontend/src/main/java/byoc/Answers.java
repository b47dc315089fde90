package byoc;

import byoc.workers.RequestQueue;
import com.amazonaws.ml.mms.wlm.ModelManager;
import com.google.gson.JsonArray;
import com.google.gson.JsonObject;
import io.netty.buffer.ByteBuf;
import io.netty.buffer.Unpooled;
import io.netty.handler.codec.TooLongFrameException;
import io.netty.handler.codec.http.DefaultFullHttpResponse;
import io.netty.handler.codec.http.FullHttpResponse;
import io.netty.handler.codec.http.HttpHeaderNames;
import io.netty.handler.codec.http.HttpHeaderValues;
import io.netty.handler.codec.http.HttpResponseStatus;
import io.netty.handler.codec.http.HttpVersion;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.TreeSet;

/** The filter's own answers, all of them JSON. */
final class Answers {
    private static final int MODELS = 100; // on a page, at most
    private static final int TRANSFORM_MEGABYTES = 100; // batch transform's limit, of one request and of all at a time

    private Answers() {}

    static FullHttpResponse json(int status, JsonObject body) {
        ByteBuf content = Unpooled.copiedBuffer(body.toString() + "\n", StandardCharsets.UTF_8);
        FullHttpResponse response =
                new DefaultFullHttpResponse(HttpVersion.HTTP_1_1, HttpResponseStatus.valueOf(status), content);
        response.headers().set(HttpHeaderNames.CONTENT_TYPE, "application/json");
        response.headers().set(HttpHeaderNames.CONTENT_LENGTH, content.readableBytes());
        return response;
    }

    /** A refusal; the connection ends with it, once the request's body has been read. */
    static FullHttpResponse error(int status, String type, String message) {
        JsonObject body = new JsonObject();
        body.addProperty("code", status);
        body.addProperty("type", type);
        body.addProperty("message", message);
        FullHttpResponse response = json(status, body);
        response.headers().set(HttpHeaderNames.CONNECTION, HttpHeaderValues.CLOSE);
        return response;
    }

    /** `cause`: why it could not be read; what the decoder says stays inside. */
    static FullHttpResponse invalid(Throwable cause) {
        if (cause instanceof Refusal) {
            return ((Refusal) cause).answer();
        }
        boolean tooLong = cause instanceof TooLongFrameException;
        String reason = tooLong ? ": its first line is longer than 4 KB, or its headers than 8 KB." : ".";
        return error(400, "BadRequest", "This is not a valid HTTP request" + reason);
    }

    static FullHttpResponse noRoute(Target target, boolean multiModel) {
        if (!target.allowed.isEmpty()) {
            FullHttpResponse response =
                    error(405, "MethodNotAllowed", "The methods of this path are: " + target.allowed + ".");
            response.headers().set(HttpHeaderNames.ALLOW, target.allowed);
            return response;
        }
        String there = (multiModel ? Route.INVOKE_MODEL : Route.INVOCATIONS).path(multiModel ? "NAME" : "");
        return error(404, "NotFound", "There is nothing at this path; pictures go to POST " + there + ".");
    }

    static FullHttpResponse tooLarge(Settings settings) {
        return error(413, "PayloadTooLarge", "The body is larger than " + settings.maxRequestBytes + " bytes.");
    }

    static FullHttpResponse queueFull() {
        int waiting = RequestQueue.queued();
        return error(503, "QueueFull", waiting + " requests are waiting already; send the request again later.");
    }

    /** What batch transform may send; it takes no values beyond its own limits, and 0 for "no limit". */
    static JsonObject executionParameters(int workers, int maxRequestBytes) {
        int megabytes = Math.max(1, Math.min(TRANSFORM_MEGABYTES, maxRequestBytes / (1024 * 1024)));
        JsonObject parameters = new JsonObject();
        parameters.addProperty("MaxConcurrentTransforms", Math.min(workers, TRANSFORM_MEGABYTES / megabytes));
        parameters.addProperty("BatchStrategy", "SINGLE_RECORD");
        parameters.addProperty("MaxPayloadInMB", megabytes);
        return parameters;
    }

    /**
     * Some of the loaded models by name, and where the next ones begin. The model server's own answer is an error when
     * one is unloaded meanwhile.
     */
    static FullHttpResponse models(Target target) {
        int limit = target.number("limit", MODELS);
        int token = target.number("next_page_token", 0);
        JsonArray page = new JsonArray();
        List<String> models = new ArrayList<>(new TreeSet<>(ModelManager.getInstance().getModels().keySet()));
        int first = Math.max(0, Math.min(token, models.size()));
        int end = Math.min(models.size(), first + (limit < 1 || limit > MODELS ? MODELS : limit));
        for (String model : models.subList(first, end)) {
            page.add(described(model));
        }
        JsonObject body = new JsonObject();
        if (end < models.size()) {
            body.addProperty("nextPageToken", String.valueOf(end));
        }
        body.add("models", page);
        return json(200, body);
    }

    static FullHttpResponse model(String name) {
        return ModelManager.getInstance().getModels().containsKey(name)
                ? json(200, described(name))
                : noModel(name);
    }

    static FullHttpResponse noModel(String name) {
        return error(404, "ModelNotFoundException", "Model not found: " + name);
    }

    private static JsonObject described(String model) {
        JsonObject item = new JsonObject();
        item.addProperty("modelName", model);
        item.addProperty("modelUrl", ModelFolders.get(model));
        return item;
    }

    static FullHttpResponse form(String type) {
        String message =
                "Content-Type " + RequestContext.printable(type, 100) + " is not taken (curl sends it when no header is given);"
                        + " send the picture itself with its type, for example"
                        + " curl -H 'Content-Type: image/jpeg' --data-binary @picture.jpg URL.";
        return error(415, "UnsupportedMediaType", message);
    }
}
