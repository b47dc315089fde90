package byoc;

import io.netty.channel.ChannelDuplexHandler;
import io.netty.channel.ChannelFuture;
import io.netty.channel.ChannelHandlerContext;
import io.netty.channel.ChannelPromise;
import io.netty.channel.socket.DuplexChannel;
import io.netty.handler.codec.DecoderException;
import io.netty.handler.codec.http.FullHttpResponse;
import io.netty.handler.codec.http.HttpContent;
import io.netty.handler.codec.http.HttpHeaderNames;
import io.netty.handler.codec.http.HttpHeaderValues;
import io.netty.handler.codec.http.HttpHeaders;
import io.netty.handler.codec.http.HttpRequest;
import io.netty.handler.codec.http.LastHttpContent;
import io.netty.util.ReferenceCountUtil;
import java.io.IOException;
import java.util.concurrent.ScheduledFuture;
import java.util.concurrent.TimeUnit;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Stands between a connection and the models, one instance per connection. Answers /ping and /execution-parameters
 * itself, refuses what cannot be answered, gives every request an id, a time limit and a line in the log, puts whole
 * requests for predictions into the queue of their model, and counts what is in flight.
 */
final class Gate extends ChannelDuplexHandler {
    private static final Logger LOG = LoggerFactory.getLogger("gate");
    // The Python side looks these up by name; clients spell them as they like.
    private static final String[] HEADERS_BY_NAME = {
        "Content-Type", "Accept", "X-Amzn-SageMaker-Custom-Attributes"
    };
    private static final int DISCARD_SECONDS = 10;

    private final Settings settings;
    private final Admission admission;
    private ChannelHandlerContext context;
    private Exchange current;
    private long heads;

    Gate(Settings settings) {
        this.settings = settings;
        this.admission = new Admission(settings);
    }

    @Override
    public void handlerAdded(ChannelHandlerContext ctx) {
        context = ctx;
    }

    /** How many requests have begun on this connection. */
    long heads() {
        return heads;
    }

    /** No request is being read or answered. */
    boolean isIdle() {
        return current == null;
    }

    void headTooSlow() {
        if (isIdle()) {
            current = Exchange.unread(settings.memory);
            refuse(context, 408, "RequestTimeout", "The request's head did not arrive" + inTime());
        }
    }

    @Override
    public void channelRead(ChannelHandlerContext ctx, Object message) {
        read(ctx, message);
        // The next request stays in netty's FlowControlHandler until this one is answered, unless it is to be dropped.
        boolean last = current != null && current.written && current.close;
        ctx.channel().config().setAutoRead(current == null || !current.complete || last);
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
        current.unreadable |= content.decoderResult().isFailure();
        current.received += content.content().readableBytes();
        current.pieces++;
        current.complete |= last;
        if (current.answered) { // without waiting for the body: drop it, so that the client sees the answer
            content.release();
            settle(ctx, current);
            return;
        }
        FullHttpResponse refusal = admission.more(current, content);
        if (refusal != null) {
            content.release();
            send(ctx, refusal, ctx.newPromise());
        } else {
            ctx.fireChannelRead(content);
        }
    }

    private void head(ChannelHandlerContext ctx, HttpRequest request) {
        Target target = new Target(request.method().name(), request.uri(), settings.multiModel);
        heads++;
        current = new Exchange(request, target.path, settings.memory);
        if (target.route == Route.INVOCATIONS || target.route == Route.INVOKE_MODEL) {
            current.model = settings.multiModel ? target.model : FrontEnd.MODEL;
        }
        FullHttpResponse answer = admission.decide(current, request, target);
        if (answer == null) {
            forward(ctx, request);
        } else {
            send(ctx, answer, ctx.newPromise());
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
        current.accept();
        Exchange exchange = current;
        current.timer =
                ctx.executor().schedule(() -> timeOut(ctx, exchange), settings.timeoutSeconds, TimeUnit.SECONDS);
        ctx.fireChannelRead(request);
    }

    /** What is being read or answered; null: nothing. */
    Exchange current() {
        return current;
    }

    /** The answer to a prediction, on any thread. */
    void answer(Exchange exchange, FullHttpResponse response) {
        context.executor().execute(() -> answerNow(exchange, response));
    }

    private void answerNow(Exchange exchange, FullHttpResponse response) {
        if (current != exchange || exchange.answered) {
            response.release(); // it comes too late
            return;
        }
        count(response.status().code());
        if (response.status().code() >= 400) { // somebody may have seen the end of such a request elsewhere
            response.headers().set(HttpHeaderNames.CONNECTION, HttpHeaderValues.CLOSE);
        }
        send(context, response, context.newPromise());
    }

    private void refuse(ChannelHandlerContext ctx, int status, String type, String message) {
        send(ctx, Answers.error(status, type, message), ctx.newPromise());
    }

    private void timeOut(ChannelHandlerContext ctx, Exchange exchange) {
        if (current != exchange || exchange.answered) {
            return;
        }
        if (exchange.complete) {
            if (exchange.wasTaken()) {
                count(504); // else it says nothing but that there is too much to do
            }
            refuse(ctx, 504, "Timeout", "No answer" + inTime());
        } else {
            refuse(ctx, 408, "RequestTimeout", "The request's body did not arrive" + inTime());
        }
    }

    private String inTime() {
        return " within " + settings.timeoutSeconds + " s.";
    }

    /** What a worker or the clock says to a prediction; our own refusals tell nothing about it. */
    private void count(int status) {
        if (!settings.multiModel && status != 503) { // 503: there is too much to do, or no worker, which is seen anyway
            Outcomes.count(status);
        }
    }

    /** The model server's answer to who loads or unloads a model, on its way out. */
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
            send(ctx, response, promise);
        }
    }

    private void send(ChannelHandlerContext ctx, FullHttpResponse response, ChannelPromise promise) {
        Exchange exchange = current;
        exchange.answered = true;
        response.headers().set("X-Request-Id", exchange.id);
        if (!exchange.path.equals("/ping")) {
            String timing = response.headers().get("Server-Timing", "");
            exchange.log(response.status().code(), response.content().readableBytes(), timing);
        }
        boolean refused = response.headers().contains(HttpHeaderNames.CONNECTION, HttpHeaderValues.CLOSE, true);
        exchange.close = refused || !exchange.keepAlive || "draining".equals(Supervisor.state());
        if (exchange.close || exchange.isHttp10) {
            response.headers().set(HttpHeaderNames.CONNECTION, exchange.close ? "close" : "keep-alive");
        }
        exchange.dequeue();
        if (!exchange.complete && exchange.close && ctx.pipeline().get(Intake.AGGREGATOR) != null) {
            ctx.pipeline().remove(Intake.AGGREGATOR); // with what it has of the body
        }
        exchange.hold(response.content().readableBytes());
        ChannelFuture sent = ctx.writeAndFlush(response, promise.unvoid());
        sent.addListener(
                written -> {
                    exchange.written = true;
                    exchange.release();
                    if (!exchange.complete && exchange.close) {
                        discard(ctx, exchange);
                    }
                    settle(ctx, exchange);
                });
        if (!sent.isDone()) { // a client that does not read
            ScheduledFuture<?> giveUp =
                    ctx.executor().schedule(() -> ctx.close(), settings.timeoutSeconds, TimeUnit.SECONDS);
            sent.addListener(written -> giveUp.cancel(false));
        }
    }

    /** Goes on to the connection's next request when this one is read and answered. */
    private void settle(ChannelHandlerContext ctx, Exchange exchange) {
        if (current != exchange || !exchange.written || !exchange.complete) {
            return;
        }
        if (exchange.close && exchange.unreadable) {
            linger(ctx);
            return;
        }
        if (exchange.close) {
            ctx.close();
            return;
        }
        current = null;
        ctx.channel().config().setAutoRead(true);
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

    /** The same where nobody knows how much still comes: the client sees the end of the answers at once. */
    private static void linger(ChannelHandlerContext ctx) {
        ctx.channel().config().setAutoRead(true);
        ((DuplexChannel) ctx.channel()).shutdownOutput();
        ctx.executor().schedule(() -> ctx.close(), DISCARD_SECONDS, TimeUnit.SECONDS);
    }

    @Override
    public void channelInactive(ChannelHandlerContext ctx) {
        if (current != null) {
            if (!current.answered) {
                current.answered = true;
                current.log(499, 0, ""); // the caller went away: nobody's status, but the usual sign for it
            }
            current.release();
        }
        ctx.fireChannelInactive();
    }

    /** Whatever goes wrong in here: the caller gets an answer, or at least the end of the connection. */
    @Override
    public void exceptionCaught(ChannelHandlerContext ctx, Throwable cause) {
        boolean unanswered = current != null && !current.answered;
        if (cause instanceof IOException) {
            ctx.close(); // the connection itself
        } else if (cause instanceof DecoderException && unanswered) {
            send(ctx, Answers.invalid(cause), ctx.newPromise());
        } else {
            LOG.warn("a connection failed: {}", cause.toString());
            if (unanswered) {
                refuse(ctx, 500, "InternalError", "The request failed inside the server.");
            } else {
                ctx.close();
            }
        }
    }
}
