package byoc;

import io.netty.handler.codec.TooLongFrameException;
import io.netty.handler.codec.http.FullHttpResponse;
import io.netty.handler.codec.http.HttpHeaderNames;
import io.netty.handler.codec.http.HttpHeaderValues;

/** A request that is refused; the message says what is wrong with it. */
final class Refusal extends Exception {
    private static final long serialVersionUID = 1L;

    private final int status;
    private final String type;

    Refusal(int status, String type, String message) {
        super(message, null, false, false);
        this.status = status;
        this.type = type;
    }

    /** `cause`: why it could not be read; what the decoder says stays inside. */
    static Refusal invalid(Throwable cause) {
        if (cause instanceof Refusal) {
            return (Refusal) cause;
        }
        boolean tooLong = cause instanceof TooLongFrameException;
        String reason = tooLong ? ": its first line is longer than 4 KB, or its headers than 8 KB." : ".";
        return new Refusal(400, "BadRequest", "This is not a valid HTTP request" + reason);
    }

    static Refusal noModel(String name) {
        return new Refusal(404, "ModelNotFoundException", "Model not found: " + name);
    }

    static Refusal queueFull() {
        int queued = Health.workers.queued();
        return new Refusal(503, "QueueFull", queued + " requests are waiting already; send the request again later.");
    }

    static Refusal memoryFull() {
        String message = "Other requests take the memory that this one needs; send the request again later.";
        return new Refusal(503, "MemoryFull", message);
    }

    static Refusal internal() {
        return new Refusal(500, "InternalError", "The request failed inside the server.");
    }

    /** The connection ends with it, once the request's body has been read. */
    FullHttpResponse answer() {
        FullHttpResponse response =
                Answers.json(status, Answers.object("code", status, "type", type, "message", getMessage()));
        response.headers().set(HttpHeaderNames.CONNECTION, HttpHeaderValues.CLOSE);
        return response;
    }
}
