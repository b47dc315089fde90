package byoc;

import io.netty.channel.ChannelHandlerContext;
import io.netty.channel.ChannelInboundHandlerAdapter;
import io.netty.channel.socket.ChannelInputShutdownEvent;
import io.netty.channel.socket.DuplexChannel;
import io.netty.handler.codec.DecoderException;
import io.netty.handler.codec.http.DefaultFullHttpResponse;
import io.netty.handler.codec.http.FullHttpResponse;
import io.netty.handler.codec.http.HttpContent;
import io.netty.handler.codec.http.HttpHeaderNames;
import io.netty.handler.codec.http.HttpHeaderValues;
import io.netty.handler.codec.http.HttpRequest;
import io.netty.handler.codec.http.HttpResponseStatus;
import io.netty.handler.codec.http.HttpUtil;
import io.netty.handler.codec.http.HttpVersion;
import io.netty.handler.codec.http.LastHttpContent;
import io.netty.handler.timeout.WriteTimeoutException;
import java.io.IOException;
import java.util.concurrent.TimeUnit;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Stands between a connection and the models, one instance per connection. Answers /ping and /execution-parameters
 * itself, refuses what cannot be answered, gives every request an id, a time limit and a line in the log, and puts whole
 * requests for predictions into the queue of their model.
 */
final class RequestFilter extends ChannelInboundHandlerAdapter {
    private static final Logger LOG = LoggerFactory.getLogger("filter");
    private static final int DISCARD_SECONDS = 10;
    private static final long[] PROBE_MILLIS = {0, 100};

    private ChannelHandlerContext context;
    private RequestContext current; // what is being read or answered; null: nothing

    @Override
    public void handlerAdded(ChannelHandlerContext ctx) {
        context = ctx;
    }

    @Override
    public void channelRead(ChannelHandlerContext ctx, Object message) {
        try {
            if (message instanceof HttpRequest && current == null) { // else it follows one with which the connection ends
                head((HttpRequest) message);
            }
            if (message instanceof HttpContent) {
                body((HttpContent) message);
            }
        } catch (Refusal refusal) {
            send(refusal.answer());
        }
        // The next request stays in netty's FlowControlHandler until this one is answered, unless it is to be dropped.
        boolean last = current != null && current.written && current.close;
        ctx.channel().config().setAutoRead(current == null || !current.complete || last);
    }

    private void head(HttpRequest request) throws Refusal {
        Settings settings = Health.settings;
        Target target = new Target(request.method().name(), request.uri(), settings.routes);
        RequestContext begun = new RequestContext(this, request, target, settings.memory);
        current = begun;
        begun.unreadable = begun.complete = request.decoderResult().isFailure(); // nothing comes of a body any more
        FullHttpResponse answer = Admission.answer(request, target);
        if (answer != null) {
            send(answer);
            return;
        }
        begun.accept(context.executor().schedule(() -> timeOut(begun), settings.timeoutSeconds, TimeUnit.SECONDS));
        if (HttpUtil.is100ContinueExpected(request)) {
            sendContinue();
        }
    }

    private void body(HttpContent content) throws Refusal {
        RequestContext request = current;
        if (request == null) {
            content.release();
            return;
        }
        request.complete |= content instanceof LastHttpContent;
        request.unreadable |= content.decoderResult().isFailure();
        if (request.answered) { // without waiting for the body: drop it, so that the client sees the answer
            content.release();
            settle(request);
            return;
        }
        request.add(content);
        Admission.check(request, content.decoderResult());
        if (request.complete) {
            Admission.handOn(request);
        }
    }

    /** The answer of a worker or of who changes models, on any thread, and maybe too late. */
    void answer(RequestContext request, FullHttpResponse response) {
        context.executor().execute(() -> {
            if (current != request || request.answered) {
                response.release();
                return;
            }
            FailureTracker.count(response.status().code(), System.nanoTime());
            if (response.status().code() >= 400) { // a proxy may have seen the end of such a request elsewhere
                response.headers().set(HttpHeaderNames.CONNECTION, HttpHeaderValues.CLOSE);
            }
            send(response);
        });
    }

    private void timeOut(RequestContext request) {
        if (current != request || request.answered) {
            return;
        }
        if (request.pending != null && request.pending.taken) {
            FailureTracker.count(504, request.begun); // else it says nothing but that there is too much to do
        }
        String late = " within " + Health.settings.timeoutSeconds + " s.";
        send((request.complete
                ? new Refusal(504, "Timeout", "No answer" + late)
                : new Refusal(408, "RequestTimeout", "The request's body did not arrive" + late)).answer());
    }

    private void sendContinue() {
        context.writeAndFlush(new DefaultFullHttpResponse(HttpVersion.HTTP_1_1, HttpResponseStatus.CONTINUE));
    }

    private void send(FullHttpResponse response) {
        RequestContext request = current;
        request.answered = true;
        response.headers().set("X-Request-Id", request.id);
        int status = response.status().code();
        int bytes = response.content().readableBytes();
        String timing = response.headers().get("Server-Timing", "");
        boolean refused = response.headers().contains(HttpHeaderNames.CONNECTION, HttpHeaderValues.CLOSE, true);
        request.close = refused || !request.keepAlive || "draining".equals(Supervisor.state());
        if (request.close || request.isHttp10) {
            response.headers().set(HttpHeaderNames.CONNECTION, request.close ? "close" : "keep-alive");
        }
        request.dequeue();
        request.hold(bytes);
        context.writeAndFlush(response).addListener(done -> {
            request.end(status, bytes, timing);
            request.written = true;
            request.release();
            if (!request.complete && request.close) {
                closeLater();
            }
            settle(request);
        });
    }

    /** Takes the connection's next request when this one is read and answered. */
    private void settle(RequestContext request) {
        if (current != request || !request.written || !request.complete) {
            return;
        }
        DuplexChannel connection = (DuplexChannel) context.channel();
        if (request.close && request.unreadable) { // nobody knows how much still comes: the client sees the end at once
            connection.shutdownOutput();
            closeLater();
        } else if (request.close) {
            context.close();
        } else {
            current = null;
            connection.config().setAutoRead(true); // now the next one may come that was held back
            if (current == null && connection.isInputShutdown()) {
                context.close();
            }
        }
    }

    /** A connection that is closed while its client still sends loses the answer: read on, for a while. */
    private void closeLater() {
        context.channel().config().setAutoRead(true);
        context.executor().schedule(() -> context.close(), DISCARD_SECONDS, TimeUnit.SECONDS);
    }

    /**
     * The caller sends no more. It may wait for its answer, or have gone: then its machine refuses what it is sent, and
     * the next write fails, so that nothing is computed for nobody. Clients skip a 100 that they have not asked for.
     */
    @Override
    public void userEventTriggered(ChannelHandlerContext ctx, Object event) {
        if (!(event instanceof ChannelInputShutdownEvent)) {
            return;
        }
        RequestContext request = current;
        if (request == null || request.written || !request.complete && !request.answered) {
            ctx.close();
        } else if (!request.isHttp10) {
            for (long millis : PROBE_MILLIS) {
                ctx.executor().schedule(() -> probe(request), millis, TimeUnit.MILLISECONDS);
            }
        }
    }

    private void probe(RequestContext request) {
        if (current == request && !request.answered) {
            sendContinue();
        }
    }

    @Override
    public void channelInactive(ChannelHandlerContext ctx) {
        if (current != null) {
            if (!current.answered) {
                current.answered = true;
                current.end(499, 0, ""); // the caller went away: nobody's status, but the usual sign for it
            }
            current.release();
        }
    }

    /** For every error in here: the caller gets an answer, or at least the end of the connection. */
    @Override
    public void exceptionCaught(ChannelHandlerContext ctx, Throwable cause) {
        boolean isConnection = cause instanceof IOException || cause instanceof WriteTimeoutException;
        boolean isRequest = cause instanceof DecoderException;
        if (!isConnection && !isRequest) {
            LOG.warn("a connection failed: {}", cause.toString());
        }
        if (isConnection || current == null || current.answered) {
            ctx.close();
        } else {
            send((isRequest ? Refusal.invalid(cause) : Refusal.internal()).answer());
        }
    }
}
