package byoc;

import com.amazonaws.ml.mms.wlm.Model;
import com.amazonaws.ml.mms.wlm.ModelManager;
import io.netty.channel.ChannelDuplexHandler;
import io.netty.channel.ChannelHandlerContext;
import io.netty.channel.ChannelInboundHandler;
import io.netty.channel.ChannelPromise;
import io.netty.handler.codec.http.FullHttpRequest;
import io.netty.handler.codec.http.HttpHeaderNames;
import io.netty.handler.codec.http.HttpMethod;
import io.netty.handler.codec.http.HttpResponse;
import io.netty.handler.codec.http.HttpResponseStatus;
import io.netty.util.ReferenceCountUtil;
import java.nio.charset.StandardCharsets;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Has models loaded and unloaded on threads of their own, one instance per connection. The model server waits there for
 * processes, and would do so on a thread that serves many other connections. What concerns one model waits until what
 * was asked for before is answered: the model server would never answer who loads a model that is unloaded meanwhile.
 */
final class ModelChanges extends ChannelDuplexHandler {
    private static final Logger LOG = LoggerFactory.getLogger("models");
    private static final Map<String, CompletableFuture<Void>> LAST = new ConcurrentHashMap<>();
    private static final ExecutorService THREADS = Executors.newCachedThreadPool(task -> {
        Thread thread = new Thread(task, "models");
        thread.setDaemon(true);
        return thread;
    });

    private CompletableFuture<Void> answered = new CompletableFuture<>();
    private volatile String loading; // the model, until its load is answered

    @Override
    public void channelRead(ChannelHandlerContext ctx, Object message) {
        FullHttpRequest request = (FullHttpRequest) message;
        boolean loads = request.method().equals(HttpMethod.POST) && request.uri().equals(Route.LOAD_MODEL.path(""));
        if (!loads && !request.method().equals(HttpMethod.DELETE)) {
            ctx.fireChannelRead(request);
            return;
        }
        Registration asked = null;
        if (loads) {
            try {
                asked = new Registration(request.content().toString(StandardCharsets.UTF_8));
            } catch (Refusal refusal) {
                request.release();
                ctx.writeAndFlush(refusal.answer());
                return;
            }
        }
        Registration load = asked;
        ChannelHandlerContext next = ctx.pipeline().context("handler");
        String model = loads ? load.model : request.uri().substring(Route.UNLOAD_MODEL.path("").length());
        CompletableFuture<Void> answer = new CompletableFuture<>();
        answered = answer;
        loading = loads ? model : null;
        CompletableFuture<Void> change = LAST.compute(model, (name, last) ->
                (last == null ? CompletableFuture.<Void>completedFuture(null) : last)
                        .thenRunAsync(() -> change(ctx, next, request, model, load, answer), THREADS)
                        .runAfterBoth(answer, () -> {}));
        change.thenRun(() -> LAST.remove(model, change));
    }

    @Override
    public void write(ChannelHandlerContext ctx, Object message, ChannelPromise promise) {
        Object answer = message;
        if (message instanceof HttpResponse) {
            String model = loading;
            loading = null;
            // The model server knows that no worker started; why, the worker has left in a file.
            if (model != null && ((HttpResponse) message).status().equals(HttpResponseStatus.INTERNAL_SERVER_ERROR)) {
                ReferenceCountUtil.release(message);
                answer = ModelFolders.failure(model).answer();
            }
            answered.complete(null);
        }
        ctx.write(answer, promise);
    }

    @Override
    public void channelInactive(ChannelHandlerContext ctx) {
        answered.complete(null); // there is nobody to answer
        ctx.fireChannelInactive();
    }

    /** `load` is null where the model is to be unloaded. */
    private void change(
            ChannelHandlerContext ctx,
            ChannelHandlerContext next,
            FullHttpRequest request,
            String model,
            Registration load,
            CompletableFuture<Void> answer) {
        Map<String, Model> models = ModelManager.getInstance().getModels();
        Model before = models.get(model);
        try {
            FullHttpRequest forwarded = request;
            if (load != null) {
                if (before != null) { // its workers go on to read its link
                    throw new Refusal(409, "ConflictStatusException", "Model " + model + " is already registered.");
                }
                load.check();
                long bytes = ModelMemory.needed(load.weights);
                ModelMemory.promise(model, bytes);
                answer.thenRun(() -> ModelMemory.giveBack(bytes));
                ModelFolders.put(model, load.folder);
                forwarded = replaced(request, load.body());
            }
            ((ChannelInboundHandler) next.handler()).channelRead(next, forwarded);
            if (load == null && before != null && models.get(model) != before) {
                ModelFolders.remove(model);
                ModelMemory.unloaded();
            }
        } catch (Refusal refusal) {
            request.release();
            loading = null;
            ctx.writeAndFlush(refusal.answer());
        } catch (Throwable error) { // answered with an error already, as far as the model server can
            LOG.warn("{} {}: {}", request.method(), request.uri(), error.toString());
        }
    }

    private static FullHttpRequest replaced(FullHttpRequest request, String text) {
        byte[] body = text.getBytes(StandardCharsets.UTF_8);
        FullHttpRequest replaced = request.replace(request.content().alloc().buffer().writeBytes(body));
        replaced.headers().set(HttpHeaderNames.CONTENT_LENGTH, body.length);
        replaced.headers().set(HttpHeaderNames.CONTENT_TYPE, "application/json");
        request.release();
        return replaced;
    }
}
