package byoc;

import com.amazonaws.ml.mms.wlm.Job;
import com.amazonaws.ml.mms.wlm.Model;
import com.amazonaws.ml.mms.wlm.ModelManager;
import com.google.gson.JsonElement;
import com.google.gson.JsonParser;
import io.netty.channel.ChannelDuplexHandler;
import io.netty.channel.ChannelHandlerContext;
import io.netty.channel.ChannelInboundHandler;
import io.netty.channel.ChannelPromise;
import io.netty.handler.codec.http.FullHttpRequest;
import io.netty.handler.codec.http.HttpMethod;
import io.netty.handler.codec.http.HttpResponse;
import io.netty.handler.codec.http.HttpResponseStatus;
import java.lang.reflect.Field;
import java.nio.charset.StandardCharsets;
import java.util.Map;
import java.util.Queue;
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

    @Override
    public void channelRead(ChannelHandlerContext ctx, Object message) {
        FullHttpRequest request = (FullHttpRequest) message;
        String model = model(request);
        if (model == null) {
            ctx.fireChannelRead(request);
            return;
        }
        ChannelHandlerContext next = ctx.pipeline().context("handler");
        CompletableFuture<Void> answer = new CompletableFuture<>();
        answered = answer;
        CompletableFuture<Void> change = LAST.compute(model, (name, last) ->
                (last == null ? CompletableFuture.<Void>completedFuture(null) : last)
                        .thenRunAsync(() -> handle(next, request), THREADS)
                        .runAfterBoth(answer, () -> {}));
        change.thenRun(() -> LAST.remove(model, change));
    }

    @Override
    public void write(ChannelHandlerContext ctx, Object message, ChannelPromise promise) {
        if (message instanceof HttpResponse) {
            answered.complete(null);
        }
        ctx.write(message, promise);
    }

    @Override
    public void channelInactive(ChannelHandlerContext ctx) {
        answered.complete(null); // there is nobody to answer
        ctx.fireChannelInactive();
    }

    /** The model that the request has loaded or unloaded; null when it does neither. */
    private static String model(FullHttpRequest request) {
        if (HttpMethod.DELETE.equals(request.method())) {
            return request.uri();
        }
        if (!HttpMethod.POST.equals(request.method()) || !request.uri().equals("/models")) {
            return null;
        }
        // What Registration has let through.
        JsonElement name = JsonParser.parseString(request.content().toString(StandardCharsets.UTF_8))
                .getAsJsonObject()
                .get("model_name");
        return "/models/" + (name == null || !name.isJsonPrimitive() ? "" : name.getAsString());
    }

    private static void handle(ChannelHandlerContext ctx, FullHttpRequest request) {
        Map<String, Model> models = ModelManager.getInstance().getModels();
        String name = request.uri().substring(request.uri().lastIndexOf('/') + 1);
        Model before = HttpMethod.DELETE.equals(request.method()) ? models.get(name) : null;
        try {
            ((ChannelInboundHandler) ctx.handler()).channelRead(ctx, request);
            if (before != null && models.get(name) != before) {
                refuseWaiting(before);
            }
        } catch (Throwable error) { // answered with an error already, as far as the model server can
            LOG.warn("{} {}: {}", request.method(), request.uri(), error.toString());
        }
    }

    /** What waits for a model that went would wait until its deadline. */
    private static void refuseWaiting(Model model) throws ReflectiveOperationException {
        Field queues = Model.class.getDeclaredField("jobsDb");
        queues.setAccessible(true);
        Queue<?> waiting = (Queue<?>) ((Map<?, ?>) queues.get(model)).get(Model.DEFAULT_DATA_QUEUE);
        for (Job job = (Job) waiting.poll(); job != null; job = (Job) waiting.poll()) {
            job.sendError(HttpResponseStatus.SERVICE_UNAVAILABLE, "Model unloaded: " + model.getModelName());
        }
    }
}
