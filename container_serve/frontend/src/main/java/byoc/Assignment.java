package byoc;

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
import io.netty.channel.ChannelOutboundHandlerAdapter;
import io.netty.channel.ChannelPromise;
import io.netty.channel.EventLoopGroup;
import io.netty.handler.codec.http.HttpResponseStatus;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Proxy;
import java.util.List;

/** The request that one worker has: taken from the queue when it is free, answered with what it says. */
final class Assignment extends BatchAggregator {
    private final Model model;
    private final RequestQueue queue;
    private String channel; // names the worker's connection, and the pipes of its output
    private PendingRequest request;
    private long since;

    Assignment(Model model, RequestQueue queue) {
        super(model);
        this.model = model;
        this.queue = queue;
    }

    /** A request on its way to the worker. */
    private static final class Order extends ModelInferenceRequest {
        final PendingRequest request;

        Order(String model, PendingRequest request) {
            super(model);
            this.request = request;
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
            List<ByteBuf> pieces = ((Order) message).request.encode(ctx.alloc());
            ByteBuf last = pieces.remove(pieces.size() - 1);
            pieces.forEach(ctx::write);
            ctx.write(last, promise);
        }
    }

    /** The event loops, which give every connection that they get our encoder. */
    static EventLoopGroup encoding(EventLoopGroup group) {
        Class<?>[] type = {EventLoopGroup.class};
        return (EventLoopGroup) Proxy.newProxyInstance(type[0].getClassLoader(), type, (proxy, method, arguments) -> {
            try {
                Object result = method.invoke(group, arguments);
                if (method.getName().equals("register")) {
                    Channel connection = ((ChannelFuture) result).channel();
                    ((ChannelFuture) result).addListener(done -> connection.pipeline().addLast(new Encoder()));
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
        PendingRequest next = queue.take();
        begin(next);
        return new Order(model.getModelName(), next);
    }

    private synchronized void begin(PendingRequest next) {
        request = next;
        since = System.nanoTime();
    }

    /** The request that is answered now, by whoever comes first; null: none. */
    private synchronized PendingRequest end(boolean answered) {
        PendingRequest ended = request;
        request = null;
        if (ended != null) {
            queue.done(ended, answered ? System.nanoTime() - since : 0);
        }
        return ended;
    }

    @Override
    public void sendResponse(ModelWorkerResponse message) {
        PendingRequest ended = end(message.getCode() == 200);
        if (ended == null) {
            super.sendResponse(message); // to the order to load the model
        } else if (message.getCode() == 200) {
            ended.answer(message.getPredictions().get(0));
        } else {
            ended.fail(message.getCode(), message.getMessage());
        }
    }

    /** `message` is null where the worker is ended on purpose. */
    @Override
    public void sendError(BaseModelRequest message, String error, HttpResponseStatus status) {
        PendingRequest ended = end(false);
        if (ended != null) {
            ended.fail(message == null ? 503 : status.code(), error);
        }
    }

    /** The prefix of the names of the worker's pipes; null where it never was connected. */
    String channel() {
        return channel;
    }

    /** Whether it has had one request for longer than that. */
    synchronized boolean isStuck(long nanos) {
        return request != null && System.nanoTime() - since > nanos;
    }
}
