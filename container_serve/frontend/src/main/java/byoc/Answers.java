package byoc;

import byoc.workers.WorkerPool;
import com.google.gson.Gson;
import com.google.gson.JsonArray;
import com.google.gson.JsonObject;
import io.netty.buffer.ByteBuf;
import io.netty.buffer.Unpooled;
import io.netty.handler.codec.http.DefaultFullHttpResponse;
import io.netty.handler.codec.http.FullHttpResponse;
import io.netty.handler.codec.http.HttpHeaderNames;
import io.netty.handler.codec.http.HttpResponseStatus;
import io.netty.handler.codec.http.HttpVersion;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;

/** The filter's own answers: JSON, except for those to a browser and to Prometheus. */
final class Answers {
    private static final Gson GSON = new Gson();
    private static final int MODELS = 100; // on a page, at most
    private static final int TRANSFORM_MEGABYTES = 100; // batch transform's limit, of one request and of all at a time

    private Answers() {}

    /** An object of names and values in turn. */
    static JsonObject object(Object... pairs) {
        JsonObject object = new JsonObject();
        for (int i = 0; i < pairs.length; i += 2) {
            object.add((String) pairs[i], GSON.toJsonTree(pairs[i + 1]));
        }
        return object;
    }

    static FullHttpResponse json(int status, JsonObject body) {
        return answer(status, "application/json", body + "\n");
    }

    /** An answer for a browser or a tool, which is to take it for nothing but this type. */
    static FullHttpResponse text(String type, String body) {
        FullHttpResponse response = answer(200, type, body);
        response.headers().set("X-Content-Type-Options", "nosniff").set(HttpHeaderNames.CACHE_CONTROL, "no-store");
        return response;
    }

    private static FullHttpResponse answer(int status, String type, String body) {
        ByteBuf content = Unpooled.copiedBuffer(body, StandardCharsets.UTF_8);
        FullHttpResponse response =
                new DefaultFullHttpResponse(HttpVersion.HTTP_1_1, HttpResponseStatus.valueOf(status), content);
        response.headers().set(HttpHeaderNames.CONTENT_TYPE, type);
        response.headers().set(HttpHeaderNames.CONTENT_LENGTH, content.readableBytes());
        return response;
    }

    static FullHttpResponse wrongMethod(String allowed) {
        FullHttpResponse response =
                new Refusal(405, "MethodNotAllowed", "The methods of this path are: " + allowed + ".").answer();
        response.headers().set(HttpHeaderNames.ALLOW, allowed);
        return response;
    }

    /** The answer that tells batch transform what it may send; it takes no values beyond its own limits, and 0 for "no limit". */
    static JsonObject executionParameters(int workers, int maxRequestBytes) {
        int megabytes = Math.max(1, Math.min(TRANSFORM_MEGABYTES, maxRequestBytes / (1024 * 1024)));
        return object(
                "MaxConcurrentTransforms", Math.min(workers, TRANSFORM_MEGABYTES / megabytes),
                "BatchStrategy", "SINGLE_RECORD",
                "MaxPayloadInMB", megabytes);
    }

    /** Some of the loaded models by name, and where the next ones begin. */
    static FullHttpResponse models(Target target) throws Refusal {
        int limit = target.number("limit", MODELS);
        List<String> models = new ArrayList<>(Health.workers.models());
        int first = Math.max(0, Math.min(target.number("next_page_token", 0), models.size()));
        int end = Math.min(models.size(), first + (limit < 1 || limit > MODELS ? MODELS : limit));
        JsonArray page = new JsonArray();
        for (String model : models.subList(first, end)) {
            page.add(described(model));
        }
        return json(200, end < models.size()
                ? object("nextPageToken", String.valueOf(end), "models", page)
                : object("models", page));
    }

    static JsonObject described(String model) throws Refusal {
        WorkerPool pool = Health.workers.pool(model);
        if (pool == null) {
            throw Refusal.noModel(model);
        }
        return object("modelName", model, "modelUrl", pool.folder);
    }
}
