package byoc.workers;

import com.amazonaws.ml.mms.util.messages.Predictions;
import io.netty.buffer.ByteBuf;
import io.netty.buffer.ByteBufAllocator;
import io.netty.buffer.CompositeByteBuf;
import io.netty.buffer.Unpooled;
import io.netty.handler.codec.http.DefaultFullHttpResponse;
import io.netty.handler.codec.http.FullHttpResponse;
import io.netty.handler.codec.http.HttpHeaderNames;
import io.netty.handler.codec.http.HttpHeaders;
import io.netty.handler.codec.http.HttpResponseStatus;
import io.netty.handler.codec.http.HttpUtil;
import io.netty.handler.codec.http.HttpVersion;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.concurrent.atomic.AtomicLong;

/** A whole request that waits for a worker, or has one; what changes in it is guarded by its queue. */
public final class PendingRequest {
    private static final int END = -1; // of a list, in the model server's protocol
    private static final int COPIES = 2; // of a body: as it is read, and as a user's program may copy it
    private static final int JSON_COPIES = 5; // in JSON, also in a form: its text, the strings in it, their base64 decoded
    private static final int SMALL_BYTES = 1 << 20;
    private static final AtomicLong CREATED = new AtomicLong();

    final long deadline;
    final long bytes;
    final int copies; // of its body in a worker, at most
    boolean alone; // it was with others at a worker that died, or is too large: it goes without others
    boolean abandoned; // its caller has an answer, or went away
    int lent; // of the workers' memory
    RequestQueue queue; // that has taken it
    public volatile boolean taken; // by a worker
    private final Caller caller;
    private final String id = Long.toString(CREATED.incrementAndGet()); // unique, unlike the caller's
    private final String type;
    private final HttpHeaders headers;
    private ByteBuf body; // null: it has been sent, or is not needed any more

    /** The receiver of the answer: on any thread, and maybe too late. */
    public interface Caller {
        void answer(FullHttpResponse response);

        void fail(int status, String message);
    }

    /** Owns the body from now on. `deadline` is of System.nanoTime(). */
    public PendingRequest(HttpHeaders headers, ByteBuf body, long deadline, Caller caller) {
        this.headers = headers;
        this.body = body;
        this.deadline = deadline;
        this.caller = caller;
        bytes = body.readableBytes();
        CharSequence mime = HttpUtil.getMimeType(headers.get(HttpHeaderNames.CONTENT_TYPE, ""));
        type = mime == null ? "" : mime.toString();
        String kind = type.toLowerCase(Locale.ROOT);
        boolean isJson = kind.contains("json");
        copies = isJson || kind.startsWith("multipart/") ? JSON_COPIES : COPIES;
        alone = isJson || bytes > SMALL_BYTES; // JSON, and JSON lines, have several images, maybe
    }

    /** Its caller has an answer, or went away: it leaves its queue, if no worker has it yet. */
    public void leave() {
        if (queue != null) {
            queue.remove(this);
        }
    }

    void answer(Predictions prediction) {
        FullHttpResponse response;
        try {
            response = new DefaultFullHttpResponse(
                    HttpVersion.HTTP_1_1,
                    prediction.getReasonPhrase().isEmpty()
                            ? HttpResponseStatus.valueOf(prediction.getStatusCode())
                            : HttpResponseStatus.valueOf(prediction.getStatusCode(), prediction.getReasonPhrase()),
                    Unpooled.wrappedBuffer(prediction.getResp()));
            prediction.getHeaders().forEach(response.headers()::set);
            response.headers().set(HttpHeaderNames.CONTENT_TYPE, prediction.getContentType());
            HttpUtil.setContentLength(response, prediction.getResp().length);
        } catch (IllegalArgumentException invalid) {
            fail(500, "The program gave a status or a header that cannot be sent.");
            return;
        }
        caller.answer(response);
    }

    void fail(int status, String message) {
        caller.fail(status, message);
    }

    public void release() {
        if (body != null) {
            body.release();
            body = null;
        }
    }

    /** Requests as the workers' protocol has them, in pieces; bodies are not copied. */
    static List<ByteBuf> encode(List<PendingRequest> requests, ByteBufAllocator allocator) {
        List<ByteBuf> pieces = new ArrayList<>();
        ByteBuf fields = allocator.buffer().writeByte('I');
        for (PendingRequest request : requests) {
            request.encode(fields, pieces);
            if (requests.size() == 1) {
                request.release(); // nobody needs its body again: see RequestQueue.died
            }
            fields = allocator.buffer().writeInt(END);
        }
        pieces.add(fields.writeInt(END));
        return pieces;
    }

    private void encode(ByteBuf fields, List<ByteBuf> pieces) {
        field(fields, id);
        for (Map.Entry<String, String> header : headers) {
            field(fields, header.getKey());
            field(fields, header.getValue());
        }
        fields.writeInt(END);
        field(fields, "body");
        field(fields, type);
        pieces.add(fields.writeInt((int) bytes));
        if (body instanceof CompositeByteBuf) { // as a whole, it may have more parts than can be sent at once
            for (ByteBuf part : ((CompositeByteBuf) body).decompose(body.readerIndex(), (int) bytes)) {
                pieces.add(part.retain());
            }
        } else {
            pieces.add(body.retainedSlice());
        }
    }

    private static void field(ByteBuf out, String text) {
        int at = out.writerIndex();
        int length = out.writeInt(0).writeCharSequence(text, StandardCharsets.UTF_8);
        out.setInt(at, length);
    }
}
