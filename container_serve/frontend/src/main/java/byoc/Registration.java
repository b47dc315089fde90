package byoc;

import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonParseException;
import com.google.gson.JsonParser;
import io.netty.channel.ChannelHandlerContext;
import io.netty.channel.ChannelInboundHandlerAdapter;
import io.netty.handler.codec.http.FullHttpRequest;
import io.netty.handler.codec.http.HttpHeaderNames;
import io.netty.handler.codec.http.HttpMethod;
import java.nio.charset.StandardCharsets;

/**
 * Lets through of a request to load a model only what the platform sends: a name and a local folder.
 * The model server would also download code from a URL and run any handler that the request names.
 */
final class Registration extends ChannelInboundHandlerAdapter {
    @Override
    public void channelRead(ChannelHandlerContext ctx, Object message) {
        FullHttpRequest request = (FullHttpRequest) message;
        if (request.uri().equals("/models") && HttpMethod.POST.equals(request.method())) {
            byte[] body = only(request.content().toString(StandardCharsets.UTF_8)).getBytes(StandardCharsets.UTF_8);
            FullHttpRequest checked = request.replace(request.content().alloc().buffer().writeBytes(body));
            checked.headers().set(HttpHeaderNames.CONTENT_LENGTH, body.length);
            checked.headers().set(HttpHeaderNames.CONTENT_TYPE, "application/json");
            request.release();
            request = checked;
        }
        ctx.fireChannelRead(request);
    }

    /** The body with its two known keys; without "url" the model server answers that it is required. */
    private static String only(String body) {
        JsonObject known = new JsonObject();
        try {
            JsonObject asked = JsonParser.parseString(body).getAsJsonObject();
            JsonElement url = asked.get("url");
            if (url != null && url.getAsString().startsWith("/")) {
                known.add("url", url);
            }
            if (asked.has("model_name")) {
                known.add("model_name", asked.get("model_name"));
            }
        } catch (JsonParseException | IllegalStateException | UnsupportedOperationException invalid) {
            return "{}";
        }
        return known.toString();
    }
}
