package byoc;

import com.google.gson.JsonObject;
import io.netty.buffer.ByteBuf;
import io.netty.buffer.Unpooled;
import io.netty.channel.ChannelDuplexHandler;
import io.netty.channel.ChannelHandlerContext;
import io.netty.channel.ChannelPromise;
import io.netty.handler.codec.http.DefaultFullHttpResponse;
import io.netty.handler.codec.http.FullHttpResponse;
import io.netty.handler.codec.http.HttpContent;
import io.netty.handler.codec.http.HttpHeaderNames;
import io.netty.handler.codec.http.HttpHeaders;
import io.netty.handler.codec.http.HttpMethod;
import io.netty.handler.codec.http.HttpRequest;
import io.netty.handler.codec.http.HttpResponseStatus;
import io.netty.handler.codec.http.HttpUtil;
import io.netty.handler.codec.http.HttpVersion;
import io.netty.handler.codec.http.LastHttpContent;
import io.netty.handler.codec.http.QueryStringDecoder;
import io.netty.util.ReferenceCountUtil;
import java.nio.charset.StandardCharsets;
import java.util.ArrayDeque;
import java.util.Locale;
import java.util.Queue;
import java.util.concurrent.TimeUnit;

/**
 * Stands between a connection and the model server, one instance per connection. Answers /ping and
 * /execution-parameters itself, refuses what the model server would answer badly, gives every
 * request an id, a time limit and a line in the log, and counts what is in flight.
 */
final class Gate extends ChannelDuplexHandler {
    // The Python side looks these up by name; clients spell them as they like.
    private static final String[] HEADERS_BY_NAME = {
        "Content-Type", "Accept", "X-Amzn-SageMaker-Custom-Attributes"
    };
    private static final int DISCARD_SECONDS = 10;

    private final Settings settings;
    private final Queue<Object> pipelined = new ArrayDeque<>();
    private Exchange current;

    Gate(Settings settings) {
        this.settings = settings;
    }

    @Override
    public void channelRead(ChannelHandlerContext ctx, Object message) {
        if (current != null && current.complete) {
            pipelined.add(message); // the model server would mix up two requests of one connection
        } else {
            read(ctx, message);
        }
    }

    private void read(ChannelHandlerContext ctx, Object message) {
        if (message instanceof HttpRequest) {
            head(ctx, (HttpRequest) message);
        }
        if (!(message instanceof HttpContent)) {
            return;
        }
        HttpContent content = (HttpContent) message;
        if (current == null) {
            content.release();
            return;
        }
        boolean last = content instanceof LastHttpContent;
        count(content.content().readableBytes());
        current.complete |= last;
        if (current.answered) { // without waiting for the body: drop it, so that the client sees the answer
            content.release();
            settle(ctx, current);
        } else if (current.received > settings.maxRequestBytes) {
            content.release();
            refuseSize(ctx);
        } else {
            ctx.channel().config().setAutoRead(!last);
            ctx.fireChannelRead(content);
        }
    }

    private void head(ChannelHandlerContext ctx, HttpRequest request) {
        String path = new QueryStringDecoder(request.uri()).path();
        current = new Exchange(request, path);
        if (!request.decoderResult().isSuccess()) {
            refuse(ctx, 400, "BadRequest", "This is not a valid HTTP request.");
        } else if (path.equals("/ping")) {
            answer(ctx, Health.answers(settings.multiModel) ? 200 : 503, Health.report());
        } else if (path.equals("/execution-parameters")) {
            answer(ctx, 200, executionParameters());
        } else if (path.equals("/invocations") && !settings.multiModel) {
            if (HttpMethod.POST.equals(request.method())) {
                request.setUri(path); // a query could name another model
                admit(ctx, request);
            } else {
                refuse(ctx, 405, "MethodNotAllowed", "Send the picture with POST.");
            }
        } else if (settings.multiModel && (path.equals("/models") || path.startsWith("/models/"))) {
            if (HttpMethod.PUT.equals(request.method())) {
                refuse(ctx, 405, "MethodNotAllowed", "The number of workers is set with the environment.");
            } else {
                request.setUri(path); // a query could name another handler, or a model at some URL
                admit(ctx, request);
            }
        } else {
            refuse(ctx, 404, "NotFound", "There is nothing at this path; pictures go to POST " + invocations() + ".");
        }
    }

    private String invocations() {
        return settings.multiModel ? "/models/NAME/invoke" : "/invocations";
    }

    private void admit(ChannelHandlerContext ctx, HttpRequest request) {
        String type = mimeType(request);
        int room = settings.workers + settings.queueSize;
        if (type.equals("application/x-www-form-urlencoded") || type.startsWith("multipart/")) {
            refuse(
                    ctx,
                    415,
                    "UnsupportedMediaType",
                    "Content-Type " + Exchange.printable(type, 100) + " is a form (curl sends it when no header"
                            + " is given); send the picture itself with its type, for example"
                            + " curl -H 'Content-Type: image/jpeg' --data-binary @picture.jpg URL.");
        } else if (HttpUtil.getContentLength(request, 0L) > settings.maxRequestBytes) {
            refuseSize(ctx);
        } else if (!"ready".equals(Supervisor.state())) {
            refuse(ctx, 503, "NotReady", "The server is " + Supervisor.state() + "; send the request again later.");
        } else if (!settings.multiModel && Health.IN_FLIGHT.get() >= room
                || Health.WAITING_BYTES.get() > settings.maxWaitingBytes) {
            refuse(
                    ctx,
                    503,
                    "QueueFull",
                    Health.IN_FLIGHT.get() + " requests are waiting already; send the request again later.");
        } else {
            forward(ctx, request);
        }
    }

    private void forward(ChannelHandlerContext ctx, HttpRequest request) {
        HttpHeaders headers = request.headers();
        for (String name : HEADERS_BY_NAME) {
            String value = headers.get(name);
            if (value != null) {
                headers.set(name, value);
            }
        }
        headers.set("X-Request-Id", current.id);
        current.accepted = true;
        Health.IN_FLIGHT.incrementAndGet();
        Exchange exchange = current;
        current.timer =
                ctx.executor().schedule(() -> timeOut(ctx, exchange), settings.timeoutSeconds, TimeUnit.SECONDS);
        ctx.fireChannelRead(request);
    }

    private void timeOut(ChannelHandlerContext ctx, Exchange exchange) {
        if (current == exchange && !exchange.answered) {
            refuse(ctx, 504, "Timeout", "No answer within " + settings.timeoutSeconds + " s.");
        }
    }

    private void count(int bytes) {
        current.received += bytes;
        if (current.accepted) {
            Health.WAITING_BYTES.addAndGet(bytes);
        }
    }

    /** The model server's answer on its way out. */
    @Override
    public void write(ChannelHandlerContext ctx, Object message, ChannelPromise promise) {
        if (!(message instanceof FullHttpResponse) || current == null) {
            ctx.write(message, promise); // 100 Continue comes here too
            return;
        }
        FullHttpResponse response = (FullHttpResponse) message;
        if (response.status().code() < 200) {
            ctx.write(message, promise);
        } else if (current.answered) {
            ReferenceCountUtil.release(message); // it comes too late
            promise.setFailure(new IllegalStateException("answered already"));
        } else {
            send(ctx, response, promise, false);
        }
    }

    private void refuseSize(ChannelHandlerContext ctx) {
        refuse(ctx, 413, "PayloadTooLarge", "The body is larger than " + settings.maxRequestBytes + " bytes.");
    }

    /** Answers in place of the model server; the connection is closed once the request's body has been read. */
    private void refuse(ChannelHandlerContext ctx, int status, String type, String message) {
        JsonObject body = new JsonObject();
        body.addProperty("code", status);
        body.addProperty("type", type);
        body.addProperty("message", message);
        send(ctx, json(status, body), ctx.newPromise(), true);
    }

    private void answer(ChannelHandlerContext ctx, int status, JsonObject body) {
        send(ctx, json(status, body), ctx.newPromise(), false);
    }

    private static FullHttpResponse json(int status, JsonObject body) {
        ByteBuf content = Unpooled.copiedBuffer(body.toString() + "\n", StandardCharsets.UTF_8);
        FullHttpResponse response =
                new DefaultFullHttpResponse(HttpVersion.HTTP_1_1, HttpResponseStatus.valueOf(status), content);
        response.headers().set(HttpHeaderNames.CONTENT_TYPE, "application/json");
        response.headers().set(HttpHeaderNames.CONTENT_LENGTH, content.readableBytes());
        return response;
    }

    private void send(ChannelHandlerContext ctx, FullHttpResponse response, ChannelPromise promise, boolean refused) {
        Exchange exchange = current;
        exchange.answered = true;
        int status = response.status().code();
        String timing = response.headers().get("Server-Timing", "");
        response.headers().set("X-Request-Id", exchange.id);
        if (!exchange.path.equals("/ping")) {
            exchange.log(status, response.content().readableBytes(), timings(timing));
        }
        exchange.close = refused || !exchange.keepAlive || "draining".equals(Supervisor.state());
        if (exchange.close) {
            response.headers().set(HttpHeaderNames.CONNECTION, "close");
        }
        ctx.writeAndFlush(response, promise.unvoid())
                .addListener(
                        written -> {
                            exchange.written = true;
                            release(exchange);
                            if (!exchange.complete && exchange.close) {
                                discard(ctx, exchange);
                            }
                            settle(ctx, exchange);
                        });
    }

    /** Goes on to the connection's next request when this one is read and answered. */
    private void settle(ChannelHandlerContext ctx, Exchange exchange) {
        if (current != exchange || !exchange.written || !exchange.complete) {
            return;
        }
        if (exchange.close) {
            ctx.close();
            return;
        }
        current = null;
        ctx.channel().config().setAutoRead(true);
        while (!pipelined.isEmpty() && (current == null || !current.complete)) {
            read(ctx, pipelined.poll());
        }
    }

    /** A connection that is closed while its client still sends loses the answer: read on, for a while. */
    private static void discard(ChannelHandlerContext ctx, Exchange exchange) {
        ctx.channel().config().setAutoRead(true);
        Runnable giveUp =
                () -> {
                    if (!exchange.complete) {
                        ctx.close();
                    }
                };
        ctx.executor().schedule(giveUp, DISCARD_SECONDS, TimeUnit.SECONDS);
    }

    private void release(Exchange exchange) {
        if (exchange.timer != null) {
            exchange.timer.cancel(false);
        }
        if (exchange.accepted) {
            exchange.accepted = false;
            Health.IN_FLIGHT.decrementAndGet();
            Health.WAITING_BYTES.addAndGet(-exchange.received);
        }
    }

    @Override
    public void channelInactive(ChannelHandlerContext ctx) {
        if (current != null) {
            if (!current.answered) {
                current.answered = true;
                current.log(499, 0, ""); // the caller went away: nobody's status, but the usual sign for it
            }
            release(current);
        }
        for (Object message : pipelined) {
            ReferenceCountUtil.release(message);
        }
        pipelined.clear();
        ctx.fireChannelInactive();
    }

    private JsonObject executionParameters() {
        JsonObject parameters = new JsonObject();
        parameters.addProperty("MaxConcurrentTransforms", settings.workers);
        parameters.addProperty("BatchStrategy", "SINGLE_RECORD");
        parameters.addProperty("MaxPayloadInMB", settings.maxRequestBytes / (1024 * 1024));
        return parameters;
    }

    private static String mimeType(HttpRequest request) {
        CharSequence type = HttpUtil.getMimeType(request);
        return type == null ? "" : type.toString().trim().toLowerCase(Locale.ROOT);
    }

    /** "decode;dur=3.1, model;dur=12.0" becomes " decode_ms=3.1 model_ms=12.0". */
    private static String timings(String header) {
        return header.isEmpty() ? "" : " " + header.replace(";dur=", "_ms=").replace(",", "");
    }
}
