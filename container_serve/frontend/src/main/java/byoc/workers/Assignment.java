package byoc.workers;

import com.amazonaws.ml.mms.util.messages.BaseModelRequest;
import com.amazonaws.ml.mms.util.messages.ModelInferenceRequest;
import com.amazonaws.ml.mms.util.messages.ModelWorkerResponse;
import com.amazonaws.ml.mms.wlm.BatchAggregator;
import com.amazonaws.ml.mms.wlm.Model;
import com.amazonaws.ml.mms.wlm.WorkerState;
import io.netty.buffer.ByteBuf;
import io.netty.channel.Channel;
import io.netty.channel.ChannelFuture;
import io.netty.channel.ChannelHandlerContext;
import io.netty.channel.ChannelInboundHandlerAdapter;
import io.netty.channel.ChannelOutboundHandlerAdapter;
import io.netty.channel.ChannelPromise;
import io.netty.channel.EventLoopGroup;
import io.netty.handler.codec.LengthFieldBasedFrameDecoder;
import io.netty.handler.codec.http.HttpResponseStatus;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Proxy;
import java.util.List;

/** The requests that one worker has: taken from the queue when it is free, answered with what it says. */
final class Assignment extends BatchAggregator {
    private static final int LENGTH = Integer.BYTES; // which worker.py writes before each of its messages

    private final Model model;
    private final RequestQueue queue;
    private String channel; // names the worker's connection, and the pipes of its output
    private List<PendingRequest> requests = List.of();
    private long since;
    private boolean hasLoaded;

    Assignment(Model model, RequestQueue queue) {
        super(model);
        this.model = model;
        this.queue = queue;
    }

    /** Requests on their way to the worker. */
    private static final class Order extends ModelInferenceRequest {
        final List<PendingRequest> requests;

        Order(String model, List<PendingRequest> requests) {
            super(model);
            this.requests = requests;
        }
    }

    /** Answers the callers at once, before the worker's thread has woken up to see that it is free. */
    private final class Answering extends ChannelInboundHandlerAdapter {
        @Override
        public void channelRead(ChannelHandlerContext ctx, Object message) {
            answer((ModelWorkerResponse) message);
            ctx.fireChannelRead(message);
        }
    }

    /** Writes orders; the model server's own encoder copies a body twice. */
    private static final class Encoder extends ChannelOutboundHandlerAdapter {
        @Override
        public void write(ChannelHandlerContext ctx, Object message, ChannelPromise promise) {
            if (!(message instanceof Order)) {
                ctx.write(message, promise);
                return;
            }
            List<ByteBuf> pieces = PendingRequest.encode(((Order) message).requests, ctx.alloc());
            ByteBuf last = pieces.remove(pieces.size() - 1);
            pieces.forEach(ctx::write);
            ctx.write(last, promise);
        }
    }

    /**
     * The event loops, which give every connection that they get our encoder, and a decoder that waits for whole
     * answers: the model server's own fails where part of one comes later.
     */
    EventLoopGroup encoding(EventLoopGroup group, int answerBytes) {
        Class<?>[] type = {EventLoopGroup.class};
        return (EventLoopGroup) Proxy.newProxyInstance(type[0].getClassLoader(), type, (proxy, method, arguments) -> {
            try {
                Object result = method.invoke(group, arguments);
                if (method.getName().equals("register")) {
                    Channel connection = ((ChannelFuture) result).channel();
                    ((ChannelFuture) result).addListener(done -> connection.pipeline()
                            .addFirst(new LengthFieldBasedFrameDecoder(answerBytes, 0, LENGTH, 0, LENGTH))
                            .addBefore(connection.pipeline().lastContext().name(), "answers", new Answering())
                            .addLast(new Encoder()));
                }
                return result;
            } catch (InvocationTargetException error) {
                throw error.getCause();
            }
        });
    }

    @Override
    public BaseModelRequest getRequest(String connection, WorkerState state) throws InterruptedException {
        if (channel == null) {
            channel = connection;
            return super.getRequest(connection, state); // to load the model
        }
        if (state != WorkerState.WORKER_MODEL_LOADED) {
            throw new InterruptedException("the worker could not load the model");
        }
        List<PendingRequest> next = queue.take();
        begin(next);
        return new Order(model.getModelName(), next);
    }

    private synchronized void begin(List<PendingRequest> next) {
        requests = next;
        since = System.nanoTime();
    }

    /** The requests that are answered now, by whoever comes first. */
    private synchronized List<PendingRequest> end() {
        List<PendingRequest> ended = requests;
        requests = List.of();
        return ended;
    }

    @Override
    public void sendResponse(ModelWorkerResponse message) {
        if (!hasLoaded) {
            hasLoaded = true;
            super.sendResponse(message); // to the order to load the model
        }
    }

    private void answer(ModelWorkerResponse message) {
        List<PendingRequest> ended = end();
        boolean good = message.getCode() == 200;
        for (int i = 0; i < ended.size(); i++) {
            queue.done(ended.get(i), good ? System.nanoTime() - since : 0);
            if (good) {
                ended.get(i).answer(message.getPredictions().get(i));
            } else {
                ended.get(i).fail(message.getCode(), message.getMessage());
            }
        }
    }

    /** `message` is null where the worker is ended on purpose. */
    @Override
    public void sendError(BaseModelRequest message, String error, HttpResponseStatus status) {
        List<PendingRequest> ended = end();
        if (message != null && queue.failed(ended)) {
            return;
        }
        for (PendingRequest request : ended) {
            queue.done(request, 0);
            request.fail(message == null ? 503 : status.code(), error);
        }
    }

    /** The prefix of the names of the worker's pipes; null where it never was connected. */
    String channel() {
        return channel;
    }

    /** Whether it has had one request for longer than that. */
    synchronized boolean isStuck(long nanos) {
        return !requests.isEmpty() && System.nanoTime() - since > nanos;
    }
}
