package byoc;

import byoc.workers.PendingRequest;
import byoc.workers.RequestQueue;
import io.netty.channel.ChannelHandlerContext;
import io.netty.channel.ChannelInboundHandlerAdapter;
import io.netty.handler.codec.PrematureChannelClosureException;
import io.netty.handler.codec.http.FullHttpRequest;
import io.netty.handler.codec.http.FullHttpResponse;
import java.util.concurrent.TimeUnit;

/** Puts whole requests for predictions into the queue of their model; others go on to the model server. */
final class Intake extends ChannelInboundHandlerAdapter {
    static final String AGGREGATOR = "aggregator"; // that stands before it

    private final Gate gate;
    private final long nanos; // that a request may take

    Intake(Gate gate, int timeoutSeconds) {
        this.gate = gate;
        nanos = TimeUnit.SECONDS.toNanos(timeoutSeconds);
    }

    private static final class Caller implements PendingRequest.Caller {
        private final Gate gate;
        private final Exchange exchange;

        Caller(Gate gate, Exchange exchange) {
            this.gate = gate;
            this.exchange = exchange;
        }

        @Override
        public void answer(FullHttpResponse response) {
            gate.answer(exchange, response);
        }

        @Override
        public void fail(int status, String message) {
            answer(Answers.error(status, status == 503 ? "ServiceUnavailable" : "InternalError", message));
        }
    }

    @Override
    public void channelRead(ChannelHandlerContext ctx, Object message) {
        Exchange exchange = gate.current();
        if (exchange == null || exchange.model == null || exchange.answered) {
            ctx.fireChannelRead(message);
            return;
        }
        PendingRequest pending = new PendingRequest(
                (FullHttpRequest) message, exchange.begun + nanos, new Caller(gate, exchange));
        RequestQueue queue = Health.workers.queue(exchange.model);
        // Only a request that is there as a whole takes a place from others.
        if (queue == null || !exchange.enqueue(queue, pending)) {
            pending.release();
            gate.answer(exchange, queue == null ? Answers.noModel(exchange.model) : Answers.queueFull());
        }
    }

    /** A request that was refused before its end is no error to be logged, as it is to the model server. */
    @Override
    public void exceptionCaught(ChannelHandlerContext ctx, Throwable cause) {
        if (!(cause instanceof PrematureChannelClosureException)) {
            ctx.fireExceptionCaught(cause);
        }
    }
}
