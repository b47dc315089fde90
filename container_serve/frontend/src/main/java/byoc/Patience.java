package byoc;

import io.netty.channel.ChannelHandlerContext;
import io.netty.channel.ChannelInboundHandlerAdapter;
import java.util.concurrent.ScheduledFuture;
import java.util.concurrent.TimeUnit;

/**
 * Gives up on a client that does not come to the end of a request's head, or opens a connection and says nothing. The
 * gate sees a request only from then on; this handler stands before the decoder, where the bytes arrive.
 */
final class Patience extends ChannelInboundHandlerAdapter {
    private final Gate gate;
    private final int seconds;
    private ScheduledFuture<?> timer;
    private boolean spoken;

    Patience(Gate gate, int seconds) {
        this.gate = gate;
        this.seconds = seconds;
    }

    @Override
    public void channelActive(ChannelHandlerContext ctx) {
        timer = ctx.executor().schedule(() -> giveUp(ctx), seconds, TimeUnit.SECONDS);
        ctx.fireChannelActive();
    }

    @Override
    public void channelRead(ChannelHandlerContext ctx, Object message) {
        spoken = true;
        long heads = gate.heads();
        ctx.fireChannelRead(message); // comes back when all that it completes was decoded
        if (gate.heads() != heads) {
            stop();
        } else if (gate.isIdle() && timer == null) {
            timer = ctx.executor().schedule(() -> giveUp(ctx), seconds, TimeUnit.SECONDS);
        }
    }

    @Override
    public void channelInactive(ChannelHandlerContext ctx) {
        stop();
        ctx.fireChannelInactive();
    }

    private void giveUp(ChannelHandlerContext ctx) {
        if (spoken) {
            gate.headTooSlow();
        } else {
            ctx.close();
        }
    }

    private void stop() {
        if (timer != null) {
            timer.cancel(false);
            timer = null;
        }
    }
}
