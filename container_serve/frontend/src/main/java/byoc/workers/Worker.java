package byoc.workers;

import com.amazonaws.ml.mms.util.ConfigManager;
import com.amazonaws.ml.mms.util.codec.ModelResponseDecoder;
import com.amazonaws.ml.mms.util.messages.ModelWorkerResponse;
import io.netty.bootstrap.Bootstrap;
import io.netty.buffer.ByteBuf;
import io.netty.channel.Channel;
import io.netty.channel.ChannelHandlerContext;
import io.netty.channel.ChannelInitializer;
import io.netty.channel.EventLoopGroup;
import io.netty.channel.SimpleChannelInboundHandler;
import io.netty.handler.codec.LengthFieldBasedFrameDecoder;
import java.util.List;
import java.util.concurrent.TimeUnit;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * One worker process: the model's fork server starts it for our connection, and it ends with that. It speaks the model
 * server's protocol, whose own thread for each worker is not used: requests would wait until it has woken up.
 */
final class Worker extends SimpleChannelInboundHandler<ModelWorkerResponse> implements RequestQueue.Worker {
    private static final Logger LOG = LoggerFactory.getLogger("workers");
    private static final int LENGTH = Integer.BYTES; // which a worker writes before each of its messages

    private final WorkerPool pool;
    private volatile Channel channel;
    volatile int pid; // 0: not known yet
    private List<PendingRequest> requests = List.of(); // that it has
    private long since;
    volatile boolean loaded; // it holds the model
    boolean failed; // to load it, and said so

    Worker(WorkerPool pool) {
        this.pool = pool;
    }

    void connect(EventLoopGroup group) {
        int answerBytes = ConfigManager.getInstance().getMaxResponseSize();
        channel = new Bootstrap()
                .group(group)
                .channel(pool.connector.getClientChannel())
                .handler(
                        new ChannelInitializer<Channel>() {
                            @Override
                            protected void initChannel(Channel connection) {
                                connection.pipeline().addLast(
                                        new LengthFieldBasedFrameDecoder(answerBytes, 0, LENGTH, 0, LENGTH),
                                        new ModelResponseDecoder(answerBytes),
                                        Worker.this);
                            }
                        })
                .connect(pool.connector.getSocketAddress())
                .addListener(done -> {
                    if (!done.isSuccess()) {
                        pool.replace(this, WorkerPool.CONNECT_MILLIS); // nobody listens yet
                    }
                })
                .channel();
    }

    /** Kills the process if it has had one request for longer than that; another one comes in its place. */
    synchronized void endIfStuck(long nanos) {
        if (!requests.isEmpty() && System.nanoTime() - since > nanos) {
            LOG.warn("worker {} does not come back from a request: it is ended, another one starts", pid);
            ProcessHandle.of(pid).ifPresent(ProcessHandle::destroyForcibly);
        }
    }

    /** The process ends when it sees that. */
    void close() {
        channel.close();
    }

    @Override
    public void channelActive(ChannelHandlerContext ctx) {
        channel = ctx.channel();
        Runnable giveUp = () -> {
            if (!loaded) {
                ctx.close();
            }
        };
        int seconds = ConfigManager.getInstance().getDefaultResponseTimeoutSeconds();
        ctx.executor().schedule(giveUp, seconds, TimeUnit.SECONDS);
    }

    @Override
    protected void channelRead0(ChannelHandlerContext ctx, ModelWorkerResponse message) {
        if (loaded) {
            answer(message);
        } else if (message.getCode() == 200) {
            pid = Integer.parseInt(message.getMessage());
            loaded = true;
            pool.loaded(this);
        } else {
            failed = true;
            pool.failed(message.getMessage());
            ctx.close();
        }
    }

    @Override
    public synchronized void send(List<PendingRequest> next) {
        requests = next;
        since = System.nanoTime();
        for (ByteBuf piece : PendingRequest.encode(next, channel.alloc())) {
            channel.write(piece);
        }
        channel.flush();
    }

    /** The requests that are answered now. */
    private synchronized List<PendingRequest> end() {
        List<PendingRequest> ended = requests;
        requests = List.of();
        return ended;
    }

    private void answer(ModelWorkerResponse message) {
        List<PendingRequest> ended = end();
        boolean good = message.getCode() == 200;
        for (int i = 0; i < ended.size(); i++) {
            pool.queue.done(ended.get(i), good ? System.nanoTime() - since : 0);
            if (good) {
                ended.get(i).answer(message.getPredictions().get(i));
            } else {
                ended.get(i).fail(message.getCode(), message.getMessage());
            }
        }
        pool.queue.free(this);
    }

    @Override
    public void channelInactive(ChannelHandlerContext ctx) {
        pool.queue.leave(this);
        pool.queue.died(end());
        pool.ended(this);
    }

    @Override
    public void exceptionCaught(ChannelHandlerContext ctx, Throwable cause) {
        LOG.warn("the connection with worker {} failed: {}", pid, cause.toString());
        ctx.close();
    }
}
