package byoc.workers;

import com.amazonaws.ml.mms.util.ConfigManager;
import com.amazonaws.ml.mms.util.Connector;
import com.amazonaws.ml.mms.util.codec.ModelRequestEncoder;
import com.amazonaws.ml.mms.util.codec.ModelResponseDecoder;
import com.amazonaws.ml.mms.util.messages.ModelLoadModelRequest;
import com.amazonaws.ml.mms.util.messages.ModelWorkerResponse;
import com.amazonaws.ml.mms.wlm.Model;
import com.amazonaws.ml.mms.wlm.WorkerLifeCycle;
import io.netty.bootstrap.Bootstrap;
import io.netty.buffer.ByteBuf;
import io.netty.channel.Channel;
import io.netty.channel.ChannelHandlerContext;
import io.netty.channel.ChannelInitializer;
import io.netty.channel.EventLoopGroup;
import io.netty.channel.SimpleChannelInboundHandler;
import io.netty.handler.codec.LengthFieldBasedFrameDecoder;
import java.io.File;
import java.io.IOException;
import java.io.RandomAccessFile;
import java.nio.channels.Channels;
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
    private static final String FOLDER = System.getProperty("java.io.tmpdir");
    private static final int LENGTH = Integer.BYTES; // which a worker writes before each of its messages

    private final Model model;
    private final WorkerPool pool;
    private final WorkerLifeCycle output; // reads what the process prints
    private final RandomAccessFile[] pipes = new RandomAccessFile[2];
    private volatile Channel channel;
    private String name; // of its pipes
    private List<PendingRequest> requests = List.of(); // that it has
    private long since;
    private volatile boolean loaded;

    Worker(Model model, WorkerPool pool) {
        this.model = model;
        this.pool = pool;
        output = new WorkerLifeCycle(ConfigManager.getInstance(), model);
    }

    void connect(EventLoopGroup group) {
        int answerBytes = ConfigManager.getInstance().getMaxResponseSize();
        Connector connector = new Connector(model.getPort());
        channel = new Bootstrap()
                .group(group)
                .channel(connector.getClientChannel())
                .handler(
                        new ChannelInitializer<Channel>() {
                            @Override
                            protected void initChannel(Channel connection) {
                                connection.pipeline().addLast(
                                        new LengthFieldBasedFrameDecoder(answerBytes, 0, LENGTH, 0, LENGTH),
                                        new ModelResponseDecoder(answerBytes),
                                        new ModelRequestEncoder(true),
                                        Worker.this);
                            }
                        })
                .connect(connector.getSocketAddress())
                .addListener(done -> {
                    if (!done.isSuccess()) {
                        pool.ended(this);
                    }
                })
                .channel();
    }

    /** Holds a loaded model. */
    boolean isLoaded() {
        return loaded;
    }

    int pid() {
        return output.getPid();
    }

    /** Whether it has had one request for longer than that. */
    synchronized boolean isStuck(long nanos) {
        return !requests.isEmpty() && System.nanoTime() - since > nanos;
    }

    /** The process ends when it sees that. */
    void close() {
        channel.close();
    }

    @Override
    public void channelActive(ChannelHandlerContext ctx) {
        channel = ctx.channel();
        name = channel.id().asLongText();
        ctx.writeAndFlush(new ModelLoadModelRequest(model, -1, name));
        Runnable giveUp = () -> {
            if (!loaded) {
                ctx.close();
            }
        };
        ctx.executor().schedule(giveUp, model.getResponseTimeoutSeconds(), TimeUnit.SECONDS);
    }

    @Override
    protected void channelRead0(ChannelHandlerContext ctx, ModelWorkerResponse message) throws IOException {
        if (loaded) {
            answer(message);
        } else {
            pipes[0] = new RandomAccessFile(pipe("-stdout"), "rw");
            pipes[1] = new RandomAccessFile(pipe("-stderr"), "rw");
            if (message.getCode() == 200) {
                begin(message.getMessage());
            } else {
                ctx.close();
            }
        }
    }

    private void begin(String message) {
        output.setPid(Integer.parseInt(message.substring(message.indexOf("[PID]:") + "[PID]:".length())));
        output.attachIOStreams(
                "W-" + output.getPid(),
                Channels.newInputStream(pipes[0].getChannel()),
                Channels.newInputStream(pipes[1].getChannel()));
        loaded = true;
        pool.loaded(this);
    }

    private File pipe(String end) {
        return new File(FOLDER, name + end);
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
    public void channelInactive(ChannelHandlerContext ctx) throws IOException {
        if (loaded && !pool.isClosed()) {
            pool.died.incrementAndGet();
        }
        loaded = false;
        pool.queue.leave(this);
        List<PendingRequest> ended = end();
        if (pool.isClosed() || !pool.queue.failed(ended)) {
            for (PendingRequest request : ended) {
                pool.queue.done(request, 0);
                request.fail(pool.isClosed() ? 503 : 500, "The worker died.");
            }
        }
        pool.ended(this);
        output.terminateIOStreams();
        for (RandomAccessFile pipe : pipes) {
            if (pipe != null) {
                pipe.close();
            }
        }
        pipe("-stdout").delete(); // a process that was killed has left them
        pipe("-stderr").delete();
    }

    @Override
    public void exceptionCaught(ChannelHandlerContext ctx, Throwable cause) {
        LOG.warn("the connection with worker {} failed: {}", output.getPid(), cause.toString());
        ctx.close();
    }
}
