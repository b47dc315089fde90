package byoc;

import com.google.gson.JsonObject;
import io.netty.buffer.ByteBuf;
import io.netty.buffer.Unpooled;
import io.netty.handler.codec.http.DefaultFullHttpResponse;
import io.netty.handler.codec.http.FullHttpResponse;
import io.netty.handler.codec.http.HttpHeaderNames;
import io.netty.handler.codec.http.HttpHeaderValues;
import io.netty.handler.codec.http.HttpResponseStatus;
import io.netty.handler.codec.http.HttpVersion;
import java.nio.charset.StandardCharsets;

/** The gate's own answers, all of them JSON. */
final class Answers {
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

    static FullHttpResponse invalid() {
        return error(400, "BadRequest", "This is not a valid HTTP request.");
    }

    static FullHttpResponse tooLarge(Settings settings) {
        return error(413, "PayloadTooLarge", "The body is larger than " + settings.maxRequestBytes + " bytes.");
    }

    static FullHttpResponse queueFull() {
        int waiting = Health.QUEUED.get();
        return error(503, "QueueFull", waiting + " requests are waiting already; send the request again later.");
    }

    static FullHttpResponse executionParameters(Settings settings) {
        JsonObject parameters = new JsonObject();
        parameters.addProperty("MaxConcurrentTransforms", settings.workers);
        parameters.addProperty("BatchStrategy", "SINGLE_RECORD");
        parameters.addProperty("MaxPayloadInMB", settings.maxRequestBytes / (1024 * 1024));
        return json(200, parameters);
    }

    static FullHttpResponse form(String type) {
        String message =
                "Content-Type " + Exchange.printable(type, 100) + " is a form (curl sends it when no header is given);"
                        + " send the picture itself with its type, for example"
                        + " curl -H 'Content-Type: image/jpeg' --data-binary @picture.jpg URL.";
        return error(415, "UnsupportedMediaType", message);
    }
}
