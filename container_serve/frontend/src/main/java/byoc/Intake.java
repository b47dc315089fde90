package byoc;

import io.netty.channel.ChannelHandlerContext;
import io.netty.channel.ChannelInboundHandlerAdapter;
import io.netty.handler.codec.PrematureChannelClosureException;
import io.netty.handler.codec.http.FullHttpRequest;

/** Hands whole requests back to the gate, which keeps those for predictions. */
final class Intake extends ChannelInboundHandlerAdapter {
    static final String AGGREGATOR = "aggregator"; // that stands before it

    private final Gate gate;

    Intake(Gate gate) {
        this.gate = gate;
    }

    @Override
    public void channelRead(ChannelHandlerContext ctx, Object message) {
        if (!gate.predict((FullHttpRequest) message)) {
            ctx.fireChannelRead(message);
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
